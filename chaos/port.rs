//! One port of the switch: a packet socket on the interface whose other end is a server's.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket, sockopt,
    },
};

/// Bytes of a frame, with room to spare: the interfaces take 1,500 of payload, and segment what is more.
const FRAME_BYTES_MAX: usize = 4_096;

/// Bytes that may wait for the forwarder, so that it loses nothing of its own accord while others have the processor.
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A packet socket. What it sends it does not receive.
pub struct Port(OwnedFd);

impl Port {
    /// Opens the interface of this name in the namespace that this thread is in.
    pub fn open(name: &str) -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
        let mut addresses = getifaddrs()?.filter(|interface| interface.interface_name == name);
        let address = addresses.find_map(|interface| interface.address?.as_link_addr().copied());
        let address = address.ok_or_else(|| io::Error::other(format!("there is no interface `{name}`")))?;
        // The address has no protocol in it, so the socket keeps the one that it was opened for: all.
        bind(socket.as_raw_fd(), &address)?;
        setsockopt(&socket, sockopt::RcvBufForce, &WAITING_BYTES_MAX)?;
        let port = Self(socket);
        // Between opening and binding it heard every interface.
        while port.receive()?.is_some() {}
        Ok(port)
    }

    /// Takes a frame, if one waits.
    pub fn receive(&self) -> io::Result<Option<Vec<u8>>> {
        let mut frame = vec![0; FRAME_BYTES_MAX];
        match recv(self.0.as_raw_fd(), &mut frame, MsgFlags::MSG_TRUNC) {
            Ok(length) if length > FRAME_BYTES_MAX => {
                Err(io::Error::other(format!("a frame of {length} bytes: the interface does not segment")))
            }
            Ok(length) => {
                frame.truncate(length);
                Ok(Some(frame))
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a frame. A full queue loses it, as a switch does; gives whether it was sent.
    pub fn send(&self, frame: &[u8]) -> io::Result<bool> {
        match send(self.0.as_raw_fd(), frame, MsgFlags::empty()) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::ENOBUFS) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
