//! How traffic went.

use std::io;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// How an exchange ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All of it was answered, and the answer was right.
    Answered,
    /// The other side refused: a TCP reset to a SYN, an ICMP port unreachable.
    Refused,
    /// Nothing came in time.
    TimedOut,
    /// The network said that it does not go: no route, or an ICMP error but that of a port.
    Unreachable,
    /// The kernel forbade it on this side, as a control group's program can.
    NotPermitted,
    /// An established connection was reset.
    Reset,
    /// The other side closed early.
    Closed,
    /// The answer was another than what was sent.
    WrongAnswer,
    /// Anything else.
    Failed(String),
}

impl Outcome {
    pub(crate) fn of(error: &io::Error) -> Outcome {
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => Outcome::Refused,
            Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EACCES) => Outcome::Unreachable,
            Some(libc::EPERM) => Outcome::NotPermitted,
            Some(libc::ECONNRESET | libc::EPIPE) => Outcome::Reset,
            Some(libc::EAGAIN | libc::ETIMEDOUT) => Outcome::TimedOut,
            _ if error.kind() == io::ErrorKind::TimedOut => Outcome::TimedOut,
            _ if error.kind() == io::ErrorKind::UnexpectedEof => Outcome::Closed,
            _ if error.kind() == io::ErrorKind::InvalidData => Outcome::WrongAnswer,
            _ => Outcome::Failed(error.to_string()),
        }
    }
}

impl<T> From<&io::Result<T>> for Outcome {
    fn from(result: &io::Result<T>) -> Outcome {
        result.as_ref().map_or_else(Outcome::of, |_| Outcome::Answered)
    }
}

/// What a server says of itself and of the connection as it sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// The server's name.
    pub server: String,
    /// Where the server was reached; for UDP, where it listens.
    pub local: SocketAddr,
    /// The client, as the server sees it.
    pub peer: SocketAddr,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TcpReport {
    pub outcome: Outcome,
    /// Whether the handshake came to its end.
    pub connected: bool,
    /// `getsockname`, once connected.
    pub local: Option<SocketAddr>,
    /// `getpeername`, once connected.
    pub peer: Option<SocketAddr>,
    pub greeting: Option<Greeting>,
    /// Until connected, or until that failed.
    pub connect_millis: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UdpReport {
    pub outcome: Outcome,
    /// `getsockname`, once sent.
    pub local: Option<SocketAddr>,
    /// `getpeername` of a connected socket.
    pub peer: Option<SocketAddr>,
    /// Whom the answer came from, as `recvfrom` says.
    pub from: Option<SocketAddr>,
    pub greeting: Option<Greeting>,
    pub millis: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IcmpReport {
    /// [`Outcome::Unreachable`] for an ICMP error.
    pub outcome: Outcome,
    /// Who sent the answer or the error.
    pub from: Option<IpAddr>,
    /// Type and code of an ICMP error.
    pub error: Option<(u8, u8)>,
    pub millis: f64,
}

/// Of a stream so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamReport {
    pub sent: u64,
    /// Different messages whose echo arrived.
    pub received: u64,
    /// Sent, and no echo arrived: at the end; before it, also what is under way.
    pub lost: u64,
    /// Echoes beyond the first of a message.
    pub duplicated: u64,
    /// Echoes that arrived after that of a later message.
    pub reordered: u64,
    /// Echoes that were not what was sent.
    pub corrupted: u64,
    /// The longest time in which nothing arrived, while it was sent; in milliseconds.
    pub max_gap_millis: f64,
    /// Since an echo arrived last, or since the beginning.
    pub silent_millis: f64,
    /// Why the stream ended early, if it did.
    pub ended: Option<Outcome>,
    /// UDP: how often the socket reported an error, as an ICMP error makes it. It goes on after that.
    pub errors: u64,
}

/// One line of output of a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamLine {
    Progress(StreamReport),
    Done(StreamReport),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HalfCloseReport {
    pub outcome: Outcome,
    pub sent: usize,
    /// After the sending side was closed.
    pub received: usize,
    /// From then to the end.
    pub millis: f64,
}
