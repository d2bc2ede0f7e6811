//! A server that dies without a word and comes back on the same port.

use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use socp_quic::{Channel, ClientConfig, Closed, ResetSecret, Server, ServerConfig};
use tokio::runtime::{Builder, Runtime};
use tonic::service::Routes;

use crate::support::{Certs, Script, client, localhost, message, soon};

/// Nobody notices anything by silence while a test runs.
const HOUR: Duration = Duration::from_secs(3600);

/// A server on a runtime of its own, on which it can die: what is dropped with the runtime sends nothing any more.
struct Mortal {
    addr: SocketAddr,
    runtime: Runtime,
}

impl Mortal {
    fn new(addr: SocketAddr, certs: &Certs, secret: Option<u8>) -> Mortal {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let config = ServerConfig {
            idle_timeout: HOUR,
            keep_alive: None,
            reset_secret: secret.map(|byte| ResetSecret::new([byte; 32])),
            ..ServerConfig::default()
        };
        let inside = runtime.enter();
        let server = Server::bind(addr, certs.server(), config).unwrap();
        let addr = server.local_addr();
        runtime.spawn(server.serve(Routes::new(Script::new()), pending()));
        drop(inside);
        Mortal { addr, runtime }
    }

    /// Ends the server and frees its port. To be awaited, since a runtime must not be dropped inside another.
    async fn die(self) {
        tokio::task::spawn_blocking(|| drop(self.runtime)).await.unwrap();
    }
}

/// Connects to a server with the first secret, which then dies; another with the second comes in its place. Returns why
/// the connection to the first one ended; calls go on at the second.
async fn killed_and_restarted(secrets: [Option<u8>; 2], idle_timeout: Duration) -> Closed {
    let certs = Certs::new();
    let first = Mortal::new(localhost(), &certs, secrets[0]);
    let addr = first.addr;
    let config = ClientConfig { idle_timeout, keep_alive: Some(Duration::from_millis(50)), ..ClientConfig::default() };
    let channel = Channel::builder(addr, "localhost", certs.client()).config(config);
    let channel = soon(channel.connect()).await.unwrap();
    soon(client(&channel).unary("Echo", message("x"))).await.unwrap();
    let connection = channel.connection().unwrap();
    first.die().await;
    let second = Mortal::new(addr, &certs, secrets[1]);
    let why = soon(connection.closed()).await;
    soon(client(&channel).unary("Echo", message("x"))).await.unwrap();
    second.die().await;
    why
}

/// Guard: `reset_secret` in `Server::bind`, and both keys of `ResetSecret::endpoint`.
#[tokio::test]
async fn a_server_with_the_same_secret_tells_old_clients_that_it_forgot_them() {
    let why = killed_and_restarted([Some(1), Some(1)], HOUR).await;
    assert_eq!(why, Closed::Forgotten);
}

/// Guard: none of ours; a server cannot end a connection whose secret it does not have.
#[tokio::test]
async fn a_server_with_another_secret_or_none_is_left_to_silence() {
    let idle_timeout = Duration::from_secs(1);
    let (another, none) = tokio::join!(
        killed_and_restarted([Some(1), Some(2)], idle_timeout),
        killed_and_restarted([None, None], idle_timeout)
    );
    assert_eq!((another, none), (Closed::Idle, Closed::Idle));
}
