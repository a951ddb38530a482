//! Traffic between places, and a judgement of it.
//!
//! Each piece of traffic is a [`Request`] that the program `weir-traffic` carries out in a process of its
//! own, since that is what a control group holds; it prints a report as a line of JSON. [`Place`]'s methods
//! start it and read the report.
//!
//! A server sends a [`Greeting`] first, so that a client behind a Service learns which backend it has got
//! and as whom that backend sees it; then it echoes.
//!
//! [`Place`]: crate::Place

mod half_close;
mod icmp;
mod launch;
mod report;
mod request;
mod server;
mod stream;
mod tally;
mod tcp;
mod udp;

pub use crate::launch::READY;
pub use half_close::half_close;
pub use icmp::icmp;
pub use launch::RunningStream;
pub use report::{
    Greeting, HalfCloseReport, IcmpReport, Outcome, StreamLine, StreamReport, TcpReport, UdpReport,
};
pub(crate) use request::arguments;
pub use request::{HalfClose, Icmp, Protocol, Request, Serve, Stream, Tcp, Udp};
pub use server::serve;
pub use stream::stream;
pub use tcp::tcp;
pub use udp::udp;
