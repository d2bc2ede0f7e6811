use socp::rejection;
use tokio::time::advance;
use tonic_types::StatusExt as _;

use super::*;

fn reason(status: &Status) -> Option<Reason> {
    rejection::parse(&status.get_error_details().error_info()?.reason)
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_is_silent_for_a_minute_is_ended_and_not_before() {
    let (send, mut sent) = tokio::sync::mpsc::channel(1);
    let mut parts = Box::pin(stream::poll_fn(move |context| sent.poll_recv(context)).map(Ok));
    let late = async {
        advance(Duration::from_millis(TRANSFER_SILENCE_MS - 1)).await;
        let part = Kind::Part(Bytes::from_static(&[1]));
        send.send(UploadFileRequest { kind: Some(part) }).await.unwrap();
    };
    let (came, ()) = tokio::join!(next(&mut parts), late);
    assert_eq!(came.unwrap(), Some(Kind::Part(Bytes::from_static(&[1]))));
    assert_eq!(reason(&next(&mut parts).await.unwrap_err()), Some(Reason::Timeout));
}

#[tokio::test]
async fn a_message_of_no_kind_is_refused() {
    let mut parts = stream::iter([Ok(UploadFileRequest { kind: None })]);
    assert_eq!(reason(&next(&mut parts).await.unwrap_err()), Some(Reason::UnknownType));
    assert_eq!(next(&mut parts).await.unwrap(), None, "it ends");
}
