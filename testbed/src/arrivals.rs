//! What has reached a place, as its kernel counts it: also what no program there asked for.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Sub;

use anyhow::{Context, Result};

use crate::place::Place;

/// Counts since the namespace was made, both families together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// Segments, also those that no socket wanted.
    pub tcp: u64,
    /// Datagrams, also those that no socket wanted, and whatever else is neither TCP nor ICMP.
    pub udp: u64,
    pub echo_requests: u64,
    /// Segments that were sent once more. Not an arrival, but from the same table.
    pub tcp_sent_again: u64,
}

impl Place {
    /// What has reached the transport layer here so far, loopback included.
    pub fn arrivals(&self) -> Result<Arrivals> {
        let (v4, v6) = self.run(read_at_rest)?.context("the counters of IP")?;
        let (v4, v6) = (counters4(&v4), counters6(&v6));
        let of =
            |counters: &BTreeMap<String, u64>, name: &str| counters.get(name).copied().unwrap_or_default();
        // The kernel counts TCP of both families in one, and a datagram only once somebody has read it.
        let tcp = of(&v4, "Tcp.InSegs");
        let delivered = of(&v4, "Ip.InDelivers") + of(&v6, "Ip6InDelivers");
        let others = tcp + of(&v4, "Icmp.InMsgs") + of(&v6, "Icmp6InMsgs");
        Ok(Arrivals {
            tcp,
            udp: delivered.saturating_sub(others),
            echo_requests: of(&v4, "Icmp.InEchos") + of(&v6, "Icmp6InEchos"),
            tcp_sent_again: of(&v4, "Tcp.RetransSegs"),
        })
    }
}

/// Readings of a busy place, which may never be at rest.
const READINGS: usize = 20;

/// `net/snmp` and `net/snmp6` as they are twice in a row: a packet that arrives while they are read is in some of the
/// counters only, and would be taken for one of another protocol.
fn read_at_rest() -> io::Result<(String, String)> {
    // Of the thread: `/proc/net` is the process's own namespace.
    let read = |file: &str| fs::read_to_string(format!("/proc/thread-self/net/{file}"));
    let mut last = (read("snmp")?, read("snmp6")?);
    for _ in 1..READINGS {
        let next = (read("snmp")?, read("snmp6")?);
        if next == last {
            break;
        }
        last = next;
    }
    Ok(last)
}

impl Sub for Arrivals {
    type Output = Arrivals;

    fn sub(self, earlier: Arrivals) -> Arrivals {
        Arrivals {
            tcp: self.tcp - earlier.tcp,
            udp: self.udp - earlier.udp,
            echo_requests: self.echo_requests - earlier.echo_requests,
            tcp_sent_again: self.tcp_sent_again - earlier.tcp_sent_again,
        }
    }
}

/// Pairs of lines: `Tcp: NAME NAME`, `Tcp: VALUE VALUE`. A value may be negative where it is no counter.
fn counters4(text: &str) -> BTreeMap<String, u64> {
    let lines: Vec<&str> = text.lines().collect();
    let mut counters = BTreeMap::new();
    for pair in lines.chunks(2) {
        let [names, values] = pair else { continue };
        let Some((group, names)) = names.split_once(':') else {
            continue;
        };
        let values = values.split_whitespace().skip(1);
        for (name, value) in names.split_whitespace().zip(values) {
            if let Ok(value) = value.parse() {
                counters.insert(format!("{group}.{name}"), value);
            }
        }
    }
    counters
}

/// `NAME VALUE` a line.
fn counters6(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_string(), words.next()?.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tables_are_read() {
        let v4 = "Tcp: RtoAlgorithm MaxConn InSegs RetransSegs\nTcp: 1 -1 12 3\nUdp: InDatagrams NoPorts\nUdp: 4 5\n";
        let expected = [
            ("Tcp.InSegs", 12),
            ("Tcp.RetransSegs", 3),
            ("Tcp.RtoAlgorithm", 1),
            ("Udp.InDatagrams", 4),
            ("Udp.NoPorts", 5),
        ];
        let expected: BTreeMap<String, u64> = expected.map(|(name, value)| (name.to_string(), value)).into();
        assert_eq!(counters4(v4), expected);
        let v6 = "Ip6InReceives                   \t7\nUdp6NoPorts                     \t8\n";
        let expected: BTreeMap<String, u64> = [("Ip6InReceives", 7), ("Udp6NoPorts", 8)]
            .map(|(name, value)| (name.to_string(), value))
            .into();
        assert_eq!(counters6(v6), expected);
    }
}
