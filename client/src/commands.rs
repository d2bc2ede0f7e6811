//! The commands, one file each.

mod all;
mod chat;
mod export;
mod file;
mod fingerprint;
mod history;
mod import;
mod list;
mod logout;
mod moves;
mod register;
mod rotation;
mod sessions;
mod tell;
mod token;
mod verify;
mod watch;
mod whoami;

use std::{
    io::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use socp::v1::DirectoryFilter;

use crate::{
    bench,
    cli::{Cli, Command, Filter, Global},
    failure::Failure,
    passphrase,
    profile::{Home, Profile},
    session::Account,
};

/// Carries out what the command line says.
pub async fn run(cli: Cli) -> Result<(), Failure> {
    let home = Home::locate(cli.global.home.clone())?;
    let context = Context { home, global: cli.global, accounts: Mutex::default() };
    let outcome = carry_out(&context, cli.command).await;
    let accounts = std::mem::take(&mut *context.accounts.lock().unwrap_or_else(PoisonError::into_inner));
    for account in accounts {
        account.leave().await;
    }
    outcome
}

async fn carry_out(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Register(command) => register::run(context, command).await,
        Command::Move(command) => moves::run(context, command).await,
        Command::Logout(command) => logout::run(context, command).await,
        Command::Sessions => sessions::run(context).await,
        Command::Chat(command) => chat::run(context, command).await,
        Command::List(command) => list::run(context, command).await,
        Command::Watch(command) => watch::run(context, command).await,
        Command::Tell(command) => tell::run(context, command).await,
        Command::All(command) => all::run(context, command).await,
        Command::History(command) => history::run(context, command).await,
        Command::SendFile(command) => file::send(context, command).await,
        Command::ReceiveFile(command) => file::receive(context, command).await,
        Command::Token => token::run(context).await,
        Command::Fingerprint(command) => fingerprint::run(context, command).await,
        Command::Verify(command) => verify::run(context, command).await,
        Command::Export(command) => export::run(context, command).await,
        Command::Import(command) => import::run(context, command).await,
        Command::RotateKey => rotation::run(context).await,
        Command::Whoami => whoami::run(context),
        Command::Bench(command) => bench::run(&command, context.global.json).await,
    }
}

/// What every command gets.
struct Context {
    home: Home,
    global: Global,
    /// The accounts in use, whose connections are left in the end.
    accounts: Mutex<Vec<Arc<Account>>>,
}

impl Context {
    fn profile(&self) -> Result<Profile, Failure> {
        self.home.open(self.global.profile.as_deref())
    }

    fn passphrase(&self) -> passphrase::Source {
        passphrase::Source::choose(self.global.passphrase_file.clone())
    }

    fn account(&self, new_session: bool) -> Result<Arc<Account>, Failure> {
        self.account_of(self.profile()?, self.passphrase(), new_session)
    }

    fn account_of(
        &self,
        profile: Profile,
        source: passphrase::Source,
        new_session: bool,
    ) -> Result<Arc<Account>, Failure> {
        let account = Account::open(profile, self.global.transport, source, new_session)?;
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner).push(account.clone());
        Ok(account)
    }
}

impl Filter {
    fn to_wire(&self) -> DirectoryFilter {
        DirectoryFilter { servers: self.servers.clone(), users: self.users.clone(), name_prefix: self.prefix.clone() }
    }
}

/// Prints a line of data: JSON where asked, else text.
fn print(json: bool, value: &serde_json::Value, text: &str) {
    let line = if json { value.to_string() } else { text.to_owned() };
    print_line(&line);
}

/// Prints a line on standard output; whoever closed that wants no more of it.
fn print_line(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
