//! A pod's network from its beginning: the test sends from it and listens in it all the time.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::PORT;
use crate::cluster_bed::listener::{Listener, Received};
use crate::cluster_bed::netns::{Netns, own_addresses, retransmissions};
use crate::prober::Probed;

/// Between two rounds of packets: until the network has had its addresses for a while, and later.
const EAGER: Duration = Duration::from_millis(3);
const EAGER_FOR: Duration = Duration::from_millis(500);
const STEADY: Duration = Duration::from_millis(40);

/// A denied flow that is known to the programs is asked after in another way than a new one: sockets to those who must
/// not hear are replaced after so many rounds.
const ROUNDS: usize = 10;

const CONNECT: Duration = Duration::from_secs(5);

/// Who is sent to.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: IpAddr,
    pub(crate) node: String,
    /// A subject may send to it.
    pub(crate) is_friend: bool,
}

/// When a packet was sent, and when it was answered.
pub(crate) type Probe = (Instant, Option<Instant>);

pub(crate) struct Newcomer {
    pub(crate) born: Instant,
    node: String,
    listener: Mutex<Option<Listener>>,
    kept: Mutex<Vec<Received>>,
    addresses: OnceLock<(Vec<IpAddr>, Instant)>,
    /// By target.
    probes: Mutex<Vec<Vec<Probe>>>,
    ready: AtomicBool,
    not_connected: Mutex<Vec<String>>,
    ended: OnceLock<Instant>,
}

impl Newcomer {
    pub(crate) fn receive(netns: Netns, node: &str, targets: &[Target], probed: &Probed) -> Arc<Self> {
        let listener = Listener::start(&netns, PORT).expect("it listens");
        let newcomer = Arc::new(Self {
            born: Instant::now(),
            node: node.to_owned(),
            listener: Mutex::new(Some(listener)),
            kept: Mutex::default(),
            addresses: OnceLock::new(),
            probes: Mutex::new(vec![Vec::new(); targets.len()]),
            ready: AtomicBool::new(false),
            not_connected: Mutex::default(),
            ended: OnceLock::new(),
        });
        let (sender, targets, probed) = (Arc::clone(&newcomer), targets.to_vec(), probed.clone());
        thread::spawn(move || {
            netns.enter();
            sender.send(&targets, &probed);
        });
        newcomer
    }

    /// None while it has not all.
    pub(crate) fn addresses(&self) -> &[IpAddr] {
        self.addresses.get().map_or(&[], |(addresses, _)| addresses)
    }

    pub(crate) fn addressed(&self) -> Option<Instant> {
        self.addresses.get().map(|(_, when)| *when)
    }

    pub(crate) fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Sends no more; answers are still taken.
    pub(crate) fn end(&self) {
        let _ = self.ended.set(Instant::now());
    }

    pub(crate) fn ended(&self) -> Option<Instant> {
        self.ended.get().copied()
    }

