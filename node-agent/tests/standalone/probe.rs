//! One question about the network, and what it comes to in each family.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use weir_testbed::Place;
use weir_testbed::traffic::{self, Icmp, Outcome, Tcp, Udp};

use crate::address::{Address, End, family};
use crate::wait::until;

/// Of a probe that gets no answer.
const TIMEOUT: Duration = Duration::from_millis(400);

#[derive(Clone, Debug)]
pub(crate) struct Probe {
    from: End,
    to: Address,
    kind: Kind,
    by_socket: bool,
    /// Bound to before anything is sent.
    source: Option<Address>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Tcp { port: u16 },
    Udp { port: u16, bytes: usize },
    Echo { bytes: usize },
}

/// A connection, greeted and echoed.
pub(crate) fn tcp(from: &End, to: &impl AsRef<Address>, port: u16) -> Probe {
    Probe::new(from, to, Kind::Tcp { port })
}

/// A datagram, echoed.
pub(crate) fn udp(from: &End, to: &impl AsRef<Address>, port: u16) -> Probe {
    Probe::new(from, to, Kind::Udp { port, bytes: 64 })
}

/// As [`udp`], in fragments.
pub(crate) fn large_udp(from: &End, to: &impl AsRef<Address>, port: u16) -> Probe {
    Probe::new(from, to, Kind::Udp { port, bytes: 9000 })
}

/// An ICMP echo request.
pub(crate) fn echo(from: &End, to: &impl AsRef<Address>) -> Probe {
    Probe::new(from, to, Kind::Echo { bytes: 56 })
}

/// As [`echo`], in fragments.
pub(crate) fn large_echo(from: &End, to: &impl AsRef<Address>) -> Probe {
    Probe::new(from, to, Kind::Echo { bytes: 9000 })
}

impl Probe {
    fn new(from: &End, to: &impl AsRef<Address>, kind: Kind) -> Probe {
        Probe {
            from: from.clone(),
            to: to.as_ref().clone(),
            kind,
            by_socket: false,
            source: None,
        }
    }

    /// From a process in the place's control group, where the agent's socket programs are.
    pub(crate) fn by_socket(self) -> Probe {
        Probe {
            by_socket: true,
            ..self
        }
    }

    pub(crate) fn with_source(self, source: &Address) -> Probe {
        Probe {
            source: Some(source.clone()),
            ..self
        }
    }

    pub(crate) fn answered(self) -> (Probe, Outcome) {
        (self, Outcome::Answered)
    }

    /// Nothing comes back.
    pub(crate) fn silent(self) -> (Probe, Outcome) {
        (self, Outcome::TimedOut)
    }

    fn name(&self, index: usize) -> String {
        let (from, to) = (&self.from.address.name, &self.to.name);
        let mut name = match self.kind {
            Kind::Tcp { port } => format!("{from} → {to} tcp/{port}"),
            Kind::Udp { port, bytes } => format!("{from} → {to} udp/{port}, {bytes} bytes"),
            Kind::Echo { bytes } => format!("{from} → {to} echo, {bytes} bytes"),
        };
        if self.by_socket {
            name += ", by socket";
        }
        if let Some(source) = &self.source {
            let _ = write!(name, ", as {}", source.name);
        }
        format!("{name}, {}", family(self.to.ips[index]))
    }

    fn ask(&self, index: usize) -> Result<Outcome> {
        let ip = self.to.ips[index];
        let from = self
            .source
            .as_ref()
            .map(|source| SocketAddr::new(source.ips[index], 0));
        let place = &self.from.place;
        match self.kind {
            Kind::Tcp { port } => {
                let request = Tcp {
                    from,
                    ..Tcp::to((ip, port).into()).timeout(TIMEOUT)
                };
                Ok(self.report(place, Place::tcp, traffic::tcp, &request)?.outcome)
            }
            Kind::Udp { port, bytes } => {
                let request = Udp {
                    from,
                    ..Udp::to((ip, port).into()).timeout(TIMEOUT).bytes(bytes)
                };
                Ok(self.report(place, Place::udp, traffic::udp, &request)?.outcome)
            }
            // A process each: the answers are told apart by its number.
            Kind::Echo { bytes } => Ok(place.icmp(&Icmp::to(ip).timeout(TIMEOUT).bytes(bytes))?.outcome),
        }
    }

    /// By packet it is this process that sends, from the place's namespace: it is in none of the agent's control
    /// groups, so that a Service is met by its packets only.
    fn report<Q: Sync, R: Send>(
        &self,
        place: &Place,
        process: fn(&Place, &Q) -> Result<R>,
        thread: fn(&Q) -> R,
        request: &Q,
    ) -> Result<R> {
        if self.by_socket {
            process(place, request)
        } else {
            place.run(|| thread(request))
        }
    }
}

/// Waits until all probes come to what is expected of them.
pub(crate) fn expect(expected: &[(Probe, Outcome)]) -> Result<()> {
    until("the probes do not come to what they should", || {
        Ok(compare(expected, &ask_all(expected)?))
    })
}

/// As [`expect`], without waiting: what was in force before is in force now.
pub(crate) fn expect_at_once(expected: &[(Probe, Outcome)]) -> Result<()> {
    compare(expected, &ask_all(expected)?)
        .map_err(|instead| anyhow::anyhow!("the probes do not come to what they should:\n{instead}"))
}

/// All of them side by side: those that get no answer cost time.
fn ask_all(probes: &[(Probe, Outcome)]) -> Result<Vec<[Outcome; 2]>> {
    thread::scope(|scope| {
        let asked: Vec<_> = probes
            .iter()
            .map(|(probe, _)| [0, 1].map(|index| scope.spawn(move || probe.ask(index))))
            .collect();
        let join = |asked: thread::ScopedJoinHandle<'_, Result<Outcome>>| match asked.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        asked
            .into_iter()
            .map(|[v4, v6]| Ok([join(v4)?, join(v6)?]))
            .collect()
    })
}

fn compare(expected: &[(Probe, Outcome)], seen: &[[Outcome; 2]]) -> Result<(), String> {
    let mut differences = String::new();
    for ((probe, wanted), outcomes) in expected.iter().zip(seen) {
        for (index, outcome) in outcomes
            .iter()
            .enumerate()
            .filter(|(_, outcome)| *outcome != wanted)
        {
            let _ = writeln!(
                differences,
                "  {}: {outcome:?} and not {wanted:?}",
                probe.name(index)
            );
        }
    }
    if differences.is_empty() {
        Ok(())
    } else {
        Err(differences)
    }
}
