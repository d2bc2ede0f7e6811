//! The command line: what can be said, and which configuration it comes to. Does nothing itself.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, CommandFactory as _, Parser, Subcommand, error::ErrorKind};

use crate::config::{Flags, MetricsListen, Registration};

/// The home of its users and a peer of other servers: SOCP over gRPC.
///
/// Without a command it runs the server. The first start makes the data folder with the server's identity, its
/// certificates and its database, and prints how clients and other servers reach it.
#[derive(Debug, Parser)]
#[command(name = "socp-server", version, after_long_help = FILE_HELP)]
pub struct Cli {
    /// What to do; `run` if it is left out.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Where the server is.
    #[command(flatten)]
    pub place: Place,
    /// Flags of `run`.
    #[command(flatten)]
    pub run: RunFlags,
}

/// What every command wants to know.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Configuration file (TOML).
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Data folder [default: socp-server in $XDG_DATA_HOME or ~/.local/share].
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Print data as JSON on standard output, one object per line.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What can be done.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run the server until SIGTERM or Ctrl-C.
    Run(RunFlags),
    /// Print the server id, and the entry for other servers' configurations; makes the identity if there is none.
    Id,
    /// Make an invite, good for one registration. Asks the running server.
    Invite,
    /// List the users registered here. Asks the running server.
    Users,
    /// Back the data folder up to one file, as of one moment; the server may run meanwhile.
    ///
    /// The file holds the database, all keys, and the files that users sent and that are kept still, so it may be large. It has
    /// mode 0600 and is as secret as the data folder. It is read as a restore would read it before it gets its name. The
    /// configuration file is not in it, nor are files that were not yet sent as a whole.
    Backup {
        /// A file that is not there yet.
        file: PathBuf,
    },
    /// Put a backup into a data folder in which nothing is.
    ///
    /// Never run the restored server beside the one that was backed up: they are one server. What was accepted after the
    /// backup was made is lost; devices notice, and read their inboxes anew.
    Restore {
        /// The backup.
        file: PathBuf,
    },
    /// Check the data folder as a whole, while the server is stopped: the file of the database, key statements, inboxes, each
    /// message, and that each file that users sent has its length.
    Check,
    /// Shut a user out, and end all of the user's sessions. Asks the running server.
    Disable {
        /// The bare name.
        name: String,
    },
    /// Let a disabled user in again. Asks the running server.
    Enable {
        /// The bare name.
        name: String,
    },
    /// List the other servers: which are linked, which are reached through whom, how each got in, and what went wrong
    /// last. Asks the running server.
    ///
    /// One line for each, sorted by name. STATE says whether there is a link, since when and who dialled it; or through
    /// which neighbour the server is reached; or that it is not. TAKEN says how it got in: pinned, or by whose word and
    /// until when; or that it is blocked. HEARD is its last sign of life, BATCHES what this server
    /// has of it, and LAG how many batches it told of that have not come yet. USERS are those shown here, REFUSED the
    /// frames that had to be refused on the link. LAST ERROR is why the last link ended or the last dial failed; it may
    /// be long over. Times are UTC.
    Peers,
    /// Tell why this server shows a user as online, offline or unreachable. Asks the running server.
    ///
    /// The first line says why. Then comes what that rests on: by which way the home is reached, how many of its batches
    /// are here, its latest word on the user and who brought it, what removed the user last, and, for a user of this
    /// server, all sessions. At the end stand the latest changes, up to 16, with their causes; the server remembers a
    /// bounded number for all users together, and says how far back that goes. Times are UTC.
    Explain {
        /// `name`, or `name@server` with the server's name or id.
        user: String,
    },
    /// Vouch for another server, so that this one and all that take this one's word take it. Asks the running server.
    ///
    /// The word has an end date; said again it is for as long from then on. Pinned servers are vouched for anyway, unless
    /// the configuration says `introduce = false`. A server vouches for 64 others at most. With `--revoke` it takes its
    /// word back, everywhere; a server that is pinned here stays pinned here.
    #[command(override_usage = "socp-server admit NAME ID [--days N]\n       socp-server admit --revoke ID")]
    Admit {
        /// The server's name, as it introduces itself.
        #[arg(required_unless_present = "revoke")]
        name: Option<String>,
        /// Its id: 64 digits, as `socp-server id` prints it there.
        #[arg(required_unless_present = "revoke")]
        id: Option<String>,
        /// For how many days, 1 to 365.
        #[arg(long, value_name = "N", default_value_t = 30)]
        days: u32,
        /// Take the word back that was given for the server with this id.
        #[arg(long, value_name = "ID", conflicts_with_all = ["name", "id", "days"])]
        revoke: Option<String>,
    },
    /// Block a server, pinned or not: it is no peer, its users are not shown, and its word lets nobody in. Asks the running
    /// server.
    ///
    /// It is for this server only; others do as their operators say. It lasts until it is undone.
    Block {
        /// The server's name here, or its id.
        server: String,
        /// Let it in again.
        #[arg(long)]
        undo: bool,
    },
}

