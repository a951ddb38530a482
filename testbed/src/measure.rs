//! Measuring a path: round trips, connections, datagrams, bytes.
//!
//! Client and server share one CPU in real time (`SCHED_FIFO`). A rate is then the inverse of all the CPU
//! time that the path costs, on both sides and in between, and what else the machine does hardly shows.
//! Figures mean something beside those of another path taken in turn with it, a bare veth pair above all.
//!
//! The program `weir-netperf` is both sides; [`Place`]'s methods start it.
//!
//! [`Place`]: crate::Place

mod batch;
mod client;
mod launch;
mod server;

use std::net::IpAddr;

use clap::{Args, Subcommand, ValueEnum};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

pub use client::measure;
pub use server::serve;

/// Datagrams in one system call.
pub(crate) const BATCH: usize = 32;

/// A server's ports, counted from its first.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Port {
    TcpEcho = 0,
    TcpSink = 1,
    UdpEcho = 2,
    UdpSink = 3,
    /// Answers each byte with a [`Received`] in JSON and a newline.
    Control = 4,
}

impl Port {
    pub(crate) fn from(self, first: u16) -> u16 {
        first.saturating_add(self as u16)
    }
}

/// What a server's sinks have taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Received {
    pub(crate) tcp_bytes: u64,
    pub(crate) datagrams: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Subcommand)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Answer until killed; prints `ready` once all ports are bound
    Serve(Serve),
    /// Measure once, and print a line of JSON
    Measure(Measure),
}

/// Five ports in a row, of all addresses.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Serve {
    #[arg(long, default_value_t = 7000)]
    pub port: u16,
    /// Run on this CPU only
    #[arg(long)]
    pub cpu: Option<usize>,
}

#[derive(Args, Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Measure {
    #[arg(long)]
    pub test: Test,
    #[arg(long)]
    pub to: IpAddr,
    /// The server's first port
    #[arg(long, default_value_t = 7000)]
    pub port: u16,
    #[arg(long, default_value_t = 0.5)]
    pub seconds: f64,
    /// Of a message, a datagram, or one call to send
    #[arg(long, default_value_t = 1)]
    pub bytes: usize,
    /// Run on this CPU only
    #[arg(long)]
    pub cpu: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Test {
    /// Round trips on one connection
    TcpRr,
    /// Connect, one round trip, close by FIN
    TcpCrr,
    /// Round trips of datagrams
    UdpRr,
    /// Datagrams one way, 32 to a system call
    UdpPps,
    /// Bytes one way
    TcpStream,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub test: Test,
    /// It took so long.
    pub seconds: f64,
    /// Round trips, connections, datagrams sent, or calls to send.
    pub operations: u64,
    /// Operations that failed. They are not in `operations`.
    pub errors: u64,
    /// Of an operation.
    pub latency: Option<Latency>,
    /// Of its part from the SYN to the SYN-ACK.
    pub connect: Option<Latency>,
    /// What the server got of a one-way test: datagrams or bytes.
    pub received: Option<u64>,
}

impl Sample {
    /// Operations a second.
    pub fn rate(&self) -> f64 {
        self.operations as f64 / self.seconds
    }

    /// Received a second: datagrams or bytes.
    pub fn receive_rate(&self) -> Option<f64> {
        self.received.map(|received| received as f64 / self.seconds)
    }

    /// What an operation costs, in nanoseconds of one CPU.
    pub fn nanos_each(&self) -> f64 {
        self.seconds * 1e9 / self.operations as f64
    }
}

/// In nanoseconds, to three digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    pub min: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

impl Latency {
    /// `None` of nothing.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Option<Latency> {
        (!histogram.is_empty()).then(|| Latency {
            min: histogram.min(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        })
    }
}

fn pin(cpu: Option<usize>) -> anyhow::Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    let mut set = nix::sched::CpuSet::new();
    set.set(cpu)?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)
        .map_err(|errno| anyhow::anyhow!("run on CPU {cpu}: {errno}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let mut histogram = Histogram::new(3).expect("a histogram");
        assert_eq!(Latency::of(&histogram), None);
        for value in 1..=1000 {
            histogram.record(value).expect("recorded");
        }
        let expected = Latency {
            min: 1,
            p50: 500,
            p90: 900,
            p99: 990,
            p999: 999,
            max: 1000,
        };
        assert_eq!(Latency::of(&histogram), Some(expected));
    }

    #[test]
    fn figures_follow_from_counts() {
        let sample = Sample {
            test: Test::UdpPps,
            seconds: 0.5,
            operations: 1_000_000,
            errors: 0,
            latency: None,
            connect: None,
            received: Some(900_000),
        };
        let figures = [
            sample.rate(),
            sample.nanos_each(),
            sample.receive_rate().expect("a rate"),
        ];
        assert_eq!(figures.map(f64::round), [2_000_000.0, 500.0, 1_800_000.0]);
    }
}
