//! Three servers, three users, one directory: `cargo run --release --example mesh`.
//!
//! Starts three federated servers, each with its own key, ports and database in a temporary folder, and takes a short
//! tour with the real client in processes of its own. Every line of the tour was read from a client's output. Then it
//! prints commands for a second terminal and stays up until Ctrl-C; `--once` ends after the tour instead.

use std::{
    env,
    error::Error,
    fs,
    io::{BufRead, BufReader, Write},
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio, exit},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A client that has not said what it should after this long is not going to.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() {
    if let Err(error) = run(env::args().any(|argument| argument == "--once")) {
        eprintln!("error: {error}");
        exit(1);
    }
}

fn run(once: bool) -> Result<()> {
    let programs = build()?;
    let folder = tempfile::Builder::new().prefix("socp-mesh-").tempdir()?;
    let interrupted = on_ctrl_c();
    let mesh = Mesh::start(&programs, folder.path())?;
    let _online = mesh.tour()?;
    if once {
        println!("\nThe tour is over: everything above was read from the clients.");
        return Ok(());
    }
    mesh.invite_the_reader();
    interrupted.recv()?;
    Ok(())
}

/// Builds the server and the client, and tells where they are.
fn build() -> Result<PathBuf> {
    eprintln!("building socp-server and socp ...");
    let profile: &[&str] = if cfg!(debug_assertions) { &[] } else { &["--release"] };
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // The same choice of packages as `cargo run --example`, so that no dependency is built a second time.
    let build = ["build", "--quiet", "--bins", "--example", "mesh"];
    let built = Command::new(cargo).args(build).args(profile).current_dir(env!("CARGO_MANIFEST_DIR")).status()?;
    if !built.success() {
        return Err("the programs cannot be built".into());
    }
    // This program is in `target/<profile>/examples`.
    let here = env::current_exe()?;
    Ok(here.ancestors().nth(2).ok_or("this program is not where cargo puts examples")?.to_owned())
}

fn on_ctrl_c() -> Receiver<()> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(tokio::signal::ctrl_c())?;
        let _ = sender.send(());
        std::io::Result::Ok(())
    });
    receiver
}

struct Server {
    name: &'static str,
    id: String,
    address: String,
    data: PathBuf,
    _process: Process,
}

struct Mesh {
    programs: PathBuf,
    folder: PathBuf,
    servers: Vec<Server>,
}

impl Mesh {
    /// Each server is told the others' names, addresses and ids; then they may start in any order.
    fn start(programs: &Path, folder: &Path) -> Result<Self> {
        let names = ["server-a", "server-b", "server-c"];
        let server = |arguments: &[&str]| {
            let mut command = Command::new(programs.join("socp-server"));
            command.args(arguments).args(["--json", "--log", "error"]);
            command
        };
        let mut known = Vec::new();
        for name in names {
            let data = folder.join(name);
            let id =
                Command::new(programs.join("socp-server")).arg("--data").arg(&data).args(["id", "--json"]).output()?;
            let id: Value = serde_json::from_slice(&id.stdout)?;
            let federation = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
            known.push((name, data, text(&id, "server_id"), federation));
        }
        let mut servers = Vec::new();
        println!("Three servers, each with its own key, ports and database:\n");
        for (name, data, id, federation) in &known {
            let mut config = format!(
                "name = '{name}'\ndata = '{}'\nlisten = '127.0.0.1:0'\nfederation_listen = '{federation}'\nmetrics_listen = '127.0.0.1:0'\n",
                data.display()
            );
            for (peer, _, id, address) in known.iter().filter(|(peer, ..)| peer != name) {
                config += &format!("[[peer]]\nname = '{peer}'\naddress = '{address}'\nfingerprint = '{id}'\n");
            }
            let file = folder.join(format!("{name}.toml"));
            fs::write(&file, config)?;
            let mut process = Process::start(name, server(&["--config", &file.to_string_lossy()]))?;
            let listening = process.expect("listening", |_| true)?;
            let address = text(&listening, "client");
            println!("  {name}  {address}  id {}...", &id[..16]);
            servers.push(Server { name, id: id.clone(), address, data: data.clone(), _process: process });
        }
        Ok(Self { programs: programs.to_owned(), folder: folder.to_owned(), servers })
    }

    /// Gives back the processes of those who are online at the end.
    fn tour(&self) -> Result<Vec<Process>> {
        println!("\nalice registers at server-a, bob at server-b, carol at server-c, each with a new RSA-4096 key.");
        let [a, b, c] = &self.servers[..] else { return Err("there are three servers".into()) };
        for (user, server) in [("alice", a), ("bob", b), ("carol", c)] {
            self.register(user, server)?;
        }
        let mut watchers = Vec::new();
        for user in ["alice", "bob", "carol"] {
            let mut watcher = self.client(user, &["watch"])?;
            watcher.expect("synced", |_| true)?;
            watchers.push(watcher);
        }
        println!("Each of them watches the directory from another server. Nobody is online: watching is not.\n");

        let mut alice = self.comes_online("alice", &mut watchers)?;
        let mut bob = self.comes_online("bob", &mut watchers)?;
        let mut carol = self.comes_online("carol", &mut watchers)?;

        println!();
        tell(&mut alice, &mut bob, "bob@server-b", "hello bob, this is encrypted for you alone")?;
        tell(&mut bob, &mut alice, "alice@server-a", "and this for you, alice")?;
        carol.say("/all hello everybody")?;
        for reader in [&mut alice, &mut bob] {
            let post = reader.expect("post", |post| post["text"] == "hello everybody")?;
            println!("  {} to all, read by {}: {}", text(&post, "from"), reader.name, text(&post, "text"));
        }

        println!();
        bob.say("/quit")?;
        let detached = bob.expect("detached", |_| true)?;
        reached("bob@server-b left", "removed", "bob@server-b", &detached, &mut watchers)?;
        let bob = self.comes_online("bob", &mut watchers)?;
        Ok(watchers.into_iter().chain([alice, bob, carol]).collect())
    }

