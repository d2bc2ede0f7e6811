use futures_util::{StreamExt as _, stream};
use http::HeaderMap;
use http_body_util::{BodyExt as _, StreamBody};

use super::*;

type Come = Result<Frame<Bytes>, Status>;

fn data(bytes: usize) -> Come {
    Ok(Frame::data(vec![7; bytes].into()))
}

fn trailers() -> Come {
    Ok(Frame::trailers(HeaderMap::new()))
}

/// A body of which this is there, and then its end, or nothing for now.
fn body(there: Vec<Come>, ends: bool) -> Body {
    let there = stream::iter(there);
    match ends {
        true => Body::new(StreamBody::new(there)),
        false => Body::new(StreamBody::new(there.chain(stream::pending()))),
    }
}

async fn read(body: Body) -> Begun {
    let mut begun = Begun::from(body);
    begun.read().await;
    begun
}

/// The data in each of a body's frames, and `None` for those that have none.
async fn sizes(mut body: Begun) -> Result<Vec<Option<usize>>, Status> {
    let mut sizes = Vec::new();
    while let Some(frame) = body.frame().await {
        sizes.push(frame?.data_ref().map(Bytes::len));
    }
    Ok(sizes)
}

#[tokio::test]
async fn a_request_is_whole_if_its_end_is_there_and_it_is_no_larger_than_the_limit() {
    let whole: [(Vec<Come>, &[Option<usize>]); 5] = [
        (vec![], &[]),
        (vec![data(9)], &[Some(9)]),
        (vec![data(5), data(4), trailers()], &[Some(5), Some(4), None]),
        (vec![data(WHOLE_REQUEST_BYTES)], &[Some(WHOLE_REQUEST_BYTES)]),
        (vec![data(1), data(WHOLE_REQUEST_BYTES - 1)], &[Some(1), Some(WHOLE_REQUEST_BYTES - 1)]),
    ];
    for (there, expected) in whole {
        let begun = read(body(there, true)).await;
        assert!(begun.is_whole(), "{expected:?}");
        assert_eq!(sizes(begun).await.unwrap(), expected);
    }
    let larger: [(Vec<Come>, &[Option<usize>]); 2] = [
        (vec![data(WHOLE_REQUEST_BYTES + 1)], &[Some(WHOLE_REQUEST_BYTES + 1)]),
        (vec![data(WHOLE_REQUEST_BYTES), data(1), data(2)], &[Some(WHOLE_REQUEST_BYTES), Some(1), Some(2)]),
    ];
    for (there, expected) in larger {
        let begun = read(body(there, true)).await;
        assert!(!begun.is_whole(), "{expected:?}");
        assert_eq!(sizes(begun).await.unwrap(), expected, "nothing is lost of it");
    }
    let full = http_body_util::Full::new(Bytes::from(vec![7; WHOLE_REQUEST_BYTES + 1]));
    assert!(!read(Body::new(full)).await.is_whole(), "one that says with its last frame that it ends");
}

#[tokio::test]
async fn of_a_request_that_goes_on_no_more_is_read_than_a_piece() {
    for there in [vec![], vec![data(0)], vec![data(9), data(9)]] {
        assert!(!read(body(there, false)).await.is_whole());
    }
    let endless = StreamBody::new(stream::repeat_with(|| data(WHOLE_REQUEST_BYTES / 3)));
    let begun = read(Body::new(endless)).await;
    assert!(!begun.is_whole());
    assert_eq!(begun.frames.len(), 4, "the fourth is over the limit");
    let empty = StreamBody::new(stream::repeat_with(|| data(0)));
    let begun = read(Body::new(empty)).await;
    assert!(!begun.is_whole());
    assert_eq!(begun.frames.len(), FRAMES_MAX);
}

#[tokio::test]
async fn one_that_breaks_off_is_not_whole_and_says_so_in_its_turn() {
    let begun = read(body(vec![data(9), Err(Status::cancelled("gone"))], true)).await;
    assert!(!begun.is_whole());
    assert_eq!(begun.frames.len(), 2);
    assert_eq!(sizes(begun).await.unwrap_err().code(), tonic::Code::Cancelled);
}
