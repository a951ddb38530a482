//! One datagram and its echo.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::report::{Greeting, Outcome, UdpReport};
use super::request::Udp;
use super::tcp::pattern;

/// Sends one datagram and reads its echo.
pub fn udp(request: &Udp) -> UdpReport {
    let start = Instant::now();
    let mut report = UdpReport {
        outcome: Outcome::TimedOut,
        local: None,
        peer: None,
        from: None,
        greeting: None,
        millis: 0.0,
    };
    report.outcome = Outcome::from(&exchange(request, &mut report));
    report.millis = start.elapsed().as_secs_f64() * 1000.0;
    report
}

fn exchange(request: &Udp, report: &mut UdpReport) -> io::Result<()> {
    let socket = UdpSocket::bind(request.from.unwrap_or(any(request.to)))?;
    socket.set_read_timeout(Some(Duration::from_millis(request.timeout_millis.max(1))))?;
    let payload = pattern(request.bytes);
    if request.connected {
        socket.connect(request.to)?;
        report.peer = Some(socket.peer_addr()?);
        socket.send(&payload)?;
    } else {
        socket.send_to(&payload, request.to)?;
    }
    report.local = Some(socket.local_addr()?);
    let mut buffer = vec![0; 64 << 10];
    let (length, from) = socket.recv_from(&mut buffer)?;
    report.from = Some(from);
    let (greeting, echo) = split(&buffer[..length])?;
    report.greeting = Some(greeting);
    if echo == payload {
        Ok(())
    } else {
        Err(io::Error::from(io::ErrorKind::InvalidData))
    }
}

/// Any address and port of the same family.
pub(super) fn any(to: SocketAddr) -> SocketAddr {
    match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// The greeting and the echoed payload of an answer.
fn split(datagram: &[u8]) -> io::Result<(Greeting, &[u8])> {
    let payload = echoed(datagram).ok_or(io::ErrorKind::InvalidData)?;
    Ok((
        serde_json::from_slice(&datagram[..datagram.len() - payload.len()])?,
        payload,
    ))
}

/// The echoed payload of an answer.
pub(super) fn echoed(datagram: &[u8]) -> Option<&[u8]> {
    let end = datagram.iter().position(|byte| *byte == b'\n')?;
    datagram.get(end + 1..)
}
