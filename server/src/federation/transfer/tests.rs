use tokio::time::advance;

use super::*;

const LINK: LinkId = LinkId(1);

/// The other end of a stream.
struct Peer {
    frames: mpsc::Sender<Result<TransferFrame, Status>>,
    taken: mpsc::Receiver<TransferFrame>,
}

impl Peer {
    async fn says(&self, kind: Kind) {
        self.frames.send(Ok(TransferFrame { kind: Some(kind) })).await.unwrap();
    }
}

fn stream() -> (Both, Peer) {
    let (out, taken) = mpsc::channel(PARTS_AHEAD);
    let (frames, mut coming) = mpsc::channel(PARTS_AHEAD);
    let coming = futures_util::stream::poll_fn(move |context| coming.poll_recv(context));
    (Both { frames: Box::pin(coming), out }, Peer { frames, taken })
}

/// A link over which the other side offers streams.
fn way() -> (Ways, Arc<Offers>) {
    let (ways, offers) = (Ways::default(), Arc::<Offers>::default());
    let way = Way { by: By::Offer(Arc::clone(&offers)), fetches: Arc::new(Semaphore::new(FETCHES_PER_LINK_MAX)) };
    lock(&ways.0).insert(LINK, way);
    (ways, offers)
}

fn offer(offers: &Offers) -> Peer {
    let (both, peer) = stream();
    assert!(offers.put(both).is_ok(), "there is room for the offer");
    peer
}

async fn fetched() -> (Fetched, Peer) {
    let (ways, offers) = way();
    let mut peer = offer(&offers);
    let fetched = ways.fetch(LINK, FileFetch::default()).await.unwrap();
    assert!(matches!(peer.taken.recv().await, Some(TransferFrame { kind: Some(Kind::Fetch(_)) })));
    (fetched, peer)
}

fn part(byte: u8) -> Kind {
    Kind::Part(Bytes::from(vec![byte]))
}

#[test]
fn so_many_offers_are_kept_and_not_one_more_until_one_is_given_up() {
    let offers = Offers::default();
    let mut peers: Vec<Peer> = (0..OFFERS_MAX).map(|_| offer(&offers)).collect();
    assert!(offers.put(stream().0).is_err());
    peers.pop();
    peers.push(offer(&offers));
    assert!(offers.put(stream().0).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_link_carries_so_many_fetches_at_once_and_the_next_waits_until_one_has_ended() {
    let (ways, offers) = way();
    let (mut under_way, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..FETCHES_PER_LINK_MAX {
        peers.push(offer(&offers));
        under_way.push(ways.fetch(LINK, FileFetch::default()).await.unwrap());
    }
    peers.push(offer(&offers));
    assert_eq!(ways.fetch(LINK, FileFetch::default()).await.err().unwrap().reason, Reason::Timeout);
    under_way.pop();
    under_way.push(ways.fetch(LINK, FileFetch::default()).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn without_a_link_or_an_offer_nothing_is_fetched() {
    let (ways, _offers) = way();
    assert_eq!(ways.fetch(LINK, FileFetch::default()).await.err().unwrap().reason, Reason::Timeout);
    assert_eq!(ways.fetch(LinkId(2), FileFetch::default()).await.err().unwrap().reason, Reason::HomeUnreachable);
}

#[tokio::test(start_paused = true)]
async fn a_file_of_which_nothing_comes_for_a_minute_is_given_up_and_not_before() {
    let (mut fetched, peer) = fetched().await;
    let late = async {
        advance(Duration::from_millis(TRANSFER_SILENCE_MS - 1)).await;
        peer.says(part(1)).await;
    };
    let (came, ()) = tokio::join!(fetched.next(), late);
    assert_eq!(came.unwrap().unwrap(), [1][..]);
    assert_eq!(fetched.next().await.unwrap_err().reason, Reason::Timeout);
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_of_a_file_for_a_minute_gets_no_more_of_it_and_not_before() {
    let (out, mut taken) = mpsc::channel(PARTS_AHEAD);
    for byte in 0..PARTS_AHEAD {
        pass_on(&out, Bytes::from(vec![byte as u8])).await.unwrap();
    }
    let late = async {
        advance(Duration::from_millis(TRANSFER_SILENCE_MS - 1)).await;
        taken.recv().await
    };
    let (passed, first) = tokio::join!(pass_on(&out, Bytes::from_static(&[9])), late);
    assert_eq!((passed, first.unwrap().kind), (Ok(()), Some(part(0))));
    assert_eq!(pass_on(&out, Bytes::new()).await.unwrap_err().reason, Reason::HomeUnreachable);
}

#[tokio::test]
async fn a_file_ends_with_a_word_and_a_stream_that_ends_without_is_broken() {
    for (word, expected) in
        [("", Ok(None)), ("FILE_NOT_FOUND", Err(Reason::FileNotFound)), ("NOT_A_REASON", Err(Reason::UnknownType))]
    {
        let (mut fetched, peer) = fetched().await;
        peer.says(Kind::End(TransferEnd { reason: word.to_owned() })).await;
        assert_eq!(fetched.next().await.map_err(|rejection| rejection.reason), expected, "{word}");
    }
    let (mut fetched, peer) = fetched().await;
    peer.says(part(1)).await;
    drop(peer);
    assert_eq!(fetched.next().await.unwrap().unwrap(), [1][..]);
    assert_eq!(fetched.next().await.unwrap_err().reason, Reason::HomeUnreachable);
}
