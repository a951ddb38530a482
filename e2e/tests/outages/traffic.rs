//! Traffic that is to go on, and traffic that is never to begin.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::cluster_bed::netns::{Netns, own_addresses};

/// Between two datagrams, or two messages of a connection.
const EVERY: Duration = Duration::from_millis(20);
const DENIED_EVERY: Duration = Duration::from_millis(20);

/// For an answer. Datagrams are not sent twice, so an answer that takes longer is lost.
const ANSWER: Duration = Duration::from_secs(2);

/// For a connection's answer, which TCP asks for again.
const CONNECTION_ANSWER: Duration = Duration::from_secs(20);

/// Sockets of strangers are replaced after so many rounds.
const ROUNDS: usize = 5;

/// Numbered datagrams and a connection from a pod to another.
pub(crate) struct Talk {
    name: String,
    over: Arc<AtomicBool>,
    datagrams: JoinHandle<(usize, Vec<usize>)>,
    connection: JoinHandle<(Duration, Option<String>)>,
}

#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) name: String,
    pub(crate) sent: usize,
    /// Numbers of datagrams that were not answered.
    pub(crate) lost: Vec<usize>,
    /// From a message to its answer.
    pub(crate) longest_silence: Duration,
    pub(crate) broken: Option<String>,
}

impl Talk {
    pub(crate) fn start(netns: &Netns, name: String, server: IpAddr, port: u16) -> Self {
        let address = SocketAddr::from((server, port));
        let over = Arc::<AtomicBool>::default();
        let (socket, stream) = netns
            .run(|| {
                let socket = udp(server);
                socket.connect(address).expect("a route");
                (
                    socket,
                    TcpStream::connect_timeout(&address, ANSWER).expect("a connection"),
                )
            })
            .expect("in the pod");
        let (end, end_too) = (Arc::clone(&over), Arc::clone(&over));
        Self {
            name,
            over,
            datagrams: thread::spawn(move || datagrams(&socket, &end)),
            connection: thread::spawn(move || connection(stream, &end_too)),
        }
    }

    pub(crate) fn end(self) -> Told {
        self.over.store(true, Ordering::Relaxed);
        let (sent, lost) = self.datagrams.join().expect("it ends");
        let (longest_silence, broken) = self.connection.join().expect("it ends");
        Told {
            name: self.name,
            sent,
            lost,
            longest_silence,
            broken,
        }
    }
}

fn udp(family_of: IpAddr) -> UdpSocket {
    let any = match family_of {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    UdpSocket::bind(any).expect("a socket")
}

fn datagrams(socket: &UdpSocket, over: &AtomicBool) -> (usize, Vec<usize>) {
    let mut answered = Vec::new();
    socket.set_read_timeout(Some(EVERY)).expect("a timeout");
    let mut next = Instant::now();
    while !over.load(Ordering::Relaxed) {
        if Instant::now() >= next {
            let text = answered.len().to_string();
            // The kernel may hand out the error of an earlier datagram here, which is a loss of its own.
            let _ = socket.send(text.as_bytes());
            answered.push(false);
            next = Instant::now() + EVERY;
        }
        take(socket, &mut answered);
    }
    let until = Instant::now() + ANSWER;
    while answered.contains(&false) && Instant::now() < until {
        take(socket, &mut answered);
    }
    let lost = answered.iter().enumerate().filter(|(_, answered)| !**answered);
    (answered.len(), lost.map(|(number, _)| number).collect())
}

fn take(socket: &UdpSocket, answered: &mut [bool]) {
    let mut buffer = [0; 64];
    if let Ok(length) = socket.recv(&mut buffer) {
        let number: usize = String::from_utf8_lossy(&buffer[..length])
            .parse()
            .expect("a number");
        answered[number] = true;
    }
}

fn connection(mut stream: TcpStream, over: &AtomicBool) -> (Duration, Option<String>) {
    let mut longest = Duration::ZERO;
    let mut number: u64 = 0;
    let configured = stream
        .set_nodelay(true)
        .and_then(|()| stream.set_read_timeout(Some(CONNECTION_ANSWER)));
    configured.expect("set");
    while !over.load(Ordering::Relaxed) {
        let message = number.to_be_bytes();
        let start = Instant::now();
        let mut answer = [0; 8];
        if let Err(error) = stream
            .write_all(&message)
            .and_then(|()| stream.read_exact(&mut answer))
        {
            return (longest, Some(format!("message {number}: {error}")));
        }
        if answer != message {
            return (longest, Some(format!("message {number} came back as {answer:?}")));
        }
        longest = longest.max(start.elapsed());
        number += 1;
        thread::sleep(EVERY);
    }
    (longest, None)
}

/// Whether a datagram is answered.
pub(crate) fn answers(server: IpAddr, port: u16) -> bool {
    let socket = udp(server);
    socket.connect((server, port)).expect("a route");
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("a timeout");
    let sent = socket.send(b"may I?");
    sent.is_ok() && socket.recv(&mut [0; 16]).is_ok()
}

/// Whom strangers try to reach. It may grow.
#[derive(Debug, Clone, Default)]
pub(crate) struct Targets(Arc<Mutex<BTreeSet<SocketAddr>>>);

impl Targets {
    pub(crate) fn new(addresses: &[IpAddr], port: u16) -> Self {
        let targets = Self::default();
        targets.add(addresses, port);
        targets
    }

    pub(crate) fn add(&self, addresses: &[IpAddr], port: u16) {
        let new = addresses.iter().map(|address| SocketAddr::from((*address, port)));
        self.0.lock().expect("no panic").extend(new);
    }

    fn all(&self) -> BTreeSet<SocketAddr> {
        self.0.lock().expect("no panic").clone()
    }
}

/// Tries to reach targets, which must not hear of it.
pub(crate) struct Denied {
    over: Arc<AtomicBool>,
    own: Vec<IpAddr>,
    tries: JoinHandle<usize>,
}

impl Denied {
    pub(crate) fn start(netns: &Netns, targets: &Targets) -> Self {
        let over = Arc::<AtomicBool>::default();
        let own = netns.run(own_addresses).expect("in the pod");
        let (end, netns, targets) = (Arc::clone(&over), netns.clone(), targets.clone());
        let tries = thread::spawn(move || {
            netns.enter();
            attempt(&targets, &end)
        });
        Self { over, own, tries }
    }

    /// How many tries there were, and from which addresses.
    pub(crate) fn end(self) -> (usize, Vec<IpAddr>) {
        self.over.store(true, Ordering::Relaxed);
        (self.tries.join().expect("it ends"), self.own)
    }
}

fn attempt(targets: &Targets, over: &AtomicBool) -> usize {
    let pair = || [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()].map(udp);
    let kept = pair();
    let mut new = pair();
    let mut connecting: Vec<Socket> = Vec::new();
    let mut tries = 0;
    for round in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let targets = targets.all();
        if round % ROUNDS == 0 {
            new = pair();
            connecting.clear();
            connecting.extend(targets.iter().map(|target| connect(*target)));
            tries += connecting.len();
        }
        for target in &targets {
            for sockets in [&kept, &new] {
                let socket = &sockets[usize::from(target.is_ipv6())];
                tries += usize::from(socket.send_to(b"stranger", target).is_ok());
            }
        }
        thread::sleep(DENIED_EVERY);
    }
    tries
}

fn connect(server: SocketAddr) -> Socket {
    let socket =
        Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    socket.set_nonblocking(true).expect("set");
    // It is under way when this returns.
    let _ = socket.connect(&server.into());
    socket
}
