//! Ethernet frames, as far as a switch reads them.

use std::ops::Range;

/// Destination, source, type.
const ETHERNET_BYTES: usize = 14;

const DESTINATION: Range<usize> = 0..6;
const TYPE: Range<usize> = 12..14;
const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const UDP: u8 = 17;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// IP version 4.
    Ip,
    /// A question for the address of an interface, or its answer.
    Arp,
    /// Anything else; not passed on.
    Other,
}

/// To whom a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The interface whose address ends so.
    One(u8),
    /// All.
    All,
}

/// Reads what is needed of a frame's head; `None` if it is cut short.
pub fn read(frame: &[u8]) -> Option<(Payload, Destination)> {
    let destination = frame.get(DESTINATION)?;
    let payload = match frame.get(TYPE)?.try_into().ok()? {
        IPV4 => Payload::Ip,
        ARP => Payload::Arp,
        _ => Payload::Other,
    };
    let is_group = destination[0] & 1 == 1;
    Some((payload, if is_group { Destination::All } else { Destination::One(destination[5]) }))
}

/// Completes the checksum of a UDP packet. A virtual interface leaves that to hardware that it does not have: within one
/// machine nobody asks, but a packet that was taken out and put in again is checked.
pub fn complete(frame: &mut [u8]) {
    let Some(ip) = frame.get_mut(ETHERNET_BYTES..) else { return };
    let Some(&[first, ..]) = ip.first_chunk::<20>() else { return };
    let header_bytes = usize::from(first & 0x0f) * 4;
    let total_bytes = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let is_fragment = u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff != 0;
    if ip[9] != UDP || is_fragment || header_bytes + 8 > total_bytes || total_bytes > ip.len() {
        return;
    }
    let mut addresses = [0; 8];
    addresses.copy_from_slice(&ip[12..20]);
    let udp = &mut ip[header_bytes..total_bytes];
    udp[6..8].fill(0);
    let length = u32::try_from(udp.len()).expect("a packet is short");
    let sum = sum(&addresses) + sum(udp) + u32::from(UDP) + length;
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("it was folded twice");
    // No checksum at all is said by zero, so zero is said by its other form.
    udp[6..8].copy_from_slice(&if checksum == 0 { 0xffff } else { checksum }.to_be_bytes());
}

fn sum(bytes: &[u8]) -> u32 {
    let pairs = bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    pairs.map(u32::from).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram() -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 7, 2, 0, 0, 0, 0, 1, 8, 0];
        frame.extend([0x45, 0, 0, 31, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0x10, 0x00, 0x20, 0x00, 0, 11, 0xab, 0xcd, b'a', b'b', b'c']);
        frame
    }

    #[test]
    fn a_completed_datagram_sums_to_all_ones_and_whatever_stood_there_before_does_not_matter() {
        let mut frame = datagram();
        complete(&mut frame);
        let (mut other, udp) = (datagram(), &frame[34..]);
        other[40..42].fill(0x11);
        complete(&mut other);
        assert_eq!(frame, other);
        let total = sum(&frame[26..34]) + sum(udp) + 17 + 11;
        assert_eq!((total & 0xffff) + (total >> 16), 0xffff);
    }

    #[test]
    fn a_head_that_is_cut_short_or_lies_is_left_alone() {
        for length in 0..datagram().len() {
            let mut frame = datagram()[..length].to_vec();
            complete(&mut frame);
            assert_eq!(frame, datagram()[..length]);
        }
    }

    #[test]
    fn a_frame_goes_to_one_or_to_all() {
        assert_eq!(read(&datagram()), Some((Payload::Ip, Destination::One(7))));
        let all = [[0xff; 6], [2; 6]].concat();
        assert_eq!(read(&[&all[..], &[8, 6]].concat()), Some((Payload::Arp, Destination::All)));
        assert_eq!(read(&[&all[..], &[0x86, 0xdd]].concat()), Some((Payload::Other, Destination::All)));
        assert_eq!(read(&all), None);
    }
}
