//! Watchers over HTTP/3: a connection each by the client's own transport, many to a UDP port of this machine.
//!
//! They cost this machine several times what the reader of HTTP/2 in [`call`](super::call) costs: QUIC's packets are encrypted,
//! acknowledged and timed one by one. Users have a port each; a server tells connections apart by their ids, not by ports.

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use http::uri::PathAndQuery;
use prost::bytes::Bytes;
use rustls::ClientConfig;
use socp_quic::ClientEndpoint;
use tokio::{
    sync::Semaphore,
    task::{JoinSet, LocalSet},
    time::sleep,
};
use tonic::{Request, client::Grpc};

use super::{
    clock,
    plan::Aim,
    raw::Raw,
    seat::Seat,
    tally::{Schedule, Tally},
    watchers::{Progress, Watchers},
};
use crate::{failure::Failure, session::bearer, transport::Transport};

/// Connections of one UDP port: what its buffers hold of packets, when something is told to all, is not dropped.
const CONNECTIONS_PER_PORT: usize = 128;

/// Handshakes of one thread at once: below what a server takes without asking for a proof of the address.
const HANDSHAKES_MAX: usize = 32;

/// How often one connects before it gives up: where so many do, packets are dropped.
const DIALS_MAX: usize = 3;

/// How often it is looked whether it is to end.
const LOOK_UP: Duration = Duration::from_millis(50);

/// Starts watchers, spread over so many threads.
pub fn start(aims: &[Aim], threads: usize, tls: &ClientConfig, schedule: &Arc<Schedule>) -> Result<Watchers, Failure> {
    let progress = Arc::new(Progress::default());
    let threads = threads.max(1);
    let handles = (0..threads).map(|turn| {
        let due: Vec<_> = aims.iter().flat_map(|aim| (0..aim.watchers).map(move |_| aim.clone())).collect();
        let due: Vec<_> = due.into_iter().skip(turn).step_by(threads).collect();
        let (progress, schedule, tls) = (Arc::clone(&progress), Arc::clone(schedule), tls.clone());
        thread::spawn(move || match work(due, &tls, &progress, &schedule) {
            Ok(tally) => tally,
            Err(error) => {
                progress.fail(Failure::failed(format!("a thread of watchers cannot start: {error}")));
                Tally::default()
            }
        })
    });
    Ok(Watchers { threads: handles.collect(), wakers: Vec::new(), progress, workers: Vec::new() })
}

/// What the watchers of a thread share.
struct Shared {
    tls: ClientConfig,
    schedule: Arc<Schedule>,
    progress: Arc<Progress>,
    shaking: Semaphore,
    tally: RefCell<Tally>,
    seats: RefCell<Vec<Seat>>,
}

fn work(due: Vec<Aim>, tls: &ClientConfig, progress: &Arc<Progress>, schedule: &Arc<Schedule>) -> io::Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shared = Rc::new(Shared {
        tls: tls.clone(),
        schedule: Arc::clone(schedule),
        progress: Arc::clone(progress),
        shaking: Semaphore::new(HANDSHAKES_MAX),
        tally: RefCell::default(),
        seats: RefCell::new(due.iter().map(|_| Seat::default()).collect()),
    });
    LocalSet::new().block_on(&runtime, async {
        let mut tasks = JoinSet::new();
        let mut endpoint = None;
        for (place, aim) in due.into_iter().enumerate() {
            if place % CONNECTIONS_PER_PORT == 0 {
                endpoint = Some(ClientEndpoint::towards(aim.address)?);
            }
            let (shared, endpoint) = (Rc::clone(&shared), endpoint.clone().expect("the first place has one"));
            tasks.spawn_local(async move {
                if let Err(why) = shared.watch(place, &aim, endpoint).await {
                    let lost = format!("a watcher at `{}` was lost: {why}", aim.address);
                    shared.progress.fail(Failure::failed(lost));
                }
            });
        }
        while !progress.is_stopped() {
            sleep(LOOK_UP).await;
        }
        Ok::<_, io::Error>(())
    })?;
    let mut tally = shared.tally.take();
    shared.seats.borrow().iter().for_each(|seat| seat.close(schedule, &mut tally));
    Ok(tally)
}

impl Shared {
    /// Watches until the server ends it.
    async fn watch(&self, place: usize, aim: &Aim, endpoint: ClientEndpoint) -> Result<(), Failure> {
        let turn = self.shaking.acquire().await.expect("the semaphore is never closed");
        let host = aim.address.ip().to_string();
        let mut dials = 1;
        let (transport, certificate) = loop {
            match Transport::dial_h3_from(endpoint.clone(), aim.address, &host, self.tls.clone()).await {
                Err(failure) if dials == DIALS_MAX => return Err(failure),
                Err(_) => dials += 1,
                Ok(dialled) => break dialled,
            }
        };
        if certificate != aim.certificate {
            return Err(Failure::failed("it shows another certificate than before"));
        }
        let mut request = Request::new(Bytes::from(aim.request.message.clone()));
        request.metadata_mut().insert("authorization", bearer(&aim.request.token)?);
        let path = PathAndQuery::try_from(aim.request.path.as_str());
        let path = path.map_err(|error| Failure::failed(format!("`{}` is no path: {error}", aim.request.path)))?;
        let mut grpc = Grpc::new(transport);
        grpc.ready().await?;
        let mut messages = grpc.server_streaming(request, path, Raw).await?.into_inner();
        drop(turn);
        while let Some(message) = messages.message().await? {
            let now_ns = clock::now_ns();
            let tally = &mut *self.tally.borrow_mut();
            let before = tally.delivered;
            let seat = &mut self.seats.borrow_mut()[place];
            let is_new = seat
                .take(&message, now_ns, &self.schedule, tally, aim.keeps_token)
                .map_err(|astray| Failure::failed(astray.to_string()))?;
            self.progress.told.fetch_add(tally.delivered - before, Ordering::Relaxed);
            self.progress.synced.fetch_add(usize::from(is_new), Ordering::Release);
        }
        Err(Failure::failed("the server ended the stream"))
    }
}
