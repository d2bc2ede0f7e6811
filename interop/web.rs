//! A page in a real browser: calls and watches from an origin that the operator listed, and is kept out from another.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD},
};
use prost::Message as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use socp::{
    id::hex,
    v1::{
        CertificateStatement, GetServerInfoRequest, GetServerInfoResponse, KeyDetail, ListUsersRequest,
        WatchDirectoryRequest, WatchDirectoryResponse, account_service_client::AccountServiceClient,
        directory_change::Change,
    },
};
use tempfile::TempDir;
use tonic::{Code, Status};

use crate::{
    harness::{
        caller::Caller,
        mesh::Site,
        server::Server,
        soon,
        wire::{Wire, reason},
    },
    tool,
};

/// A browser takes long to start on a busy machine.
const BROWSER_TIME_MAX: Duration = Duration::from_secs(60);

/// Something that the page told: what, and the bytes that belong to it.
type Told = (String, Vec<u8>);

/// Serves the page, what it asks for, and takes what it tells.
struct PageServer {
    address: SocketAddr,
    told: Receiver<Told>,
}

impl PageServer {
    fn start(listener: TcpListener, ask: Value) -> Self {
        let address = listener.local_addr().expect("it listens");
        let (sender, told) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (ask, sender) = (ask.clone(), sender.clone());
                thread::spawn(move || serve(stream, &ask, &sender));
            }
        });
        Self { address, told }
    }

    #[track_caller]
    fn next(&self) -> Told {
        self.told.recv_timeout(BROWSER_TIME_MAX).expect("the page tells what came of its calls")
    }

    /// The next message of the call that goes on.
    #[track_caller]
    fn message<M: prost::Message + Default>(&self) -> M {
        let (what, bytes) = self.next();
        assert_eq!(what, "message", "{}", String::from_utf8_lossy(&bytes));
        M::decode(&bytes[..]).expect("it is encoded as the contract says")
    }

    #[track_caller]
    fn expect(&self, what: &str) -> String {
        let (told, bytes) = self.next();
        let bytes = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(told, what, "{bytes}");
        bytes
    }
}

/// One request of the page to its own server: HTTP/1.1, one for each connection.
fn serve(stream: TcpStream, ask: &Value, told: &Sender<Told>) {
    let mut reader = BufReader::new(&stream);
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line).expect("a browser sends text");
    let target = line.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
    loop {
        line.clear();
        reader.read_line(&mut line).expect("a browser sends text");
        match line.trim().to_ascii_lowercase().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().expect("a length"),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the body comes");
    let page = |name: &str| fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/web").join(name));
    let (kind, answer) = match target.split_once('?') {
        Some(("told", what)) => {
            // Fails only when the test is over.
            let _ = told.send((what.to_owned(), body));
            ("text/plain", Vec::new())
        }
        _ if target == "ask" => ("application/json", ask.to_string().into_bytes()),
        _ if target.ends_with(".js") => ("text/javascript", page(&target).expect("the script is there")),
        _ => ("text/html", page("page.html").expect("the page is there")),
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        answer.len()
    );
    let _ = (&stream).write_all(&[head.as_bytes(), &answer].concat());
}

/// A browser without a window that shows one page. Ends with the value.
struct Browser {
    child: Child,
    _profile: TempDir,
}

