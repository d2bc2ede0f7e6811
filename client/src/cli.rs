//! The command line: what can be said, and its help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{bench::cli::Bench, download::FILE_BYTES_MAX, event, transport::Choice};

/// Messages end to end encrypted, and a live directory of everybody on every server.
///
/// A profile says who you are at which server. `socp register` makes one; the server prints the line to paste:
///
///   socp register alice --server 127.0.0.1:7443 --server-id 64HEX [--invite CODE]
///
/// Data goes to standard output, everything else to standard error. Exit codes: 0 done, 1 refused, 2 failed.
#[derive(Debug, Parser)]
#[command(name = "socp", version, max_term_width = 120, verbatim_doc_comment)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// The profile to use, in place of the default one.
    #[arg(long, global = true, value_name = "NAME", env = "SOCP_PROFILE")]
    pub profile: Option<String>,
    /// The folder of all profiles; `~/.config/socp` if not said.
    #[arg(long, global = true, value_name = "DIR", env = "SOCP_HOME")]
    pub home: Option<PathBuf>,
    /// Reads the key's passphrase from the first line of a file; else `SOCP_PASSPHRASE`, else the terminal.
    #[arg(long, global = true, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Which transports to try; `auto` tries both and remembers the faster.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub transport: Choice,
    /// Prints one JSON object a line.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Registers a name at a server and makes a profile for it.
    Register(Register),
    /// Moves to another server for good, under the same key, and tells everybody.
    ///
    /// Registers the profile's key at the new server, makes a profile for it with the same key and pins, and then has the old
    /// server say where you are, signed by your key. The old name is nobody's from then on. Whatever interrupts it, the same
    /// line again goes on where it was.
    Move(Move),
    /// Ends this profile's session, or another of the same user's.
    Logout(Logout),
    /// Lists the user's own sessions.
    Sessions,
    /// Goes online and talks: shows who comes and goes, sends and receives.
    #[command(after_long_help = event::HELP)]
    Chat(Chat),
    /// Lists who is online.
    List(Filter),
    /// Shows who comes and goes, without going online.
    #[command(after_long_help = event::HELP)]
    Watch(Filter),
    /// Sends an encrypted message to one user.
    Tell(Tell),
    /// Posts an encrypted message to everybody who is online.
    All(All),
    /// Shows messages that were received before, without going online.
    ///
    /// They are read from the inbox at the server, which keeps them for a time (30 days by default), and each is verified
    /// against the sender's pinned key. What you sent is not among them: it is encrypted to its recipient alone, and kept
    /// nowhere. Nothing is marked as read; `socp chat` does that.
    #[command(after_long_help = event::HELP)]
    History(History),
    /// Sends a file, encrypted, to one user.
    ///
    /// Its bytes go to your own server, which keeps them for some days; what it is called and its key go to the user alone, in a
    /// message. A broken connection is made again, and the sending goes on where it was.
    #[command(name = "send-file")]
    SendFile(SendFile),
    /// Fetches a file that was sent to you, checks it and saves it.
    ///
    /// `socp chat` shows the id. Nothing is overwritten: where the name is taken, a number is put behind it.
    #[command(name = "receive-file")]
    ReceiveFile(ReceiveFile),
    /// Prints a good session token, and nothing else; it is secret.
    ///
    /// For other programs: `grpcurl -H "authorization: Bearer $(socp token)" ...`
    #[command(verbatim_doc_comment)]
    Token,
    /// Shows the fingerprint of the own key, or of another user's, to be compared over another way.
    Fingerprint(Fingerprint),
    /// Shows the safety number of you and another user, and marks that user as verified if theirs is the same.
    ///
    /// Both of you compute it from both your names, servers and keys. Compare the 60 digits over another way: side by side, or
    /// by telephone. If they agree, nobody is between you. On a terminal you are asked; the code is the same digits as a QR code.
    /// A later change of the user's key drops the mark, and nothing is sent to the new key until you compare again.
    #[command(verbatim_doc_comment)]
    Verify(Verify),
    /// Renews the key: makes a new one, which the old one vouches for, and puts it in force.
    ///
    /// Those who know the old key follow to the new one by themselves; those who verified you have to compare again. Sessions go
    /// on: if the old key may be somebody else's too, look at `socp sessions`. A chat that runs ends, and starts with the new key.
    /// Other devices want the profile anew (`socp export`, `socp import`). The old key stays in the profile, for messages that
    /// were sealed to it. Whatever interrupts it, the same line again goes on.
    RotateKey,
    /// Writes the profile into one file, for another device of yours.
    ///
    /// In it are the key, encrypted as it is kept, and, for nobody else to read or alter, the server with its pin, and whose
    /// keys are known and verified. Whoever has the file and the passphrase is you. A key that is kept without a passphrase is
    /// given one for the file.
    Export(Export),
    /// Makes a profile of a file that another device exported; asks no server.
    ///
    /// The device gets an id, a session and a place in the inbox of its own: it is shown all that is in the inbox still, and
    /// from then on each device receives everything.
    Import(Import),
    /// Shows the profile: user, server and pinned server id.
    Whoami,
    /// Measures running servers: how fast, how many, and who was the bottleneck.
    ///
    /// Drives them as users would, by users of its own called `bench-...`, all with one key that is made once and kept in the
    /// cache folder. The servers must let anybody register. No profile is used.
    Bench(Bench),
}