    fn register(&self, user: &str, server: &Server) -> Result<()> {
        let arguments = ["register", user, "--server", &server.address, "--server-id", &server.id, "--no-passphrase"];
        let registered = self.command(user, &arguments).output()?;
        if registered.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&registered.stderr).into())
    }

    fn comes_online(&self, user: &str, watchers: &mut [Process]) -> Result<Process> {
        let mut client = self.client(user, &["chat"])?;
        let attached = client.expect("attached", |_| true)?;
        let label = text(&attached, "user");
        reached(&format!("{label} came online"), "added", &label, &attached, watchers)?;
        client.expect("synced", |_| true)?;
        Ok(client)
    }

    fn client(&self, user: &str, arguments: &[&str]) -> Result<Process> {
        Process::start(user, self.command(user, &[&["--json"], arguments].concat()))
    }

    fn command(&self, user: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("socp"));
        command.arg("--home").arg(self.folder.join("clients")).args(["--profile", user]).args(arguments);
        command
    }

    fn invite_the_reader(&self) {
        let server = &self.servers[0];
        let (programs, home) = (self.programs.display(), self.folder.join("clients"));
        let (home, ca, address) = (home.display(), server.data.join("ca.pem"), &server.address);
        let ca = ca.display();
        println!("\nThe servers stay up, and alice, bob and carol online, until Ctrl-C. In a second terminal:\n");
        println!("  alias socp='{programs}/socp --home {home} --profile dave'");
        println!("  socp register dave --server {address} --server-id {} --no-passphrase", server.id);
        println!("  socp chat\n");
        println!("  grpcurl -cacert {ca} {address} list");
        println!(
            "  grpcurl -cacert {ca} -H \"authorization: Bearer $(socp token)\" -d '{{\"keys\": \"KEY_DETAIL_FINGERPRINT\"}}' \\\n    \
             {address} socp.v1.DirectoryService/ListUsers"
        );
        println!("\ndave is a user of {}; nobody has to be told.", server.name);
    }
}

/// One user writes to another, whose client shows it.
fn tell(from: &mut Process, to: &mut Process, label: &str, words: &str) -> Result<()> {
    from.say(&format!("/tell {label} {words}"))?;
    let message = to.expect("message", |message| message["text"] == words)?;
    println!("  {} to {}: {}", text(&message, "from"), to.name, text(&message, "text"));
    from.expect("sent", |sent| sent["to"] == label)?;
    Ok(())
}

/// Prints how long a change took from the client that asked for it to each watcher's client.
fn reached(what: &str, event: &str, label: &str, cause: &Value, watchers: &mut [Process]) -> Result<()> {
    let mut times = Vec::new();
    for watcher in watchers {
        let seen = watcher.expect(event, |seen| seen["user"] == label)?;
        let nanoseconds = number(&seen, "unix_ns")? - number(cause, "asked_unix_ns")?;
        times.push(format!("{} after {:.1} ms", watcher.name, nanoseconds as f64 / 1e6));
    }
    println!("  {what}: seen by {}", times.join(", "));
    Ok(())
}

fn text(object: &Value, key: &str) -> String {
    object[key].as_str().unwrap_or_default().to_owned()
}

fn number(object: &Value, key: &str) -> Result<i64> {
    object[key].as_i64().ok_or_else(|| format!("there is no `{key}` in {object}").into())
}

/// A program that is driven by lines and answers in JSON objects, one a line. It is ended with its handle.
struct Process {
    name: String,
    child: Child,
    input: ChildStdin,
    output: Receiver<Value>,
}

impl Process {
    fn start(name: &str, mut command: Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().ok_or("a piped standard input")?;
        let lines = BufReader::new(child.stdout.take().ok_or("a piped standard output")?).lines();
        let (sender, output) = channel();
        thread::spawn(move || {
            let objects = lines.map_while(|line| serde_json::from_str(&line.ok()?).ok());
            objects.into_iter().try_for_each(|object: Value| sender.send(object))
        });
        Ok(Self { name: name.to_owned(), child, input, output })
    }

    fn say(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.input, "{line}")?)
    }

    /// Waits for an event that fits, passing over others.
    fn expect(&mut self, event: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        while let Ok(object) = self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if object["event"] == event && fits(&object) {
                return Ok(object);
            }
        }
        Err(format!("`{}` never said `{event}`", self.name).into())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
