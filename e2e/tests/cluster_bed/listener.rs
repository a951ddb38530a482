//! Listens in a pod for datagrams and connections, answers them all, and keeps what it got.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use super::netns::Netns;

/// Room for what comes while this machine does something else, in bytes.
const RECEIVE_BUFFER: usize = 8 << 20;

/// How often a thread looks whether it is to end.
const INTERVAL: Duration = Duration::from_millis(50);

/// Of a connection in place of a text.
pub(crate) const CONNECTION: &str = "connection";

/// A datagram, or a connection.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) at: Instant,
    pub(crate) from: IpAddr,
    pub(crate) text: String,
}

pub(crate) struct Listener {
    received: Arc<Mutex<Vec<Received>>>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Listener {
    /// Listens to both families, also where there is no interface yet.
    pub(crate) fn start(netns: &Netns, port: u16) -> io::Result<Self> {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let (udp, tcp) =
            netns.run(|| -> io::Result<_> { Ok((udp_socket(any)?, TcpListener::bind(any)?)) })??;
        tcp.set_nonblocking(true)?;
        let (received, over) = (
            Arc::<Mutex<Vec<Received>>>::default(),
            Arc::<AtomicBool>::default(),
        );
        let shared = || (Arc::clone(&received), Arc::clone(&over));
        let ((keep, end), (keep_too, end_too)) = (shared(), shared());
        let threads = vec![
            thread::spawn(move || answer(&udp, &keep, &end)),
            thread::spawn(move || accept(&tcp, &keep_too, &end_too)),
        ];
        Ok(Self {
            received,
            over,
            threads,
        })
    }

    /// All so far.
    pub(crate) fn received(&self) -> MutexGuard<'_, Vec<Received>> {
        self.received.lock().expect("no panic")
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    socket.set_read_timeout(Some(INTERVAL))?;
    Ok(socket)
}

fn answer(socket: &UdpSocket, received: &Mutex<Vec<Received>>, over: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !over.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        // A pod that is gone needs no answer.
        let _ = socket.send_to(&buffer[..length], from);
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        keep(received, from, text);
    }
}

fn accept(listener: &TcpListener, received: &Mutex<Vec<Received>>, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, from)) => {
                keep(received, from, CONNECTION.to_owned());
                thread::spawn(move || echo(stream));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(INTERVAL / 10),
            Err(error) => eprintln!("a listener: {error}"),
        }
    }
}

fn keep(received: &Mutex<Vec<Received>>, from: SocketAddr, text: String) {
    received.lock().expect("no panic").push(Received {
        at: Instant::now(),
        from: from.ip().to_canonical(),
        text,
    });
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 2048];
    let _ = stream.set_nonblocking(false);
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}
