//! Measures the memory that a server holds for each idle connection with one idle stream.
//!
//! `cargo run --release -p socp-quic --example idle_memory [connections]` starts a server as a process of its own, connects
//! (200 times unless told otherwise, after 20 that do not count), asks on each connection for a health watch that never
//! changes, and prints the growth of the server's resident memory per connection. Linux only: it reads `/proc`.

use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use socp_quic::{Channel, Server, ServerConfig};
use tonic::Streaming;
use tonic::service::Routes;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const WARM_UP: usize = 20;

#[tokio::main]
async fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("serve") => serve().await,
        Some(connections) => measure(connections.parse()?).await,
        None => measure(200).await,
    }
}

/// The server's process: tells its address and certificate on standard output, and runs until it is killed.
async fn serve() -> Result<()> {
    let key = rcgen::KeyPair::generate()?;
    let cert = rcgen::CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?;
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))?;
    let server = Server::bind(([127, 0, 0, 1], 0).into(), tls, ServerConfig::default())?;
    let cert: String = cert.der().iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{} {cert}", server.local_addr());
    let (_reporter, health) = tonic_health::server::health_reporter();
    server.serve(Routes::new(health), std::future::pending()).await;
    Ok(())
}

/// Ends the server with the measurement, however that ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn measure(connections: usize) -> Result<()> {
    let mut server = Command::new(std::env::current_exe()?).arg("serve").stdout(Stdio::piped()).spawn()?;
    let stdout = server.stdout.take().ok_or("no standard output")?;
    let server = Killed(server);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let (addr, cert) = line.trim().split_once(' ').ok_or("no address")?;
    let addr: SocketAddr = addr.parse()?;
    let cert: std::result::Result<Vec<u8>, _> =
        (0..cert.len()).step_by(2).map(|at| u8::from_str_radix(&cert[at..at + 2], 16)).collect();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(cert?))?;
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();

    let mut open = Vec::new();
    for _ in 0..WARM_UP {
        open.push(idle(addr, tls.clone()).await?);
    }
    let before = resident_kib(server.0.id())?;
    for _ in 0..connections {
        open.push(idle(addr, tls.clone()).await?);
    }
    let after = resident_kib(server.0.id())?;
    let each = (after.saturating_sub(before)) as f64 / connections.max(1) as f64;
    println!("{each:.1} KiB per idle connection ({connections} connections, {before} to {after} KiB resident)");
    Ok(())
}

async fn idle(addr: SocketAddr, tls: rustls::ClientConfig) -> Result<(Channel, Streaming<HealthCheckResponse>)> {
    let channel = Channel::builder(addr, "localhost", tls).connect().await?;
    let request = HealthCheckRequest { service: String::new() };
    let mut watch = HealthClient::new(channel.clone()).watch(request).await?.into_inner();
    // The present state comes at once, later ones never.
    watch.message().await?;
    Ok((channel, watch))
}

fn resident_kib(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse()?)
}
