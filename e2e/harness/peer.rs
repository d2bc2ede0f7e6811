//! A server made by hand, which says to its peers what no `socp-server` says.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use http::uri::PathAndQuery;
use prost::{Message as _, bytes::Bytes};
use socp::{
    batch::{Advert, Batch, Content, Epoch},
    digest::{Digest, DigestEntry, SetHash},
    federation::v1::{
        AdvertiseFrame, AdvertiseRequest, AdvertiseResponse, DeliverFrame, DeliverRequest, Hello, KeepAlive,
        RemoveFrame, RemoveRequest, SignedBatch, Statements, advertise_frame,
        federation_service_client::FederationServiceClient, remove_frame,
    },
    id::{ServerId, StartId},
    input::Frame,
    statement::KeyStatement,
    v1::SignedKeyStatement,
};
use socp_client::bench::raw::Raw;
use socp_quic::{Channel, ConnectError};
use socp_server::{identity::ServerIdentity, tls};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_stream::{Stream, StreamExt as _, wrappers::UnboundedReceiverStream};
use tonic::{Request, Status, client::Grpc};

use super::{caller::name, mesh, server::Server, soon};

const ADVERTISE: &str = "/socp.federation.v1.FederationService/Advertise";

/// An identity, its epoch, and the address that others have of it, where nobody listens.
pub struct Peer {
    pub name: String,
    pub identity: ServerIdentity,
    pub epoch: Epoch,
    pub address: SocketAddr,
}

/// A link that it dialled.
pub struct Link {
    advertise: UnboundedSender<Bytes>,
    remove: UnboundedSender<RemoveFrame>,
    deliver: UnboundedSender<DeliverFrame>,
    inbound: UnboundedReceiver<Result<Frame, Status>>,
    /// Held, so that the connection lives as long as the link.
    _channel: Channel,
}

impl Peer {
    /// Makes a server that is nobody yet.
    pub fn new(name: &str) -> Self {
        let start = StartId::from_bytes(&[7; 16]).expect("a start id has 16 bytes");
        Self {
            name: name.into(),
            identity: ServerIdentity::generate().expect("a key can be made"),
            epoch: Epoch { number: 1, start },
            address: mesh::address(),
        }
    }

    /// Its id.
    pub fn id(&self) -> ServerId {
        self.identity.server_id()
    }

    /// The `[[peer]]` entry that admits it.
    pub fn entry(&self) -> String {
        mesh::entry(&self.name, self.address, self.id())
    }

    /// The entry that admits it without dialling it.
    pub fn known(&self) -> String {
        mesh::known(&self.name, self.id())
    }

    /// What it would honestly open a link with.
    pub fn hello(&self) -> Hello {
        let (version_major, version_minor) = socp::PROTOCOL_VERSION;
        Hello {
            version_major,
            version_minor,
            name: self.name.clone(),
            epoch: self.epoch.number,
            start_id: Bytes::copy_from_slice(self.epoch.start.as_bytes()),
            positions: Vec::new(),
        }
    }

    /// Connects to a server's federation port.
    pub async fn connect(&self, server: &Server) -> Result<Channel, ConnectError> {
        let tls = tls::federation_dialler(&self.identity, [server.id]);
        Channel::builder(server.federation, "socp", tls).one_connection().connect().await
    }

    /// Dials a server, opens a link with this hello, and keeps it alive. What comes of it is read from the link.
    pub fn dial(&self, server: &Server, hello: Hello) -> Link {
        let channel = soon(self.connect(server)).expect("it is pinned there");
        let (advertise, advertise_out) = unbounded_channel();
        let (remove, remove_out) = unbounded_channel();
        let (deliver, deliver_out) = unbounded_channel();
        let (sender, inbound) = unbounded_channel();
        let _ = advertise.send(encoded(advertise_frame::Kind::Hello(hello)));
        let client = FederationServiceClient::new(channel.clone());
        soon(async {
            let (mut two, mut three) = (client.clone(), client);
            let mut one = Grpc::new(channel.clone());
            let frames = Request::new(UnboundedReceiverStream::new(advertise_out));
            tokio::spawn(report(sender.clone(), async move {
                one.ready().await?;
                let answers = one.streaming(frames, PathAndQuery::from_static(ADVERTISE), Raw).await?.into_inner();
                Ok(answers.map(|answer| {
                    let answer = AdvertiseResponse::decode(answer?).expect("a server's frames can be read");
                    Ok(Frame::Advertise(answer.frame.unwrap_or_default()))
                }))
            }));
            let frames = UnboundedReceiverStream::new(remove_out);
            let frames = frames.map(|frame| RemoveRequest { frame: Some(frame) });
            tokio::spawn(report(sender.clone(), async move {
                let answers = two.remove(frames).await?.into_inner();
                Ok(answers.map(|answer| Ok(Frame::Remove(answer?.frame.unwrap_or_default()))))
            }));
            let frames = UnboundedReceiverStream::new(deliver_out);
            let frames = frames.map(|frame| DeliverRequest { frame: Some(frame) });
            tokio::spawn(report(sender, async move {
                let answers = three.deliver(frames).await?.into_inner();
                Ok(answers.map(|answer| Ok(Frame::Deliver(answer?.frame.unwrap_or_default()))))
            }));
            tokio::spawn(keep_alive(remove.clone()));
        });
        Link { advertise, remove, deliver, inbound, _channel: channel }
    }