/// Flags over the file; each has a key of the same name there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct RunFlags {
    /// The server's name, as in alice@NAME [default: localhost, while on loopback only].
    #[arg(long)]
    pub name: Option<String>,
    /// Where clients connect, TCP and UDP; port 0 takes a free one [default: 127.0.0.1:7443].
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where other servers connect, UDP; port 0 takes a free one [default: 127.0.0.1:7444].
    #[arg(long, value_name = "ADDR:PORT")]
    pub federation_listen: Option<SocketAddr>,
    /// Where metrics can be read, TCP, or `off`; port 0 takes a free one [default: 127.0.0.1:7480, if it is free].
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics_listen: Option<MetricsListen>,
    /// A DNS name or address by which clients reach the server; may be repeated, the first is advertised.
    #[arg(long = "public-name", value_name = "HOST")]
    pub public_names: Vec<String>,
    /// Who may register [default: open while on loopback only, otherwise invite].
    #[arg(long, value_enum, hide_possible_values = false)]
    pub registration: Option<Registration>,
    /// What is logged, e.g. debug or warn,socp_server=debug [default: info].
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// Check the configuration, print what would be in force, and exit: 0 if it can be used, 2 if not.
    #[arg(long)]
    pub check_config: bool,
}

const FILE_HELP: &str = r#"The configuration file, with defaults where there are some. Each key wants a restart:

    name = "chat.example.org"             # default localhost, while on loopback only
    data = "/var/lib/socp"                # relative paths start at this file's folder
    listen = "127.0.0.1:7443"             # clients, TCP and UDP
    federation_listen = "127.0.0.1:7444"  # other servers, UDP
    metrics_listen = "127.0.0.1:7480"     # Prometheus, TCP; "off"; by default only if the port is free
    public_names = []                     # DNS names and addresses, for the certificate
    web_origins = []                      # pages that may call, e.g. "https://app.example.org"
    registration = "open"                 # open, invite, closed; beyond loopback invite
    introduce = true                      # whoever pins this server takes its peers, too
    log = "info"

    [tls]                                 # your own certificate, instead of a self-made one
    certificate = "/etc/socp/fullchain.pem"
    key = "/etc/socp/key.pem"

    [timing]                              # milliseconds
    attach_grace_ms = 2000                # a broken client's user stays online for so long
    link_grace_ms = 500                   # a broken link's users stay shown for so long
    keep_alive_ms = 500                   # between signs of life on each link
    link_dead_ms = 2500                   # without one for so long, a link is dead
    goodbye_hold_ms = 0                   # after a stop, others show this server's users for so long
    redial_ms_max = 1000                  # longest delay between dials of a peer

    [inbox]                               # of each user
    messages_max = 10000                  # beyond it what all devices have goes; one sender fills an eighth, unread
    bytes_max = 67108864                  # likewise
    days = 30                             # then a message goes

    [files]                               # encrypted, of this server's users
    file_bytes_max = 2147483648           # of one file
    user_bytes_max = 4294967296           # of all files of one user
    bytes_max = 34359738368               # of all
    days = 7                              # then a file goes

    [[peer]]                              # one for each server to link with, on both sides
    name = "chat.example.net"
    address = "chat.example.net:7444"     # left out: it dials, or is reached through others
    fingerprint = "64 digits: the server id, as `socp-server id` prints it there"

