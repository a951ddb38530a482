//! The servers: one thread for each address and protocol, and one for each TCP connection.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use super::report::Greeting;
use super::request::Serve;

/// In how many pieces, and how far apart, a late echo comes: long after the client closed its side.
const LATE_PIECES: usize = 10;
const LATE_PAUSE: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Echo,
    Sink,
    LateEcho,
}

/// Serves for ever. `ready` is called once everything is bound.
pub fn serve(request: &Serve, ready: impl FnOnce() -> io::Result<()>) -> Result<()> {
    let kinds = [
        (Kind::Echo, &request.echo),
        (Kind::Sink, &request.sink),
        (Kind::LateEcho, &request.late_echo),
    ];
    let mut tcp = Vec::new();
    let mut udp = Vec::new();
    for (kind, addresses) in kinds {
        for address in addresses {
            tcp.push((
                kind,
                listen(*address).with_context(|| format!("listen at {address}"))?,
            ));
            if !matches!(kind, Kind::LateEcho) {
                udp.push((
                    kind,
                    bind(*address).with_context(|| format!("bind to {address}"))?,
                ));
            }
        }
    }
    ready().context("say that it is ready")?;
    thread::scope(|scope| {
        for (kind, listener) in tcp {
            scope.spawn(move || accept(kind, &request.name, &listener));
        }
        for (kind, socket) in udp {
            scope.spawn(move || datagrams(kind, &request.name, &socket));
        }
    });
    Ok(())
}

/// An IPv6 address never serves IPv4 too: both can be given.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_recv_buffer_size(4 << 20)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn accept(kind: Kind, name: &str, listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        let name = name.to_string();
        // A broken connection is the client's to report.
        thread::spawn(move || drop(answer(kind, &name, stream)));
    }
}

fn answer(kind: Kind, name: &str, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let greeting = greeting(name, stream.local_addr()?, stream.peer_addr()?)?;
    match kind {
        Kind::Sink => io::copy(&mut stream, &mut io::sink()).map(drop),
        Kind::Echo => {
            stream.write_all(&greeting)?;
            let mut buffer = vec![0; 64 << 10];
            loop {
                match stream.read(&mut buffer)? {
                    0 => return Ok(()),
                    length => stream.write_all(&buffer[..length])?,
                }
            }
        }
        Kind::LateEcho => {
            stream.write_all(&greeting)?;
            let mut all = Vec::new();
            stream.read_to_end(&mut all)?;
            for piece in all.chunks(all.len().div_ceil(LATE_PIECES).max(1)) {
                thread::sleep(LATE_PAUSE);
                stream.write_all(piece)?;
            }
            stream.shutdown(Shutdown::Both)
        }
    }
}

/// A datagram is echoed behind the greeting.
fn datagrams(kind: Kind, name: &str, socket: &UdpSocket) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        // An error is that of an earlier answer, reported late; the next datagram is waiting all the same.
        let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        if matches!(kind, Kind::Echo)
            && let Ok(mut reply) = socket.local_addr().and_then(|local| greeting(name, local, peer))
        {
            reply.extend_from_slice(&buffer[..length]);
            // Lost is lost: that is what the client finds out.
            let _ = socket.send_to(&reply, peer);
        }
    }
}

fn greeting(server: &str, local: SocketAddr, peer: SocketAddr) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Greeting {
        server: server.into(),
        local,
        peer,
    })?;
    line.push(b'\n');
    Ok(line)
}