impl Browser {
    /// Opens a page; the browser takes this server's certificate, and no other that nobody vouches for.
    ///
    /// `certificate_key_sha256` comes from the server's own signed statement, so this is the check that a page cannot
    /// make by itself.
    fn open(page: SocketAddr, certificate_key_sha256: &[u8]) -> Self {
        let profile = tempfile::tempdir().expect("a temporary folder can be made");
        let child = Command::new(tool::path("SOCP_CHROMIUM"))
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("--ignore-certificate-errors-spki-list={}", BASE64_STANDARD.encode(certificate_key_sha256)))
            .arg(format!("http://{page}/"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the browser starts");
        Self { child, _profile: profile }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends its own helpers when asked to.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// A server that lists the origin of a page server, and that page server.
struct Bench {
    site: Site,
    server: Server,
    listener: TcpListener,
    certificate_key_sha256: Vec<u8>,
}

impl Bench {
    /// `origin` says which origin the server lists, given the page's own.
    fn new(origin: impl Fn(SocketAddr) -> String) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a port");
        let site = Site::new("server-a");
        let listed = origin(listener.local_addr().expect("it listens"));
        site.configure(&format!("web_origins = [\"{listed}\"]"));
        let server = site.start();
        let mut accounts = AccountServiceClient::new(soon(Wire::Tcp.connect(&server)));
        let info = soon(accounts.get_server_info(GetServerInfoRequest {})).expect("anybody may ask").into_inner();
        let statement = CertificateStatement::decode(info.certificate_statement).expect("it is encoded");
        Self { site, server, listener, certificate_key_sha256: statement.certificate_key_sha256.to_vec() }
    }

    /// Opens the page, which makes these calls.
    fn open(self, calls: Value) -> Opened {
        let ask = json!({ "server": format!("https://{}", self.server.client), "calls": calls });
        let page = PageServer::start(self.listener, ask);
        let browser = Browser::open(page.address, &self.certificate_key_sha256);
        Opened { page, server: self.server, _browser: browser, _site: self.site }
    }
}

/// A page that is open.
struct Opened {
    page: PageServer,
    server: Server,
    _browser: Browser,
    _site: Site,
}

fn asked(method: &str, message: &impl prost::Message, token: &str, messages: usize) -> Value {
    json!({ "method": method, "message": hex(&message.encode_to_vec()), "token": token, "messages": messages })
}

#[test]
fn a_page_of_a_listed_origin_calls_and_watches_and_reads_why_it_was_refused() {
    let bench = Bench::new(|page| format!("http://{page}"));
    let bob = Caller::new("bob", &bench.server, Wire::Tcp);
    let watch = WatchDirectoryRequest { keys: KeyDetail::Fingerprint.into(), ..WatchDirectoryRequest::default() };
    let Opened { server, page, _browser, _site } = bench.open(json!([
        asked("socp.v1.AccountService/GetServerInfo", &GetServerInfoRequest {}, "", 0),
        asked("socp.v1.DirectoryService/ListUsers", &ListUsersRequest::default(), "no such token", 0),
        // The present state of nobody is its end mark alone; then somebody comes.
        asked("socp.v1.DirectoryService/WatchDirectory", &watch, &bob.token, 2),
    ]));

    let info: GetServerInfoResponse = page.message();
    assert_eq!(info.server_id, server.id.to_string());
    page.expect("end");

    let refusal = page.expect("refused");
    let (code, details) = refusal.split_once(' ').expect("a code and its details");
    let code: i32 = code.parse().expect("a code is a number");
    let details = BASE64_STANDARD_NO_PAD.decode(details.trim_end_matches('=')).expect("base64");
    let refusal = Status::with_details(code.into(), "", details.into());
    assert_eq!(refusal.code(), Code::Unauthenticated);
    assert_eq!(reason::<()>(Err(refusal)), "TOKEN_INVALID");

    let present: WatchDirectoryResponse = page.message();
    assert_eq!(present.end_mark.expect("nobody is online").entries, 0);
    let alice = Caller::new("alice", &server, Wire::Tcp);
    let _attached = alice.attach();
    let change: WatchDirectoryResponse = page.message();
    let Some(Change::Added(entry)) = &change.changes[0].change else { panic!("{change:?}") };
    assert_eq!(entry.user, "alice@server-a");
    page.expect("end");
    page.expect("done");
}

#[test]
fn a_page_of_another_origin_reaches_nothing() {
    let bench = Bench::new(|_| "https://app.example.org".into());
    let Opened { page, server: _server, _browser, _site } =
        bench.open(json!([asked("socp.v1.AccountService/GetServerInfo", &GetServerInfoRequest {}, "", 0)]));
    // The browser asked first, and the server allowed nothing.
    page.expect("failed");
    page.expect("done");
}
