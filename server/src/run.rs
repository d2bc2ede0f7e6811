//! The server from start to stop: opens what it owns, binds its sockets, starts the node's driver, serves, and drains.
//!
//! Nothing is announced before everything stands: the sockets are bound first, the epoch is on disk before the node is
//! made, and the banner comes last.

use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::FutureExt as _;
use rustix::process::{Resource, getrlimit, setrlimit};
use socp::{
    id::StartId,
    identity::Identity as _,
    input::Request,
    node::{Node, Start, next_epoch},
    output::Record,
    v1::RegistrationPolicy,
};
use socp_quic::ClientEndpoint;
use tokio::{
    net::UnixListener,
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
    time::timeout,
};

use crate::{
    banner::Banner,
    certificate::ClientCertificate,
    config::Config,
    data_folder::{DataFolder, Layout},
    driver::{self, Handle, Shell},
    error::Error,
    federation::{self, Dialler},
    files::Files,
    health::Health,
    hub::Hub,
    identity::{ServerIdentity, UdpListener},
    listen::{CONNECTIONS_MAX, ClientListener, DRAIN_TIME_MAX, quic_error},
    metrics::{Metrics, MetricsListener, Place},
    operator, random,
    rpc::{self, ServerFacts},
    storage::{Loaded, Storage as _},
    store::Store,
    tls::{self, Admitted},
};

/// How long the listeners may take to stop: what they give to calls in progress, and a second to take leave.
const STOP_TIME_MAX: Duration = DRAIN_TIME_MAX.saturating_add(Duration::from_secs(1));

/// How long calls may take to be refused once the server has failed.
const ANSWERS_TIME_MAX: Duration = Duration::from_secs(1);

