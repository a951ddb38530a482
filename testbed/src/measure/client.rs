//! The client: does one thing as often as it can.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;

use super::batch::Outgoing;
use super::{BATCH, Latency, Measure, Port, Received, Sample, Test, pin};

/// After this a datagram counts as lost.
const LOST: Duration = Duration::from_millis(200);
/// What is under way when a sender stops has arrived by then.
const SETTLE: Duration = Duration::from_millis(20);
/// A path that fails so often is broken, and not slow.
const MOST_ERRORS: u64 = 1000;
/// Of one call to send of a stream, if no size is asked for.
const STREAM_BYTES: usize = 128 << 10;

/// Measures once.
pub fn measure(request: &Measure) -> Result<Sample> {
    if request.bytes == 0 {
        bail!("there is nothing to send in 0 bytes");
    }
    pin(request.cpu)?;
    let run = Run {
        request,
        length: Duration::from_secs_f64(request.seconds.max(0.0)),
    };
    match request.test {
        Test::TcpRr => run.tcp_rr(),
        Test::TcpCrr => run.tcp_crr(),
        Test::UdpRr => run.udp_rr(),
        Test::UdpPps => run.udp_pps(),
        Test::TcpStream => run.tcp_stream(),
    }
}

struct Run<'a> {
    request: &'a Measure,
    length: Duration,
}

impl Run<'_> {
    fn at(&self, port: Port) -> SocketAddr {
        SocketAddr::new(self.request.to, port.from(self.request.port))
    }

    fn connect(&self, port: Port) -> Result<TcpStream> {
        let stream =
            TcpStream::connect(self.at(port)).with_context(|| format!("connect to {}", self.at(port)))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn udp(&self, port: Port) -> Result<UdpSocket> {
        let any = if self.request.to.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(any).context("bind")?;
        socket
            .connect(self.at(port))
            .with_context(|| format!("connect to {}", self.at(port)))?;
        Ok(socket)
    }

    fn tcp_rr(&self) -> Result<Sample> {
        let mut stream = self.connect(Port::TcpEcho)?;
        let (out, mut back) = (vec![0; self.request.bytes], vec![0; self.request.bytes]);
        let mut latency = histogram()?;
        let start = Instant::now();
        let mut now = start;
        while now - start < self.length {
            stream.write_all(&out).context("send")?;
            stream.read_exact(&mut back).context("receive")?;
            let after = Instant::now();
            latency.saturating_record(nanos(after - now));
            now = after;
        }
        Ok(self.sample(start, latency.len(), 0, Some(&latency), None, None))
    }

    /// An operation includes the closing, as its price is part of a connection's.
    fn tcp_crr(&self) -> Result<Sample> {
        let (out, mut back) = (vec![0; self.request.bytes], vec![0; self.request.bytes]);
        let (mut latency, mut connect) = (histogram()?, histogram()?);
        let mut errors = 0;
        let start = Instant::now();
        let mut now = start;
        while now - start < self.length {
            let mut once = || -> io::Result<Duration> {
                let mut stream = TcpStream::connect(self.at(Port::TcpEcho))?;
                let connected = now.elapsed();
                stream.write_all(&out)?;
                stream.read_exact(&mut back)?;
                Ok(connected)
            };
            match once() {
                Ok(connected) => {
                    connect.saturating_record(nanos(connected));
                    latency.saturating_record(nanos(now.elapsed()));
                }
                Err(error) if errors == MOST_ERRORS => return Err(error).context("connections fail"),
                Err(_) => errors += 1,
            }
            now = Instant::now();
        }
        Ok(self.sample(start, latency.len(), errors, Some(&latency), Some(&connect), None))
    }

    fn udp_rr(&self) -> Result<Sample> {
        let socket = self.udp(Port::UdpEcho)?;
        socket.set_read_timeout(Some(LOST))?;
        let (out, mut back) = (vec![0; self.request.bytes], vec![0; self.request.bytes + 1]);
        let mut latency = histogram()?;
        let mut errors = 0;
        let start = Instant::now();
        let mut now = start;
        while now - start < self.length {
            let done = socket.send(&out).and_then(|_| socket.recv(&mut back));
            let after = Instant::now();
            match done {
                Ok(_) => latency.saturating_record(nanos(after - now)),
                Err(_) => errors += 1,
            }
            now = after;
        }
        Ok(self.sample(start, latency.len(), errors, Some(&latency), None, None))
    }

    fn udp_pps(&self) -> Result<Sample> {
        let mut control = self.control()?;
        let socket = self.udp(Port::UdpSink)?;
        let mut batch = Outgoing::new(BATCH, self.request.bytes);
        let (mut sent, mut errors) = (0, 0);
        let before = control.ask()?;
        let start = Instant::now();
        while start.elapsed() < self.length {
            match batch.send(&socket) {
                Ok(count) => sent += count as u64,
                Err(error) if errors == MOST_ERRORS => return Err(error).context("datagrams fail"),
                Err(_) => errors += 1,
            }
        }
        let sample = self.sample(start, sent, errors, None, None, None);
        sleep(SETTLE);
        Ok(Sample {
            received: Some(control.ask()?.datagrams - before.datagrams),
            ..sample
        })
    }

    fn tcp_stream(&self) -> Result<Sample> {
        let mut control = self.control()?;
        let mut stream = self.connect(Port::TcpSink)?;
        let out = vec![
            0;
            if self.request.bytes > 1 {
                self.request.bytes
            } else {
                STREAM_BYTES
            }
        ];
        let mut calls = 0;
        let before = control.ask()?;
        let start = Instant::now();
        while start.elapsed() < self.length {
            stream.write_all(&out).context("send")?;
            calls += 1;
        }
        let sample = self.sample(start, calls, 0, None, None, None);
        Ok(Sample {
            received: Some(control.ask()?.tcp_bytes - before.tcp_bytes),
            ..sample
        })
    }

    fn control(&self) -> Result<Control> {
        Ok(Control(BufReader::new(self.connect(Port::Control)?)))
    }

    fn sample(
        &self,
        start: Instant,
        operations: u64,
        errors: u64,
        latency: Option<&Histogram<u64>>,
        connect: Option<&Histogram<u64>>,
        received: Option<u64>,
    ) -> Sample {
        Sample {
            test: self.request.test,
            seconds: start.elapsed().as_secs_f64(),
            operations,
            errors,
            latency: latency.and_then(Latency::of),
            connect: connect.and_then(Latency::of),
            received,
        }
    }
}

struct Control(BufReader<TcpStream>);

impl Control {
    fn ask(&mut self) -> Result<Received> {
        self.0.get_mut().write_all(b"?").context("ask the server")?;
        let mut line = String::new();
        self.0.read_line(&mut line).context("ask the server")?;
        serde_json::from_str(&line).with_context(|| format!("the server's answer: {line:?}"))
    }
}

/// Up to a minute, to three digits.
fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