    pub(crate) fn probes(&self) -> MutexGuard<'_, Vec<Vec<Probe>>> {
        self.probes.lock().expect("no panic")
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        let mut received = self.kept.lock().expect("no panic").clone();
        if let Some(listener) = self.listener.lock().expect("no panic").as_ref() {
            received.extend(listener.received().iter().cloned());
        }
        received
    }

    /// The connections to friends that could not be made at once after the pod was Ready.
    pub(crate) fn not_connected(&self) -> Vec<String> {
        self.not_connected.lock().expect("no panic").clone()
    }

    fn send(self: Arc<Self>, targets: &[Target], probed: &Probed) {
        let mut sockets: Vec<UdpSocket> = targets.iter().map(|target| socket(target.address)).collect();
        let mut fresh: Option<Vec<UdpSocket>> = None;
        for round in 0.. {
            let ended = self.ended();
            if ended.is_some_and(|ended| ended.elapsed() > Duration::from_secs(1)) {
                break;
            }
            if round % ROUNDS == 0 && self.addressed().is_some() {
                for (socket_of, target) in sockets.iter_mut().zip(targets) {
                    if !target.is_friend {
                        *socket_of = socket(target.address);
                    }
                }
            }
            if fresh.is_none() && self.ready.load(Ordering::Relaxed) {
                // The first packets of flows that begin when the pod is Ready.
                fresh = Some(targets.iter().map(|target| socket(target.address)).collect());
                let (connecting, targets) = (Arc::clone(&self), targets.to_vec());
                let inside = Netns::open("/proc/thread-self/ns/net".as_ref()).expect("this network");
                thread::spawn(move || {
                    inside.enter();
                    connecting.connect(&targets);
                });
            }
            // Without a route nothing leaves.
            if self.addressed().is_some() || self.has_route(&sockets, targets) {
                self.look_for_addresses(probed);
                for set in [Some(&sockets), fresh.as_ref()].into_iter().flatten() {
                    if ended.is_none() {
                        self.send_round(set, targets);
                    }
                    self.take_answers(set);
                }
            }
            let young = self.addressed().is_none_or(|when| when.elapsed() < EAGER_FOR);
            thread::sleep(if young { EAGER } else { STEADY });
        }
        probed.remove(self.addresses());
        // Its sockets keep the namespace alive: what it has heard stays, and it goes.
        let listener = self.listener.lock().expect("no panic").take();
        if let Some(listener) = listener {
            self.kept
                .lock()
                .expect("no panic")
                .append(&mut listener.received());
        }
    }

    /// Tells by a packet to each family, which counts as others do.
    fn has_route(&self, sockets: &[UdpSocket], targets: &[Target]) -> bool {
        let first = |v6: bool| targets.iter().position(|target| target.address.is_ipv6() == v6);
        let numbers = [first(false), first(true)].into_iter().flatten();
        let sent = numbers.map(|number| self.send_one(number, &sockets[number], &targets[number]));
        sent.collect::<Vec<_>>().contains(&true)
    }

    fn look_for_addresses(&self, probed: &Probed) {
        if self.addresses.get().is_some() {
            return;
        }
        let own = own_addresses();
        if own.iter().any(IpAddr::is_ipv4) && own.iter().any(IpAddr::is_ipv6) {
            probed.add(&own);
            let _ = self.addresses.set((own, Instant::now()));
        }
    }

    fn send_round(&self, sockets: &[UdpSocket], targets: &[Target]) {
        for (number, (socket, target)) in sockets.iter().zip(targets).enumerate() {
            self.send_one(number, socket, target);
        }
    }

    /// Fails while there is no route.
    fn send_one(&self, number: usize, socket: &UdpSocket, target: &Target) -> bool {
        let own = &mut self.probes()[number];
        let text = own.len().to_string();
        let sent = socket.send_to(text.as_bytes(), (target.address, PORT)).is_ok();
        if sent {
            own.push((Instant::now(), None));
        }
        sent
    }

    fn take_answers(&self, sockets: &[UdpSocket]) {
        let mut buffer = [0; 64];
        for (number, socket) in sockets.iter().enumerate() {
            loop {
                match socket.recv(&mut buffer) {
                    Ok(length) => {
                        let text = String::from_utf8_lossy(&buffer[..length]);
                        let probe: Option<usize> = text.parse().ok();
                        let mut probes = self.probes();
                        let probe = probe.and_then(|probe| probes[number].get_mut(probe));
                        if let Some((_, answered)) = probe {
                            answered.get_or_insert(Instant::now());
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // That of an earlier packet.
                    Err(_) => {}
                }
            }
        }
    }

    /// To each friend, at once where it is on the same node: a segment that was sent twice was refused once. The other
    /// nodes learn of the pod while TCP asks again.
    fn connect(&self, targets: &[Target]) {
        let mut wrong = Vec::new();
        let before = retransmissions();
        let friends = targets.iter().filter(|target| target.is_friend);
        let (here, elsewhere): (Vec<_>, Vec<_>) = friends.partition(|target| target.node == self.node);
        let connect = |target: &Target| {
            let address = SocketAddr::from((target.address, PORT));
            let connected = TcpStream::connect_timeout(&address, CONNECT);
            let error = connected.err()?;
            Some(format!("{:?} to {address}: {error}", self.addresses()))
        };
        wrong.extend(here.into_iter().filter_map(connect));
        let again = retransmissions() - before;
        if again > 0 {
            wrong.push(format!(
                "{:?}: {again} segments were sent again",
                self.addresses()
            ));
        }
        wrong.extend(elsewhere.into_iter().filter_map(connect));
        self.not_connected.lock().expect("no panic").append(&mut wrong);
    }
}

/// Not connected: that would take a route.
fn socket(family_of: IpAddr) -> UdpSocket {
    let any = match family_of {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).expect("a socket");
    socket.set_nonblocking(true).expect("set");
    socket
}