/// `socp register`.
#[derive(Args, Debug)]
pub struct Register {
    /// The name to register: 1 to 64 of `a-z 0-9 . _ -`. Also the profile's name, unless `--profile` says another.
    pub name: String,
    /// Where.
    #[command(flatten)]
    pub at: At,
    /// Brings an existing RSA-4096 key (PKCS#8 PEM, encrypted or not) in place of a new one.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Keeps the key unencrypted: whoever reads the file is you.
    #[arg(long, conflicts_with = "passphrase_file")]
    pub no_passphrase: bool,
}

/// The server to register at.
#[derive(Args, Debug)]
pub struct At {
    /// Where the server is.
    #[arg(long, value_name = "HOST:PORT")]
    pub server: String,
    /// The server's id, 64 hexadecimal digits: the pin. Whatever certificate that identity signed is accepted.
    #[arg(long, value_name = "HEX", required_unless_present = "ca")]
    pub server_id: Option<String>,
    /// Checks the server's certificate by this CA (PEM) too; without `--server-id` the id is then learned.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The invite, where the server wants one.
    #[arg(long, value_name = "CODE")]
    pub invite: Option<String>,
    /// Free text shown beside the name.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub display_name: String,
}

/// `socp move`.
#[derive(Args, Debug)]
pub struct Move {
    /// The name to register at the new server: 1 to 64 of `a-z 0-9 . _ -`.
    pub name: String,
    /// Where.
    #[command(flatten)]
    pub at: At,
    /// The name of the new profile; `NAME-SERVER`, after what the new server calls itself, if not said.
    #[arg(long, value_name = "PROFILE")]
    pub into: Option<String>,
}

/// `socp logout`.
#[derive(Args, Debug)]
pub struct Logout {
    /// The session to end, as `socp sessions` shows it; this profile's own if not said.
    #[arg(long, value_name = "ID")]
    pub session: Option<String>,
}

/// `socp chat`.
#[derive(Args, Debug)]
pub struct Chat {
    /// Free text shown beside the name while online.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub status: String,
    /// Saves every file that comes into this folder. Without it files are only told of.
    #[arg(long, value_name = "DIR")]
    pub files: Option<PathBuf>,
    /// Of files larger than this, in bytes, `--files` saves none.
    #[arg(long, value_name = "BYTES", default_value_t = FILE_BYTES_MAX)]
    pub max_bytes: u64,
    /// What senders who ask are told of their messages, and whether you ask for the like: nothing, that they were delivered, or
    /// that they were read, which is when this chat shows them. `read` at a terminal, else `none`.
    #[arg(long, value_name = "WHAT")]
    pub receipts: Option<Receipts>,
}