    /// The first batch of its epoch: this user comes online, honestly signed, with this key statement.
    pub fn batch(&self, signed: &SignedKeyStatement) -> SignedBatch {
        let advert = advert(signed);
        let mut set = SetHash::default();
        set.insert(&DigestEntry {
            origin: self.id(),
            epoch: self.epoch.number,
            user: &advert.user,
            display_name: "",
            status: "",
            key_statement: advert.statement,
            online_since: 1,
            sessions: 1,
        });
        self.batch_with(signed, set.digest())
    }

    /// The same with this digest, right or wrong.
    pub fn batch_with(&self, signed: &SignedKeyStatement, digest: Digest) -> SignedBatch {
        let content = Content::Adverts(vec![Arc::new(advert(signed))]);
        Batch::sign(&self.identity, self.epoch, 1, digest, 0, content).signed
    }

    /// A batch of an epoch, its own or another's, signed by this peer: these users are gone.
    pub fn removal(&self, epoch: Epoch, number: u64, users: &[&str]) -> SignedBatch {
        let users = users.iter().map(|user| name(user)).collect();
        Batch::sign(&self.identity, epoch, number, SetHash::default().digest(), 0, Content::Removals(users)).signed
    }
}

/// Says that the user of this key statement came online with the first batch.
fn advert(signed: &SignedKeyStatement) -> Advert {
    let statement = KeyStatement::parse(signed).expect("it was made here");
    Advert {
        user: statement.user.clone(),
        display_name: "".into(),
        status: "".into(),
        statement: statement.hash(),
        online_since: 1,
        sessions: 1,
    }
}

fn encoded(kind: advertise_frame::Kind) -> Bytes {
    AdvertiseRequest { frame: Some(AdvertiseFrame { kind: Some(kind) }) }.encode_to_vec().into()
}

/// Passes on what comes on one stream of a link, and its end.
async fn report<S>(to: UnboundedSender<Result<Frame, Status>>, call: impl Future<Output = Result<S, Status>>)
where
    S: Stream<Item = Result<Frame, Status>>,
{
    match call.await {
        Err(status) => drop(to.send(Err(status))),
        Ok(frames) => {
            let mut frames = pin!(frames);
            while let Some(frame) = frames.next().await {
                let _ = to.send(frame);
            }
        }
    }
}

async fn keep_alive(remove: UnboundedSender<RemoveFrame>) {
    let mut due = tokio::time::interval(Duration::from_millis(500));
    loop {
        due.tick().await;
        let kind = remove_frame::Kind::KeepAlive(KeepAlive::default());
        if remove.send(RemoveFrame { kind: Some(kind) }).is_err() {
            return;
        }
    }
}

impl Link {
    /// Sends a frame of the `Advertise` stream.
    pub fn advertise(&self, kind: advertise_frame::Kind) {
        self.garble(encoded(kind));
    }

    /// Sends any bytes in place of a frame of the `Advertise` stream.
    pub fn garble(&self, bytes: Bytes) {
        self.advertise.send(bytes).expect("the link is up");
    }

    /// Sends a frame of each other stream, whether anybody takes it or not.
    pub fn push(&self, frame: Frame) {
        // A link that was ended takes no more; its end is read from it.
        let _ = match frame {
            Frame::Advertise(frame) => {
                self.advertise.send(AdvertiseRequest { frame: Some(frame) }.encode_to_vec().into()).is_ok()
            }
            Frame::Remove(frame) => self.remove.send(frame).is_ok(),
            Frame::Deliver(frame) => self.deliver.send(frame).is_ok(),
        };
    }

    /// Sends key statements.
    pub fn statements(&self, statements: Vec<SignedKeyStatement>) {
        self.advertise(advertise_frame::Kind::Statements(Statements { statements }));
    }

    /// Sends a batch of adverts.
    pub fn adverts(&self, batch: SignedBatch) {
        self.advertise(advertise_frame::Kind::Batch(batch));
    }

    /// Sends a batch of removals.
    pub fn removals(&self, batch: SignedBatch) {
        let kind = remove_frame::Kind::Batch(batch);
        self.remove.send(RemoveFrame { kind: Some(kind) }).expect("the link is up");
    }

    /// Waits for the first frame for which `pick` gives something.
    #[track_caller]
    pub fn receive<T>(&mut self, mut pick: impl FnMut(Frame) -> Option<T>) -> T {
        soon(async {
            loop {
                let frame = self.inbound.recv().await.expect("the link goes on");
                if let Some(found) = pick(frame.expect("the link goes on")) {
                    return found;
                }
            }
        })
    }

    /// Waits for the other side's hello.
    #[track_caller]
    pub fn hello(&mut self) -> Hello {
        self.receive(|frame| match frame {
            Frame::Advertise(AdvertiseFrame { kind: Some(advertise_frame::Kind::Hello(hello)) }) => Some(hello),
            _ => None,
        })
    }

    /// Waits for the first status by which a stream of the link was ended.
    #[track_caller]
    pub fn end(&mut self) -> Status {
        soon(async {
            loop {
                match self.inbound.recv().await {
                    Some(Ok(_)) => {}
                    Some(Err(status)) => return status,
                    None => panic!("all streams ended without a word"),
                }
            }
        })
    }
}
