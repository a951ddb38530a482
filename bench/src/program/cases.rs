//! What is measured: each kind of packet that matters, and how often.

use std::net::SocketAddr;

use anyhow::Result;
use weir_abi::reason::Reason;

use super::packet::{Kind, packet};
use super::scene::{Host, Interfaces, SERVER_PORT, SERVICE, SERVICE_PORT};
use crate::figure::Goal;
use crate::floor;

/// How a case's packets get to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// To a program of the bench object.
    Floor(&'static str),
    /// Through `restore` to the empty program, the same packet each time: what [`Run::Restored`] costs by itself.
    EmptyRestored,
    /// Likewise, from another port each time: what [`Run::Opening`] costs by itself.
    EmptyOpening,
    /// To `from_pod`, again and again: it changes nothing in the packet that it looks at.
    Repeated,
    /// To `from_pod`, put back each time.
    Restored,
    /// To `from_pod`, from another source port each time.
    Opening,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Case {
    pub(super) what: &'static str,
    pub(super) metric: &'static str,
    pub(super) run: Run,
    /// Packets a round.
    pub(super) repeat: u32,
    /// The interface that it comes from, by its index.
    pub(super) ifindex: u32,
    pub(super) packet: Vec<u8>,
    /// What was there before: interface and packet.
    pub(super) before: Vec<(u32, Vec<u8>)>,
    /// Why every one of the packets leaves; `None` where no program of Weir's sees them.
    pub(super) reason: Option<Reason>,
    /// A `TC_ACT_*` number.
    pub(super) action: i32,
    pub(super) goal: Goal,
}

const TC_ACT_OK: i32 = 0;
const TC_ACT_SHOT: i32 = 2;
const TC_ACT_REDIRECT: i32 = 7;

const ESTABLISHED: Goal = Goal::AtMost(50.0);
const NEW: Goal = Goal::AtMost(260.0);
const SERVICE_ESTABLISHED: Goal = Goal::AtMost(65.0);

const OFTEN: u32 = 200_000;
const QUICK: u32 = 10_000;
/// New connections a round that keep to one part of the flow table, as they would at ten thousand a second.
const HOT: u32 = 4_096;
/// New connections a round that meet most of it for the first time.
const COLD: u32 = 30_000;

const CLIENT_PORT: u16 = 50_000;

pub(super) fn cases(interfaces: &Interfaces, quick: bool) -> Result<Vec<Case>> {
    let cases = Cases {
        interfaces: *interfaces,
        often: if quick { QUICK } else { OFTEN },
    };
    let mut all = cases.beside_weir()?;
    all.extend(cases.established()?);
    all.extend(cases.opened()?);
    all.extend(cases.service()?);
    all.push(cases.denied()?);
    Ok(all)
}

struct Cases {
    interfaces: Interfaces,
    often: u32,
}

const V4: (SocketAddr, SocketAddr) = (Host::Client.v4(CLIENT_PORT), Host::Server.v4(SERVER_PORT));
const V6: (SocketAddr, SocketAddr) = (Host::Client.v6(CLIENT_PORT), Host::Server.v6(SERVER_PORT));

impl Cases {
    fn beside_weir(&self) -> Result<Vec<Case>> {
        let packet4 = packet(Kind::Udp, V4.0, V4.1)?;
        let packet6 = packet(Kind::Udp, V6.0, V6.1)?;
        let case = |what, metric, run, packet: &[u8], action| Case {
            action,
            ..self.case(what, metric, run, packet.to_vec())
        };
        Ok(vec![
            case(
                "empty program",
                "empty",
                Run::Floor(floor::EMPTY),
                &packet4,
                TC_ACT_OK,
            ),
            case(
                "empty, put back",
                "restored",
                Run::EmptyRestored,
                &packet4,
                TC_ACT_OK,
            ),
            case(
                "empty, from another port",
                "opening",
                Run::EmptyOpening,
                &packet4,
                TC_ACT_OK,
            ),
            case(
                "smallest redirect_peer, v4",
                "floor.v4",
                Run::Floor(floor::PEER4),
                &packet4,
                TC_ACT_REDIRECT,
            ),
            case(
                "smallest redirect_peer, v6",
                "floor.v6",
                Run::Floor(floor::PEER6),
                &packet6,
                TC_ACT_REDIRECT,
            ),
        ])
    }

    fn established(&self) -> Result<Vec<Case>> {
        let names = [
            ("established UDP, v4", "established.udp4", Kind::Udp, V4),
            ("established TCP, v4", "established.tcp4", Kind::Ack, V4),
            ("established UDP, v6", "established.udp6", Kind::Udp, V6),
            ("established TCP, v6", "established.tcp6", Kind::Ack, V6),
        ];
        let case = |(what, metric, kind, (from, to))| {
            Ok(Case {
                before: self.exchange(kind, from, to, to)?,
                reason: Some(Reason::Established),
                goal: ESTABLISHED,
                ..self.case(what, metric, Run::Repeated, packet(kind, from, to)?)
            })
        };
        names.into_iter().map(case).collect()
    }

    fn opened(&self) -> Result<Vec<Case>> {
        let quiet = (V4.0, Host::QuietServer.v4(SERVER_PORT));
        let names = [
            ("new TCP, logged, v4", "new.tcp4", Kind::Syn, V4, HOT, NEW),
            ("new UDP, logged, v4", "new.udp4", Kind::Udp, V4, HOT, NEW),
            ("new TCP, logged, v6", "new.tcp6", Kind::Syn, V6, HOT, NEW),
            ("new UDP, logged, v6", "new.udp6", Kind::Udp, V6, HOT, NEW),
            (
                "new TCP, not logged, v4",
                "new.unlogged",
                Kind::Syn,
                quiet,
                HOT,
                NEW,
            ),
            (
                "new TCP, logged, v4, cold",
                "new.cold",
                Kind::Syn,
                V4,
                COLD,
                Goal::None,
            ),
        ];
        let case = |(what, metric, kind, (from, to), repeat, goal)| {
            Ok(Case {
                repeat,
                reason: Some(Reason::Allowed),
                goal,
                ..self.case(what, metric, Run::Opening, packet(kind, from, to)?)
            })
        };
        names.into_iter().map(case).collect()
    }

    /// By packet: what a socket's translation does not reach.
    fn service(&self) -> Result<Vec<Case>> {
        let service = SocketAddr::new(SERVICE.into(), SERVICE_PORT);
        Ok(vec![
            Case {
                before: self.exchange(Kind::Ack, V4.0, service, V4.1)?,
                reason: Some(Reason::Established),
                goal: SERVICE_ESTABLISHED,
                ..self.case(
                    "established TCP to a Service, v4",
                    "service.established",
                    Run::Restored,
                    packet(Kind::Ack, V4.0, service)?,
                )
            },
            Case {
                repeat: HOT,
                reason: Some(Reason::Allowed),
                ..self.case(
                    "new TCP to a Service, logged, v4",
                    "service.new",
                    Run::Opening,
                    packet(Kind::Syn, V4.0, service)?,
                )
            },
        ])
    }

    fn denied(&self) -> Result<Case> {
        let from = Host::Stranger.v4(CLIENT_PORT);
        Ok(Case {
            repeat: self.often.min(COLD),
            ifindex: self.interfaces.stranger,
            reason: Some(Reason::Isolated),
            action: TC_ACT_SHOT,
            ..self.case(
                "denied TCP, logged, v4",
                "denied",
                Run::Repeated,
                packet(Kind::Syn, from, V4.1)?,
            )
        })
    }

    /// A connection of the client's through which packets of this kind go both ways. `behind` answers for `to`.
    fn exchange(
        &self,
        kind: Kind,
        from: SocketAddr,
        to: SocketAddr,
        behind: SocketAddr,
    ) -> Result<Vec<(u32, Vec<u8>)>> {
        let (first, answer) = if kind == Kind::Udp {
            (kind, kind)
        } else {
            (Kind::Syn, Kind::SynAck)
        };
        Ok(vec![
            (self.interfaces.client, packet(first, from, to)?),
            (self.interfaces.server, packet(answer, behind, from)?),
            (self.interfaces.client, packet(kind, from, to)?),
        ])
    }

    /// From the client, to where it is led.
    fn case(&self, what: &'static str, metric: &'static str, run: Run, packet: Vec<u8>) -> Case {
        Case {
            what,
            metric,
            run,
            repeat: self.often,
            ifindex: self.interfaces.client,
            packet,
            before: Vec::new(),
            reason: None,
            action: TC_ACT_REDIRECT,
            goal: Goal::None,
        }
    }
}