Exit codes: 0 done, 1 refused by the running server, 2 failed."#;

impl Cli {
    /// Reads the command line; prints help, version or a mistake, and exits, as clap does.
    pub fn read() -> Self {
        Self::parse().checked().unwrap_or_else(|error| error.exit())
    }

    /// Moves flags that stand before `run` behind it, and refuses them before any other command.
    fn checked(mut self) -> Result<Self, clap::Error> {
        let misplaced = |reason: &str| Err(Self::command().error(ErrorKind::ArgumentConflict, reason));
        match &self.command {
            None => self.command = Some(Command::Run(self.run.clone())),
            Some(_) if self.run == RunFlags::default() => {}
            Some(Command::Run(after)) if *after == RunFlags::default() => {
                self.command = Some(Command::Run(self.run.clone()))
            }
            Some(Command::Run(_)) => return misplaced("put all flags behind `run`, or all before it"),
            Some(_) => return misplaced("flags of `run` do not go with another command"),
        }
        Ok(self)
    }
}

impl RunFlags {
    /// The flags as the configuration takes them.
    pub fn over_file(self, place: &Place) -> Flags {
        Flags {
            name: self.name,
            data: place.data.clone(),
            listen: self.listen,
            federation_listen: self.federation_listen,
            metrics_listen: self.metrics_listen,
            public_names: self.public_names,
            registration: self.registration,
            log: self.log,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn read(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' ')).and_then(Cli::checked)
    }

    fn run_flags(line: &str) -> RunFlags {
        match read(line).unwrap().command {
            Some(Command::Run(flags)) => flags,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_what_is_done_without_a_command() {
        let named = run_flags("socp-server --name a --data d");
        assert_eq!(named.name.as_deref(), Some("a"));
        assert_eq!(run_flags("socp-server run --name a"), named);
        assert_eq!(run_flags("socp-server --name a run"), named);
    }

    #[test]
    fn the_place_may_stand_on_either_side_of_a_command() {
        for line in ["socp-server users --data d --json", "socp-server --data d --json users"] {
            let cli = read(line).unwrap();
            assert_eq!(cli.place.data.as_deref(), Some(Path::new("d")), "{line}");
            assert!(cli.place.json && matches!(cli.command, Some(Command::Users)), "{line}");
        }
    }

    #[test]
    fn an_admission_names_a_server_or_takes_one_back_and_not_both() {
        let days = |line: &str| match read(line).unwrap().command {
            Some(Command::Admit { name: Some(_), id: Some(_), days, revoke: None }) => days,
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(days("socp-server admit server-c 00"), 30);
        assert_eq!(days("socp-server admit server-c 00 --days 7"), 7);
        let revoked = read("socp-server admit --revoke 00").unwrap().command;
        assert!(matches!(revoked, Some(Command::Admit { revoke: Some(_), name: None, .. })), "{revoked:?}");
        for bad in ["admit", "admit server-c", "admit server-c 00 --revoke 00", "admit --revoke 00 --days 7", "block"] {
            read(&format!("socp-server {bad}")).unwrap_err();
        }
    }

    #[test]
    fn flags_of_run_do_not_go_with_another_command() {
        read("socp-server --name a users").unwrap_err();
        read("socp-server users --name a").unwrap_err();
        read("socp-server --name a run --log debug").unwrap_err();
    }
}