/// What is told of messages that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Receipts {
    /// Nothing.
    None,
    /// That they were delivered.
    Delivered,
    /// That they were read.
    Read,
}

/// `socp list` and `socp watch`.
#[derive(Args, Clone, Debug)]
pub struct Filter {
    /// Only users of these servers, by name or id.
    #[arg(long = "server", value_name = "SERVER")]
    pub servers: Vec<String>,
    /// Only these users, bare or `name@server`.
    #[arg(long = "user", value_name = "USER")]
    pub users: Vec<String>,
    /// Only names that begin so.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub prefix: String,
}

/// `socp history`.
#[derive(Args, Debug)]
pub struct History {
    /// Only messages of this user: `name@server`, or a bare name where it is unambiguous.
    pub user: Option<String>,
    /// How many, the latest; 20 if not said, or with `--unread` all.
    #[arg(short = 'n', long = "last", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub messages: Option<u16>,
    /// Only messages that this device has not shown in a chat.
    #[arg(long)]
    pub unread: bool,
}

/// `socp tell`.
#[derive(Args, Debug)]
pub struct Tell {
    /// To whom: `name@server`, or a bare name where it is unambiguous.
    pub user: String,
    /// The text; several words are joined by spaces.
    #[arg(required = true, num_args = 1..)]
    pub text: Vec<String>,
    /// Asks the recipient's devices to say that they have it, and that it was read; a chat of yours tells of it.
    #[arg(long)]
    pub receipts: bool,
}

/// `socp all`.
#[derive(Args, Debug)]
pub struct All {
    /// The text; several words are joined by spaces.
    #[arg(required = true, num_args = 1..)]
    pub text: Vec<String>,
}

/// `socp send-file`.
#[derive(Args, Debug)]
pub struct SendFile {
    /// To whom: `name@server`, or a bare name where it is unambiguous.
    pub user: String,
    /// The file.
    pub path: PathBuf,
}

/// `socp receive-file`.
#[derive(Args, Debug)]
pub struct ReceiveFile {
    /// Which: the id of the message that it came with.
    pub id: String,
    /// The folder to save it in; the working folder if not said.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub into: PathBuf,
    /// A file larger than this, in bytes, is refused.
    #[arg(long, value_name = "BYTES", default_value_t = FILE_BYTES_MAX)]
    pub max_bytes: u64,
}

/// `socp fingerprint`.
#[derive(Args, Debug)]
pub struct Fingerprint {
    /// Another user; the own key if not said.
    pub user: Option<String>,
}

/// `socp verify`.
#[derive(Args, Debug)]
pub struct Verify {
    /// The other user: `name@server`, or a bare name where it is unambiguous.
    pub user: String,
    /// Marks the user as verified: you compared the number.
    #[arg(long)]
    pub confirm: bool,
    /// Compares with the number that the other side shows, in whatever groups, and marks the user as verified if it is the same.
    #[arg(long, value_name = "DIGITS", conflicts_with_all = ["confirm", "undo"])]
    pub number: Option<String>,
    /// Takes the mark back.
    #[arg(long, conflicts_with = "confirm")]
    pub undo: bool,
}

/// `socp export`.
#[derive(Args, Debug)]
pub struct Export {
    /// The file to write; it must not be there.
    pub file: PathBuf,
}

/// `socp import`.
#[derive(Args, Debug)]
pub struct Import {
    /// The file that `socp export` wrote. The profile gets the user's name, unless `--profile` says another.
    pub file: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_takes_the_line_that_servers_print() {
        Cli::command().debug_assert();
        let line = format!("socp register alice --server 127.0.0.1:7443 --server-id {} --invite CODE", "0".repeat(64));
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        assert!(matches!(cli.command, Command::Register(Register { name, .. }) if name == "alice"));
        assert!(Cli::try_parse_from(["socp", "register", "alice", "--server", "a:1"]).is_err(), "neither id nor CA");
        let line = line.replace("register", "move");
        assert!(
            matches!(Cli::try_parse_from(line.split(' ')).unwrap().command, Command::Move(_)),
            "the same line moves"
        );
    }
}
