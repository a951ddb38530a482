//! One TCP connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::report::{Greeting, Outcome, TcpReport};
use super::request::Tcp;

/// A greeting is shorter than that; else it is none.
const LONGEST_GREETING: usize = 1024;

/// Connects, is greeted, and has bytes echoed.
pub fn tcp(request: &Tcp) -> TcpReport {
    let timeout = Duration::from_millis(request.timeout_millis);
    let start = Instant::now();
    let connected = connect(request.to, request.from, timeout);
    let mut report = TcpReport {
        outcome: Outcome::from(&connected),
        connected: connected.is_ok(),
        local: None,
        peer: None,
        greeting: None,
        connect_millis: start.elapsed().as_secs_f64() * 1000.0,
    };
    if let Ok(mut stream) = connected {
        report.local = stream.local_addr().ok();
        report.peer = stream.peer_addr().ok();
        report.outcome = Outcome::from(&exchange(&mut stream, request.bytes, &mut report.greeting));
    }
    report
}

/// A connected socket whose reads and writes take no longer than `timeout`.
pub(super) fn connect(to: SocketAddr, from: Option<SocketAddr>, timeout: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(from) = from {
        socket.bind(&from.into())?;
    }
    socket.connect_timeout(&to.into(), timeout)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream, bytes: usize, greeting: &mut Option<Greeting>) -> io::Result<()> {
    *greeting = Some(read_greeting(stream)?);
    let sent = pattern(bytes);
    stream.write_all(&sent)?;
    let mut received = vec![0; bytes];
    stream.read_exact(&mut received)?;
    if sent == received {
        Ok(())
    } else {
        Err(io::Error::from(io::ErrorKind::InvalidData))
    }
}

/// Reads the greeting and not one byte beyond it.
pub(super) fn read_greeting(stream: &mut TcpStream) -> io::Result<Greeting> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte)?;
        if byte[0] == b'\n' {
            return Ok(serde_json::from_slice(&line)?);
        }
        line.push(byte[0]);
        if line.len() > LONGEST_GREETING {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
    }
}

/// Bytes in which a shift or a swap shows.
pub(super) fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i % 251) as u8).collect()
}
