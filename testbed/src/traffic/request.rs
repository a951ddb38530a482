//! What `weir-traffic` can be asked for: at once its command line and the library's own words.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Serialize, Subcommand)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Answer until killed; prints `ready` once all addresses are bound
    Serve(Serve),
    /// Connect, be greeted, have bytes echoed
    Tcp(Tcp),
    /// Send one datagram and have it echoed
    Udp(Udp),
    /// Send one echo request (needs root)
    Icmp(Icmp),
    /// Send numbered messages at a rate and account for each
    Stream(Stream),
    /// Send, close the sending side, and read what comes then
    HalfClose(HalfClose),
}

/// All addresses are served by TCP and by UDP.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Serve {
    /// What the greeting calls this server
    #[arg(long)]
    pub name: String,
    /// Greet, then echo
    #[arg(long)]
    pub echo: Vec<SocketAddr>,
    /// Say nothing and throw away what comes
    #[arg(long)]
    pub sink: Vec<SocketAddr>,
    /// By TCP only: greet, read to the end, and send all of it back slowly only then
    #[arg(long)]
    pub late_echo: Vec<SocketAddr>,
}

#[derive(Args, Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tcp {
    #[arg(long)]
    pub to: SocketAddr,
    /// Bind to this address first
    #[arg(long)]
    pub from: Option<SocketAddr>,
    /// For each step: connecting, the greeting, the echo
    #[arg(long, default_value_t = 1000)]
    pub timeout_millis: u64,
    /// How much to have echoed
    #[arg(long, default_value_t = 64)]
    pub bytes: usize,
}

#[derive(Args, Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Udp {
    #[arg(long)]
    pub to: SocketAddr,
    /// Bind to this address first
    #[arg(long)]
    pub from: Option<SocketAddr>,
    /// Connect the socket, and so receive from the connected address only
    #[arg(long)]
    pub connected: bool,
    #[arg(long, default_value_t = 1000)]
    pub timeout_millis: u64,
    /// Of the payload. More than the MTU leaves room for is sent in fragments
    #[arg(long, default_value_t = 64)]
    pub bytes: usize,
}

#[derive(Args, Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Icmp {
    #[arg(long)]
    pub to: std::net::IpAddr,
    #[arg(long, default_value_t = 1000)]
    pub timeout_millis: u64,
    /// Of the payload
    #[arg(long, default_value_t = 56)]
    pub bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    Tcp,
    Udp,
}

#[derive(Args, Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Stream {
    #[arg(long)]
    pub protocol: Protocol,
    /// An echo server
    #[arg(long)]
    pub to: SocketAddr,
    /// Messages a second
    #[arg(long, default_value_t = 1000)]
    pub rate: u32,
    /// How long to send at most
    #[arg(long, default_value_t = 1.0)]
    pub seconds: f64,
    /// Stop sending when the standard input ends
    #[arg(long)]
    pub stoppable: bool,
    /// Of a message, at least 8
    #[arg(long, default_value_t = 64)]
    pub bytes: usize,
    /// How long to wait for the last echoes
    #[arg(long, default_value_t = 500)]
    pub linger_millis: u64,
    /// Print a line this often beside the one at the end
    #[arg(long)]
    pub progress_millis: Option<u64>,
}

#[derive(Args, Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct HalfClose {
    /// A late-echo server
    #[arg(long)]
    pub to: SocketAddr,
    #[arg(long, default_value_t = 100_000)]
    pub bytes: usize,
    /// For each step
    #[arg(long, default_value_t = 5000)]
    pub timeout_millis: u64,
}

impl Tcp {
    pub fn to(to: SocketAddr) -> Tcp {
        Tcp {
            to,
            from: None,
            timeout_millis: 1000,
            bytes: 64,
        }
    }

    pub fn timeout(self, timeout: Duration) -> Tcp {
        Tcp {
            timeout_millis: millis(timeout),
            ..self
        }
    }
}

impl Udp {
    pub fn to(to: SocketAddr) -> Udp {
        Udp {
            to,
            from: None,
            connected: false,
            timeout_millis: 1000,
            bytes: 64,
        }
    }

    pub fn connected(self) -> Udp {
        Udp {
            connected: true,
            ..self
        }
    }

    pub fn timeout(self, timeout: Duration) -> Udp {
        Udp {
            timeout_millis: millis(timeout),
            ..self
        }
    }

    pub fn bytes(self, bytes: usize) -> Udp {
        Udp { bytes, ..self }
    }
}

impl Icmp {
    pub fn to(to: std::net::IpAddr) -> Icmp {
        Icmp {
            to,
            timeout_millis: 1000,
            bytes: 56,
        }
    }

    pub fn timeout(self, timeout: Duration) -> Icmp {
        Icmp {
            timeout_millis: millis(timeout),
            ..self
        }
    }

    pub fn bytes(self, bytes: usize) -> Icmp {
        Icmp { bytes, ..self }
    }
}

impl Stream {
    pub fn new(protocol: Protocol, to: SocketAddr, rate: u32, length: Duration) -> Stream {
        Stream {
            protocol,
            to,
            rate,
            seconds: length.as_secs_f64(),
            stoppable: true,
            bytes: 64,
            linger_millis: 500,
            progress_millis: Some(50),
        }
    }
}

impl HalfClose {
    pub fn to(to: SocketAddr) -> HalfClose {
        HalfClose {
            to,
            bytes: 100_000,
            timeout_millis: 5000,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The command line that [`clap`] reads back as `request`: the names of both are made from the fields.
pub(crate) fn arguments(request: &impl Serialize) -> Vec<String> {
    let Ok(Value::Object(request)) = serde_json::to_value(request) else {
        return Vec::new();
    };
    let mut arguments = Vec::new();
    for (command, fields) in request {
        arguments.push(command);
        let Value::Object(fields) = fields else { continue };
        for (name, value) in fields {
            option(&name, &value, &mut arguments);
        }
    }
    arguments
}

fn option(name: &str, value: &Value, arguments: &mut Vec<String>) {
    match value {
        Value::Null | Value::Bool(false) => {}
        Value::Bool(true) => arguments.push(format!("--{name}")),
        Value::Array(values) => values.iter().for_each(|value| option(name, value, arguments)),
        Value::String(text) => arguments.push(format!("--{name}={text}")),
        Value::Number(_) | Value::Object(_) => arguments.push(format!("--{name}={value}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(subcommand)]
        request: Request,
    }

    /// What one side writes the other reads.
    #[test]
    fn command_lines_are_read_back() {
        use clap::Parser;
        let to: SocketAddr = "[fd00::1]:80".parse().expect("an address");
        let requests = [
            Request::Serve(Serve {
                name: "a b".into(),
                echo: vec![to, to],
                sink: vec![to],
                late_echo: vec![],
            }),
            Request::Tcp(Tcp {
                from: Some(to),
                ..Tcp::to(to)
            }),
            Request::Udp(Udp::to(to).connected().bytes(9000)),
            Request::Icmp(Icmp::to(to.ip())),
            Request::Stream(Stream::new(Protocol::Udp, to, 100, Duration::from_millis(1500))),
            Request::Stream(Stream {
                progress_millis: None,
                stoppable: false,
                ..Stream::new(Protocol::Tcp, to, 1, Duration::ZERO)
            }),
            Request::HalfClose(HalfClose::to(to)),
        ];
        for request in requests {
            let mut line = vec!["weir-traffic".to_string()];
            line.extend(arguments(&request));
            assert_eq!(
                Line::try_parse_from(&line).expect("it parses").request,
                request,
                "{line:?}"
            );
        }
    }
}
