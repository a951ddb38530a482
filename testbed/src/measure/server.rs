//! The server: one thread that waits for all its sockets at once.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Protocol, Socket, Type};

use super::batch::Incoming;
use super::{Port, Received, Serve, pin};

const EVENTS: usize = 64;
/// How much one socket may have of the thread before the others have their turn.
const TURNS: usize = 64;
const BUFFER: usize = 1 << 20;

enum Peer {
    Listener(Port, TcpListener),
    Stream(Port, TcpStream),
    Echo(UdpSocket),
    Sink(UdpSocket),
}

/// Serves for ever. `ready` is called once everything is bound.
pub fn serve(request: &Serve, ready: impl FnOnce() -> io::Result<()>) -> Result<()> {
    pin(request.cpu)?;
    let mut server = Server::new()?;
    for address in [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()] {
        let at = |port: Port| SocketAddr::new(address, port.from(request.port));
        for port in [Port::TcpEcho, Port::TcpSink, Port::Control] {
            let listener = listen(at(port)).with_context(|| format!("listen at {}", at(port)))?;
            server.add(Peer::Listener(port, listener))?;
        }
        let bind = |port| bind(at(port)).with_context(|| format!("bind to {}", at(port)));
        server.add(Peer::Echo(bind(Port::UdpEcho)?))?;
        server.add(Peer::Sink(bind(Port::UdpSink)?))?;
    }
    ready().context("say that it is ready")?;
    server.run()
}

struct Server {
    epoll: Epoll,
    /// By descriptor.
    peers: BTreeMap<u64, Peer>,
    received: Received,
    buffer: Vec<u8>,
    incoming: Incoming,
}

impl Server {
    fn new() -> Result<Server> {
        Ok(Server {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            peers: BTreeMap::new(),
            received: Received::default(),
            buffer: vec![0; BUFFER],
            incoming: Incoming::new(TURNS),
        })
    }

    fn add(&mut self, peer: Peer) -> Result<()> {
        let descriptor = peer.as_fd();
        let key = descriptor.as_raw_fd().cast_unsigned().into();
        self.epoll
            .add(descriptor, EpollEvent::new(EpollFlags::EPOLLIN, key))
            .context("epoll")?;
        self.peers.insert(key, peer);
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(nix::Error::EINTR) => continue,
                Err(errno) => return Err(errno).context("epoll"),
            };
            for event in &events[..count] {
                self.turn(event.data())?;
            }
        }
    }

    fn turn(&mut self, key: u64) -> Result<()> {
        let mut arrived = Vec::new();
        match self.peers.get_mut(&key) {
            Some(Peer::Listener(port, listener)) => {
                while let Ok((stream, _)) = listener.accept() {
                    arrived.push(Peer::Stream(*port, stream));
                }
            }
            Some(Peer::Stream(port, stream)) => {
                let goes_on = talk(*port, stream, &mut self.buffer, &mut self.received);
                if !goes_on {
                    // Closing it takes it out of the epoll set too.
                    self.peers.remove(&key);
                }
            }
            Some(Peer::Echo(socket)) => echo(socket, &mut self.buffer),
            Some(Peer::Sink(socket)) => {
                while let Ok(count) = self.incoming.receive(socket) {
                    self.received.datagrams += count as u64;
                    if count < TURNS {
                        break;
                    }
                }
            }
            None => {}
        }
        for peer in arrived {
            if let Peer::Stream(_, stream) = &peer {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
            }
            self.add(peer)?;
        }
        Ok(())
    }
}

/// Whether the connection goes on.
fn talk(port: Port, stream: &mut TcpStream, buffer: &mut [u8], received: &mut Received) -> bool {
    let length = match stream.read(buffer) {
        Ok(0) => return false,
        Ok(length) => length,
        Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
    };
    match port {
        Port::TcpEcho => stream.write_all(&buffer[..length]).is_ok(),
        Port::TcpSink => {
            received.tcp_bytes += length as u64;
            true
        }
        Port::Control => {
            let answer = serde_json::to_vec(&received).unwrap_or_default();
            stream
                .write_all(&answer)
                .and_then(|()| stream.write_all(b"\n"))
                .is_ok()
        }
        Port::UdpEcho | Port::UdpSink => false,
    }
}

fn echo(socket: &UdpSocket, buffer: &mut [u8]) {
    for _ in 0..TURNS {
        let Ok((length, from)) = socket.recv_from(buffer) else {
            return;
        };
        // A client that does not get its answer counts it.
        let _ = socket.send_to(&buffer[..length], from);
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Peer::Listener(_, listener) => listener.as_fd(),
            Peer::Stream(_, stream) => stream.as_fd(),
            Peer::Echo(socket) | Peer::Sink(socket) => socket.as_fd(),
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, Type::STREAM, Protocol::TCP)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// With room for what comes while the sender has the CPU.
fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(address, Type::DGRAM, Protocol::UDP)?;
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(4 << 20))?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}