/// Runs a server until a signal ends it. Prints the banner, or with `json` one line for programs, once it listens. Links to other
/// servers run on `links`, and all else where this does.
pub async fn run(config: Config, json: bool, links: runtime::Handle) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    raise_descriptor_limit();
    // Absolute, since the paths in it are printed to be pasted elsewhere.
    let data = path::absolute(&config.data).unwrap_or_else(|_| config.data.clone());
    let folder = DataFolder::open(Layout::new(data))?;
    let layout = folder.layout();
    let mut store = Store::open(&layout.database())?;
    let loaded = store.load()?;
    let (files, kept_files) = Files::open(&layout.files())?;
    let (identity, first_start) = identity(layout, &loaded)?;
    config.check_identity(identity.server_id())?;
    let certificate = match &config.tls {
        Some(files) => ClientCertificate::of_operator(files, &identity)?,
        None => ClientCertificate::self_made(layout, &config.certificate_names(), &identity, SystemTime::now())?,
    };
    let admitted = Admitted::default();
    let sockets = Sockets::bind(&config, layout, &identity, &certificate, &admitted, &links).await?;
    let address = Addresses {
        clients: sockets.clients.address(),
        federation: sockets.federation.local_addr(),
        metrics: sockets.metrics.place(),
    };
    let epoch = next_epoch(loaded.epoch, unix_ms());
    store.commit(&[Record::Epoch(epoch)])?;

    let no_invite_yet = loaded.accounts.is_empty() && loaded.invites.is_empty();
    let start_id = StartId::from_bytes(&random::bytes::<16>()).expect("a start id has 16 bytes");
    let start = Start {
        identity: Box::new(identity.clone()),
        epoch,
        start_id,
        seed: u64::from_ne_bytes(random::bytes()),
        accounts: loaded.accounts,
        invites: loaded.invites,
        trust: loaded.trust,
        mail: loaded.mail,
    };
    let hub = Hub::new(start_id);
    let shell = Shell {
        pages: store.pages()?,
        storage: Box::new(store),
        files: files.clone(),
        hub: hub.clone(),
        dialler: Dialler::new(
            sockets.dialling,
            tls::federation_dialler(&identity, admitted.clone()),
            addresses(&config),
            links.clone(),
        ),
        admitted,
    };
    let node = Node::new(config.settings.clone(), start).with_files(kept_files);
    let (handle, running) =
        driver::start(node, shell).map_err(|source| Error::System { what: "start the driver", source })?;

    let health = Health::new().await;
    let facts = Arc::new(facts(&config, &identity, &certificate));
    let (connections, requests) = (sockets.clients.connections(), sockets.clients.requests());
    let metrics = Metrics::new(handle.clone(), hub.clone(), connections, requests);
    let client_routes = rpc::routes(handle.clone(), hub.clone(), files, facts);
    let client_routes = health.add_to(crate::reflection::add_to(client_routes));
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = stopped.map(drop).shared();
    let serving = tokio::spawn({
        let (handle, stopped, origins) = (handle.clone(), stopped.clone(), config.web_origins.clone());
        let federation = sockets.federation.serve(federation::routes(handle.clone()), stopped.clone());
        let federation = links.spawn(federation);
        async move {
            let (.., federation) = tokio::join!(
                sockets.clients.serve(client_routes, &origins, stopped.clone()),
                operator::serve(sockets.operator, rpc::operator_routes(handle), stopped.clone()),
                sockets.metrics.serve(move || metrics.clone().text(), stopped),
                federation,
            );
            if let Err(error) = federation {
                tracing::error!(%error, "the listener for peers failed");
            }
        }
    });

    let invite = match config.settings.registration {
        RegistrationPolicy::Invite if no_invite_yet => first_invite(&handle).await,
        _ => None,
    };
    announce(&banner(&config, layout, &identity, &certificate, address, invite, first_start), json);
    tracing::info!(name = %config.settings.name, server_id = %identity.server_id(), epoch, "listening");

    let mut ended = pin!(running.ended());
    tokio::select! {
        signal = signals.next() => tracing::info!(signal, "draining"),
        ended = &mut ended => {
            // Who waits for an answer is told that there is none.
            let _ = stop.send(());
            let _ = timeout(ANSWERS_TIME_MAX, serving).await;
            return ended.map_err(Error::from);
        }
    }
    let drained = async {
        health.drain().await;
        handle.drain().await;
        let _ = stop.send(());
        health.end().await;
        if timeout(STOP_TIME_MAX, serving).await.is_err() {
            tracing::warn!("some calls did not end in time");
        }
        handle.stop().await;
        ended.await
    };
    tokio::select! {
        ended = drained => ended?,
        _ = signals.next() => return Err(Error::Hurried),
    }
    tracing::info!("stopped");
    Ok(())
}

/// Everything that listens or dials.
struct Sockets {
    clients: ClientListener,
    federation: socp_quic::Server,
    dialling: ClientEndpoint,
    operator: UnixListener,
    metrics: MetricsListener,
}

/// Where it listens, with the ports that were taken.
struct Addresses {
    clients: SocketAddr,
    federation: SocketAddr,
    metrics: Place,
}

impl Sockets {
    async fn bind(
        config: &Config,
        layout: &Layout,
        identity: &ServerIdentity,
        certificate: &ClientCertificate,
        admitted: &Admitted,
        links: &runtime::Handle,
    ) -> Result<Self, Error> {
        let certified = &certificate.certified;
        let (tcp, quic) = (tls::client_tcp(certified), tls::client_quic(certified));
        let reset = identity.reset_secret(UdpListener::Clients);
        let clients = ClientListener::bind(config.listen, tcp, quic, reset).await.map_err(Error::Listen)?;
        let address = config.federation_listen;
        let tls = tls::federation_listener(identity, admitted.clone());
        let listener = federation::listener_config(identity.reset_secret(UdpListener::Federation));
        let (federation, dialling) = {
            let _on_links = links.enter();
            let federation = socp_quic::Server::bind(address, tls, listener)
                .map_err(|error| Error::FederationListen(quic_error(address, error)))?;
            // Where IPv6 is switched off, IPv4 is all there is.
            let dialling = ClientEndpoint::bind((Ipv6Addr::UNSPECIFIED, 0).into())
                .or_else(|_| ClientEndpoint::bind((Ipv4Addr::UNSPECIFIED, 0).into()))
                .map_err(|source| Error::System { what: "open a UDP socket for dialling peers", source })?;
            (federation, dialling)
        };
        let operator = operator::bind(&layout.operator_socket())?;
        let metrics = MetricsListener::bind(&config.metrics_listen).await.map_err(Error::MetricsListen)?;
        Ok(Self { clients, federation, dialling, operator, metrics })
    }
}

