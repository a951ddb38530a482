//! A way from a client to a server, and what it should cost at most.

use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use weir_testbed::Place;
use weir_testbed::measure::{Measure, Test};

use crate::figure::Goal;

/// The server's first port.
pub(super) const PORT: u16 = 7000;

/// Bare veth pairs, by family.
pub(super) const BASE4: &str = "direct";
pub(super) const BASE6: &str = "direct-v6";

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub(super) struct Path {
    pub(super) name: &'static str,
    /// The bare pair that it is compared with; itself, if it is one.
    pub(super) base: &'static str,
    pub(super) client: Place,
    pub(super) to: IpAddr,
    pub(super) goals: Goals,
}

/// Of what a path adds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Goals {
    /// Nanoseconds a packet.
    pub(super) udp: Goal,
    /// Nanoseconds a round trip.
    pub(super) tcp_rr: Goal,
    /// Share of the bare pair's connections.
    pub(super) tcp_crr: Goal,
}

impl Goals {
    pub(super) const NONE: Goals = Goals {
        udp: Goal::None,
        tcp_rr: Goal::None,
        tcp_crr: Goal::None,
    };
    /// Of a pair that is the same as the bare one.
    pub(super) const SAME: Goals = Goals {
        udp: Goal::Around {
            center: 0.0,
            tolerance: 15.0,
        },
        tcp_rr: Goal::Around {
            center: 0.0,
            tolerance: 48.0,
        },
        tcp_crr: Goal::Around {
            center: 1.0,
            tolerance: 0.02,
        },
    };
    pub(super) const POD: Goals = Goals {
        udp: Goal::AtMost(90.0),
        tcp_rr: Goal::AtMost(400.0),
        tcp_crr: Goal::AtLeast(0.95),
    };
    /// The same and 15 %.
    pub(super) const POD_V6: Goals = Goals {
        udp: Goal::AtMost(103.5),
        tcp_rr: Goal::AtMost(460.0),
        tcp_crr: Goal::AtLeast(0.95),
    };
    /// Translated at connect, so that nothing is left to do a packet.
    pub(super) const SERVICE: Goals = Goals {
        udp: Goal::AtMost(90.0),
        tcp_rr: Goal::AtMost(400.0),
        tcp_crr: Goal::AtLeast(0.94),
    };
}

impl Path {
    pub(super) fn is_base(&self) -> bool {
        self.name == self.base
    }

    pub(super) fn wait_until_it_works(&self, cpu: usize) -> Result<()> {
        let start = Instant::now();
        while !answers(&self.client, self.to, cpu)? {
            if start.elapsed() > PATIENCE {
                bail!("{}: {} does not answer within {PATIENCE:?}", self.name, self.to);
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// Whether a datagram comes back.
pub(super) fn answers(client: &Place, to: IpAddr, cpu: usize) -> Result<bool> {
    let measure = Measure {
        test: Test::UdpRr,
        to,
        port: PORT,
        seconds: 0.01,
        bytes: 1,
        cpu: Some(cpu),
    };
    Ok(client.measure(&measure)?.operations > 0)
}
