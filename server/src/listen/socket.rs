//! What the kernel does for a client's TCP connection: sends at once, keeps little of what cannot leave, and ends what is silent.
//!
//! Only Linux has all of it. Elsewhere a connection that is cut off is noticed by pings alone, or, over HTTP/1.1, by what cannot be
//! sent.

use socket2::SockRef;
use tokio::net::TcpStream;

/// Bytes that the kernel takes beyond those on their way: enough to keep a fast network busy between two wake-ups. A client that
/// takes nothing has this many kept for it, and not the megabytes that its buffer may grow to.
#[cfg(target_os = "linux")]
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// Prepares a connection, whatever its client will speak.
pub(super) fn prepare(stream: &TcpStream) {
    // What fails here fails in the handshake, too.
    let _ = SockRef::from(stream).set_tcp_nodelay(true);
    bound(stream);
}

/// Bounds what is kept for a client, and for how long it may leave that unanswered.
#[cfg(target_os = "linux")]
fn bound(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let timeout = Some(super::liveness::SELDOM_TIMEOUT);
    note(socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX).and_then(|()| socket.set_tcp_user_timeout(timeout)));
}

#[cfg(not(target_os = "linux"))]
fn bound(_stream: &TcpStream) {}

/// Has the kernel end a connection that cannot be pinged as soon as pings would, if its other end is silent.
#[cfg(target_os = "linux")]
pub(super) fn end_in_silence(stream: &TcpStream) {
    use std::time::Duration;

    use socket2::TcpKeepalive;

    use super::liveness::{PING_INTERVAL, PING_TIMEOUT};

    let socket = SockRef::from(stream);
    let probes = TcpKeepalive::new().with_time(PING_INTERVAL).with_interval(Duration::from_secs(1));
    let timeout = Some(PING_INTERVAL + PING_TIMEOUT);
    note(socket.set_tcp_keepalive(&probes).and_then(|()| socket.set_tcp_user_timeout(timeout)));
}

#[cfg(not(target_os = "linux"))]
pub(super) fn end_in_silence(_stream: &TcpStream) {}

#[cfg(target_os = "linux")]
fn note(set: std::io::Result<()>) {
    if let Err(error) = set {
        tracing::debug!(%error, "a connection is not as it should be; its client may be gone already");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use tokio::net::TcpListener;

    use super::{
        super::liveness::{PING_INTERVAL, PING_TIMEOUT, SELDOM_TIMEOUT},
        *,
    };

    async fn accepted() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    /// How many bytes the kernel takes for a client that reads nothing.
    async fn taken(stream: &TcpStream) -> usize {
        stream.writable().await.unwrap();
        let mut taken = 0;
        while let Ok(bytes) = stream.try_write(&[0; 4096]) {
            taken += bytes;
        }
        taken
    }

    #[tokio::test]
    async fn the_kernel_keeps_little_for_a_client_that_takes_nothing() {
        let ((_one, prepared), (_other, usual)) = (accepted().await, accepted().await);
        prepare(&prepared);
        let (little, usual) = (taken(&prepared).await, taken(&usual).await);
        assert!(little > 0 && little + UNSENT_BYTES_MAX as usize <= usual, "{little} and {usual} bytes");
        let socket = SockRef::from(&prepared);
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_BYTES_MAX);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(SELDOM_TIMEOUT));
        assert!(socket.tcp_nodelay().unwrap());
    }

    #[tokio::test]
    async fn the_kernel_ends_a_silent_connection_when_pings_would() {
        let (_client, stream) = accepted().await;
        end_in_silence(&stream);
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), PING_INTERVAL);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(PING_INTERVAL + PING_TIMEOUT));
    }
}