/// Reads or makes the identity; never makes one for users who have registered under another.
fn identity(layout: &Layout, loaded: &Loaded) -> Result<(ServerIdentity, bool), Error> {
    let found = ServerIdentity::load(layout)?;
    match found {
        Some(identity) => match loaded.foreigner(identity.server_id()) {
            Some(account) => Err(Error::ForeignKey { path: layout.identity_key(), user: account.user.clone() }),
            None => Ok((identity, false)),
        },
        None if !loaded.accounts.is_empty() => Err(Error::LostKey { path: layout.identity_key() }),
        None => Ok((ServerIdentity::load_or_make(layout)?, true)),
    }
}

fn addresses(config: &Config) -> federation::Addresses {
    config.peers.iter().filter_map(|peer| Some((peer.pin.id, peer.address.clone()?))).collect()
}

fn facts(config: &Config, identity: &ServerIdentity, certificate: &ClientCertificate) -> ServerFacts {
    ServerFacts {
        name: config.settings.name.clone(),
        id: identity.server_id(),
        identity_key: identity.public_key(),
        certificate_statement: certificate.statement.clone(),
        certificate_signature: certificate.signature,
        registration: config.settings.registration,
    }
}

fn banner(
    config: &Config,
    layout: &Layout,
    identity: &ServerIdentity,
    certificate: &ClientCertificate,
    address: Addresses,
    invite: Option<String>,
    first_start: bool,
) -> Banner {
    Banner {
        name: config.settings.name.clone(),
        server_id: identity.server_id(),
        client: address.clients,
        federation: address.federation,
        metrics: address.metrics,
        client_reached: config.client_reached(address.clients),
        federation_reached: config.federation_reached(address.federation),
        data: layout.folder().to_owned(),
        ca: certificate.ca.clone(),
        operator: layout.operator_socket(),
        registration: config.settings.registration,
        invite,
        first_start,
    }
}

/// Makes the invite that the first start prints. Without it the operator can still make one.
async fn first_invite(handle: &Handle) -> Option<String> {
    let invite = random::invite();
    match handle.call(Request::CreateInvite { invite: invite.clone() }).await {
        Ok(_) => Some(invite),
        Err(rejection) => {
            tracing::warn!(%rejection, "cannot make the first invite");
            None
        }
    }
}

/// Data goes to standard output, text for people to standard error. A closed pipe is no reason to stop a server.
fn announce(banner: &Banner, json: bool) {
    let printed = if json { writeln!(io::stdout(), "{}", banner.json()) } else { write!(io::stderr(), "{banner}") };
    if let Err(error) = printed {
        tracing::warn!(%error, "cannot print where the server listens");
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        let listen = |kind| signal(kind).map_err(|source| Error::System { what: "listen for signals", source });
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Open files that a server may come to want: one for each client over TCP, and some for files, links and all else.
const DESCRIPTORS: u64 = CONNECTIONS_MAX as u64 + 1_024;

/// Each TCP client costs a descriptor, and the usual soft limit is for programs that still use `select`.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let may_have = getrlimit(Resource::Nofile).current;
    if let Some(limit) = may_have.filter(|limit| *limit < DESCRIPTORS) {
        tracing::info!(
            limit,
            wanted = DESCRIPTORS,
            "fewer files may be open than clients may connect; if so many are to come, raise the hard limit: `ulimit -Hn`, or systemd's `LimitNOFILE=`"
        );
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
