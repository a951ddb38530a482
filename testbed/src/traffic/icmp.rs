//! One ICMP echo request.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::report::{IcmpReport, Outcome};
use super::request::Icmp;
use super::tcp::pattern;

/// Type, code, checksum, identifier, sequence number: RFC 792 and RFC 4443, both alike.
const HEADER: usize = 8;
const IPV6_HEADER: usize = 40;

/// What may come of our request.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Echo,
    /// Type and code.
    Error(u8, u8),
}

/// Sends one echo request and reads the reply, or the error that comes instead. Needs a raw socket.
pub fn icmp(request: &Icmp) -> IcmpReport {
    let start = Instant::now();
    let mut report = IcmpReport {
        outcome: Outcome::TimedOut,
        from: None,
        error: None,
        millis: 0.0,
    };
    report.outcome = match exchange(request, start) {
        Ok((from, Answer::Echo)) => {
            report.from = Some(from);
            Outcome::Answered
        }
        Ok((from, Answer::Error(kind, code))) => {
            report.from = Some(from);
            report.error = Some((kind, code));
            Outcome::Unreachable
        }
        Err(error) => Outcome::of(&error),
    };
    report.millis = start.elapsed().as_secs_f64() * 1000.0;
    report
}

fn exchange(request: &Icmp, start: Instant) -> io::Result<(IpAddr, Answer)> {
    let timeout = Duration::from_millis(request.timeout_millis);
    let (domain, protocol) = match request.to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    // The two calls that are needed are the same for every kind of datagram socket.
    let socket = UdpSocket::from(Socket::new(domain, Type::RAW, Some(protocol))?);
    let message = message(request);
    socket.send_to(&message, SocketAddr::new(request.to, 0))?;
    let mut buffer = vec![0; 128 << 10];
    loop {
        let left = timeout
            .checked_sub(start.elapsed())
            .filter(|left| !left.is_zero());
        socket.set_read_timeout(Some(left.ok_or(io::ErrorKind::TimedOut)?))?;
        let (length, from) = socket.recv_from(&mut buffer)?;
        let packet = &buffer[..length];
        // A raw IPv4 socket gives the IP header too (raw(7)); an IPv6 one does not.
        let received = if request.to.is_ipv4() {
            packet.get(ipv4_header(packet)..)
        } else {
            Some(packet)
        };
        if let Some(answer) = received.and_then(|received| answer(request.to.is_ipv4(), &message, received)) {
            return Ok((from.ip(), answer));
        }
    }
}

fn message(request: &Icmp) -> Vec<u8> {
    let identifier = (std::process::id() & 0xffff) as u16;
    let mut message = vec![if request.to.is_ipv4() { 8 } else { 128 }, 0, 0, 0];
    message.extend(identifier.to_be_bytes());
    message.extend([0, 1]);
    message.extend(pattern(request.bytes));
    if request.to.is_ipv4() {
        // For IPv6 the kernel does it: the checksum covers addresses (RFC 3542, section 3.1).
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// `None` for a message that has nothing to do with ours.
fn answer(v4: bool, sent: &[u8], received: &[u8]) -> Option<Answer> {
    let (kind, code) = (*received.first()?, *received.get(1)?);
    let body = received.get(HEADER..)?;
    let (reply, errors) = if v4 {
        (0, [3, 4, 11, 12])
    } else {
        (129, [1, 2, 3, 4])
    };
    if kind == reply {
        return (received.get(4..)? == sent.get(4..)?).then_some(Answer::Echo);
    }
    if !errors.contains(&kind) {
        return None;
    }
    let quoted = body.get(if v4 { ipv4_header(body) } else { IPV6_HEADER }..)?;
    let ours = quoted.first() == sent.first() && quoted.get(4..HEADER)? == sent.get(4..HEADER)?;
    ours.then_some(Answer::Error(kind, code))
}

fn ipv4_header(packet: &[u8]) -> usize {
    packet.first().map_or(0, |byte| usize::from(byte & 0xf) * 4)
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_with_its_checksum_sums_to_zero() {
        let request = Icmp::to([10, 0, 0, 1].into()).bytes(7);
        assert_eq!(checksum(&message(&request)), 0);
    }

    #[test]
    fn answers_are_told_from_others() {
        let sent = message(&Icmp::to([10, 0, 0, 1].into()));
        let mut reply = sent.clone();
        reply[0] = 0;
        assert_eq!(answer(true, &sent, &reply), Some(Answer::Echo));
        assert_eq!(answer(true, &sent, &sent), None);
        reply[5] ^= 1;
        assert_eq!(answer(true, &sent, &reply), None);
        let mut error = vec![3, 13, 0, 0, 0, 0, 0, 0, 0x45];
        error.resize(HEADER + 20, 0);
        error.extend(&sent[..HEADER]);
        assert_eq!(answer(true, &sent, &error), Some(Answer::Error(3, 13)));
        error.truncate(HEADER + 20 + 7);
        assert_eq!(answer(true, &sent, &error), None);
        assert_eq!(answer(true, &sent, &[]), None);
    }
}
