//! Sends to every pod that there is, all the time, from one that stays.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::PORT;
use crate::cluster_bed::netns::Netns;
use crate::cluster_bed::pods::Pod;
use crate::newcomer::Probe;

/// Between two rounds: for pods that are new, and for the others.
const EAGER: Duration = Duration::from_millis(5);
const EAGER_FOR: Duration = Duration::from_secs(1);
const STEADY_ROUNDS: usize = 10;

/// Connections to pods that are new are tried every so many rounds, and given up at the next try: nothing is sent
/// twice.
const CONNECT_ROUNDS: usize = 8;

/// The pods that are sent to, and what was sent to each by whom.
#[derive(Debug, Clone, Default)]
pub(crate) struct Probed(Arc<Mutex<Everything>>);

#[derive(Debug, Default)]
struct Everything {
    targets: BTreeMap<IpAddr, Instant>,
    probes: BTreeMap<(String, IpAddr), Vec<Probe>>,
}

impl Probed {
    pub(crate) fn add(&self, addresses: &[IpAddr]) {
        let new = addresses.iter().map(|address| (*address, Instant::now()));
        self.0.lock().expect("no panic").targets.extend(new);
    }

    pub(crate) fn remove(&self, addresses: &[IpAddr]) {
        let mut all = self.0.lock().expect("no panic");
        for address in addresses {
            all.targets.remove(address);
        }
    }

    pub(crate) fn of(&self, prober: &str, address: IpAddr) -> Vec<Probe> {
        let all = self.0.lock().expect("no panic");
        all.probes
            .get(&(prober.to_owned(), address))
            .cloned()
            .unwrap_or_default()
    }

    fn targets(&self) -> Vec<(IpAddr, Instant)> {
        let all = self.0.lock().expect("no panic");
        all.targets
            .iter()
            .map(|(address, since)| (*address, *since))
            .collect()
    }
}

pub(crate) struct Prober {
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) is_friend: bool,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Prober {
    pub(crate) fn start(netns: &Netns, pod: &Pod, is_friend: bool, probed: &Probed) -> Self {
        let over = Arc::<AtomicBool>::default();
        let (end, netns, name, probed) = (Arc::clone(&over), netns.clone(), pod.name.clone(), probed.clone());
        let thread = thread::spawn(move || {
            netns.enter();
            probe(&name, is_friend, &probed, &end);
        });
        Self {
            name: pod.name.clone(),
            node: pod.node.clone(),
            is_friend,
            over,
            thread: Some(thread),
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn probe(name: &str, is_friend: bool, probed: &Probed, over: &AtomicBool) {
    let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    let v6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("a socket");
    for socket in [&v4, &v6] {
        socket.set_nonblocking(true).expect("set");
    }
    let mut connecting = Vec::new();
    for round in 0.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let targets = probed.targets();
        for &(address, since) in &targets {
            if since.elapsed() > EAGER_FOR && round % STEADY_ROUNDS != 0 {
                continue;
            }
            let mut all = probed.0.lock().expect("no panic");
            let probes = all.probes.entry((name.to_owned(), address)).or_default();
            let text = format!("{} {name}", probes.len());
            let socket = if address.is_ipv4() { &v4 } else { &v6 };
            if socket.send_to(text.as_bytes(), (address, PORT)).is_ok() {
                probes.push((Instant::now(), None));
            }
        }
        take_answers(name, &[&v4, &v6], probed);
        if !is_friend && round % CONNECT_ROUNDS == 0 {
            connecting.clear();
            let new = targets
                .iter()
                .filter(|(_, since)| since.elapsed() < EAGER_FOR * 3);
            connecting.extend(new.map(|(address, _)| connect(*address)));
        }
        thread::sleep(EAGER);
    }
}

fn connect(target: IpAddr) -> Socket {
    let address = SocketAddr::from((target, PORT));
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    socket.set_nonblocking(true).expect("set");
    // It is under way when this returns.
    let _ = socket.connect(&address.into());
    socket
}

fn take_answers(name: &str, sockets: &[&UdpSocket], probed: &Probed) {
    let mut buffer = [0; 256];
    for socket in sockets {
        loop {
            match socket.recv_from(&mut buffer) {
                Ok((length, from)) => {
                    let text = String::from_utf8_lossy(&buffer[..length]);
                    let number = text
                        .split(' ')
                        .next()
                        .and_then(|number| number.parse::<usize>().ok());
                    let mut all = probed.0.lock().expect("no panic");
                    let probes = all.probes.get_mut(&(name.to_owned(), from.ip()));
                    let probe = probes.and_then(|probes| probes.get_mut(number?));
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
