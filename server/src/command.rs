//! One function for each command of the command line.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    time::Duration,
};

use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::EnvFilter;

use crate::{
    backup::{self, Found},
    banner,
    cli::{Cli, Command, Place, RunFlags},
    config::{Config, ConfigError, Flags},
    data_folder::{DataFolder, Layout},
    error::Error,
    identity::ServerIdentity,
    operator::{self, Ask},
    run,
};

/// What the process may take to end once the server has stopped.
const END_TIME_MAX: Duration = Duration::from_millis(200);

/// Does what the command line says.
pub fn main(cli: Cli) -> Result<(), Error> {
    let Cli { command, place, run } = cli;
    match command.unwrap_or(Command::Run(run)) {
        Command::Run(flags) if flags.check_config => check_config(flags, &place),
        Command::Run(flags) => serve(flags, &place),
        Command::Id => id(&place),
        Command::Backup { file } => {
            let found = backup::make(&layout(&place)?, &file)?;
            tell(&found, &place, &format!("backed up to `{}`", file.display()))
        }
        Command::Restore { file } => {
            let layout = layout(&place)?;
            let folder = layout.folder().display().to_string();
            tell(&backup::restore(layout, &file)?, &place, &format!("restored into `{folder}`"))
        }
        Command::Check => tell(&backup::check(layout(&place)?)?, &place, "nothing is wrong"),
        Command::Invite => ask(Ask::Invite, &place),
        Command::Users => ask(Ask::Users, &place),
        Command::Peers => ask(Ask::Peers, &place),
        Command::Explain { user } => ask(Ask::Explain { user }, &place),
        Command::Admit { revoke: Some(server_id), .. } => ask(Ask::Revoke { server_id }, &place),
        Command::Admit { name, id, days, revoke: None } => {
            let (name, server_id) = (name.unwrap_or_default(), id.unwrap_or_default());
            ask(Ask::Admit { name, server_id, days }, &place)
        }
        Command::Block { server, undo } => ask(Ask::SetBlocked { server, blocked: !undo }, &place),
        Command::Disable { name } => ask(Ask::SetDisabled { name, disabled: true }, &place),
        Command::Enable { name } => ask(Ask::SetDisabled { name, disabled: false }, &place),
    }
}

fn config(flags: RunFlags, place: &Place) -> Result<Config, ConfigError> {
    Config::load(place.config.as_deref(), flags.over_file(place))
}

fn serve(flags: RunFlags, place: &Place) -> Result<(), Error> {
    let config = config(flags, place)?;
    let filter = EnvFilter::new(&config.log);
    let coloured = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(coloured).with_writer(io::stderr).init();
    let (clients, links) = (runtime()?, links_runtime()?);
    let served = clients.block_on(run::run(config, place.json, links.handle().clone()));
    clients.shutdown_timeout(END_TIME_MAX);
    links.shutdown_timeout(END_TIME_MAX);
    served
}

fn check_config(flags: RunFlags, place: &Place) -> Result<(), Error> {
    let config = config(flags, place)?;
    print(&if place.json { config.to_json().to_string() + "\n" } else { config.to_string() })
}

/// Prints the id of a data folder's identity. Needs the folder for itself only to make one.
fn id(place: &Place) -> Result<(), Error> {
    let flags = Flags { data: place.data.clone(), ..Flags::default() };
    let config = Config::load(place.config.as_deref(), flags)?;
    let layout = Layout::new(&config.data);
    let identity = match ServerIdentity::load(&layout)? {
        Some(identity) => identity,
        None => ServerIdentity::load_or_make(DataFolder::open(layout)?.layout())?,
    };
    let (id, name, address) =
        (identity.server_id(), &config.settings.name, config.federation_reached(config.federation_listen));
    if place.json {
        let line = json!({ "server_id": id.to_string(), "name": name.as_str(), "address": address });
        print(&format!("{line}\n"))
    } else {
        print(&format!("{id}\n\n{}", banner::peer_entry(name, Some(&address), id)))
    }
}

fn layout(place: &Place) -> Result<Layout, Error> {
    Ok(Layout::new(Config::data_folder(place.config.as_deref(), place.data.clone())?))
}

fn tell(found: &Found, place: &Place, what: &str) -> Result<(), Error> {
    print(&if place.json { format!("{}\n", found.json()) } else { format!("{what}: {}\n", found.text()) })
}

fn ask(ask: Ask, place: &Place) -> Result<(), Error> {
    let socket = layout(place)?.operator_socket();
    runtime()?.block_on(asked(&socket, ask, place.json))
}

async fn asked(socket: &Path, ask: Ask, json: bool) -> Result<(), Error> {
    Ok(operator::ask(socket, ask, json, &mut io::stdout().lock()).await?)
}

fn runtime() -> Result<Runtime, Error> {
    Runtime::new().map_err(|source| Error::System { what: "start threads", source })
}

/// Links to other servers have a thread of their own: thousands of watchers that are told at once must not hold up the word that
/// this server lives.
fn links_runtime() -> Result<Runtime, Error> {
    let mut builder = Builder::new_multi_thread();
    let built = builder.worker_threads(1).thread_name("links").enable_all().build();
    built.map_err(|source| Error::System { what: "start threads", source })
}

fn print(text: &str) -> Result<(), Error> {
    io::stdout().write_all(text.as_bytes()).map_err(|source| Error::System { what: "print", source })
}
