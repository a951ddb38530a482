//! A connection that is closed in one direction and goes on in the other.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use super::report::{HalfCloseReport, Outcome};
use super::request::HalfClose;
use super::tcp::{connect, pattern, read_greeting};

/// Sends all, closes the sending side, and reads it all back from a late-echo server.
pub fn half_close(request: &HalfClose) -> HalfCloseReport {
    let mut report = HalfCloseReport {
        outcome: Outcome::TimedOut,
        sent: 0,
        received: 0,
        millis: 0.0,
    };
    report.outcome = Outcome::from(&exchange(request, &mut report));
    report
}

fn exchange(request: &HalfClose, report: &mut HalfCloseReport) -> io::Result<()> {
    let mut stream = connect(request.to, None, Duration::from_millis(request.timeout_millis))?;
    read_greeting(&mut stream)?;
    let sent = pattern(request.bytes);
    stream.write_all(&sent)?;
    report.sent = sent.len();
    stream.shutdown(Shutdown::Write)?;
    let start = Instant::now();
    let mut received = Vec::new();
    let end = stream.read_to_end(&mut received);
    report.received = received.len();
    report.millis = start.elapsed().as_secs_f64() * 1000.0;
    end?;
    if received.len() < sent.len() {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    if received == sent {
        Ok(())
    } else {
        Err(io::Error::from(io::ErrorKind::InvalidData))
    }
}
