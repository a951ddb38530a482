//! Numbered messages at a rate, each accounted for.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::report::{Outcome, StreamLine, StreamReport};
use super::request::{Protocol, Stream};
use super::tally::Tally;
use super::tcp::{connect, pattern, read_greeting};
use super::udp::{any, echoed};

/// A message begins with its number, in network order.
const NUMBER: usize = 8;
/// How long connecting may take, and how often a reader looks whether it is to end.
const CONNECT: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(10);

/// Runs the stream to its end, which `stop` brings forward. `print` gets a line now and then, if asked for, and one
/// at the end.
pub fn stream(
    request: &Stream,
    stop: &AtomicBool,
    mut print: impl FnMut(&StreamLine) -> Result<()>,
) -> Result<()> {
    if request.bytes < NUMBER || request.rate == 0 {
        bail!("a message needs {NUMBER} bytes, and a stream a rate");
    }
    let run = Run {
        request,
        stop,
        start: Instant::now(),
        tally: Mutex::new(Tally::default()),
    };
    match request.protocol {
        Protocol::Tcp => match open(request) {
            Ok(socket) => run.go(&socket, &mut print)?,
            Err(error) => run.tally().ended(Outcome::of(&error)),
        },
        Protocol::Udp => {
            let socket = UdpSocket::bind(any(request.to))?;
            socket.set_read_timeout(Some(LOOK))?;
            match socket.connect(request.to) {
                Ok(()) => run.go(&socket, &mut print)?,
                Err(error) => run.tally().ended(Outcome::of(&error)),
            }
        }
    }
    print(&StreamLine::Done(run.report()))
}

fn open(request: &Stream) -> io::Result<TcpStream> {
    let mut socket = connect(request.to, None, CONNECT)?;
    read_greeting(&mut socket)?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket)
}

/// What TCP and UDP do differently.
trait Wire: Sync {
    fn send(&self, message: &[u8]) -> io::Result<()>;
    /// Reads what is there into `pending`, and takes whole messages of `bytes` out of it.
    fn receive(&self, pending: &mut Vec<u8>, bytes: usize) -> io::Result<Vec<Option<Vec<u8>>>>;
    /// An error of one message that leaves the others alone.
    fn survives(error: &io::Error) -> bool;
    fn close(&self);
}

impl Wire for TcpStream {
    fn send(&self, message: &[u8]) -> io::Result<()> {
        let mut socket = self;
        socket.write_all(message)
    }

    fn receive(&self, pending: &mut Vec<u8>, bytes: usize) -> io::Result<Vec<Option<Vec<u8>>>> {
        let mut socket = self;
        let mut buffer = [0; 16 << 10];
        let length = socket.read(&mut buffer)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        pending.extend_from_slice(&buffer[..length]);
        let whole = pending.len() / bytes * bytes;
        let rest = pending.split_off(whole);
        let messages = std::mem::replace(pending, rest);
        Ok(messages
            .chunks(bytes)
            .map(|message| Some(message.to_vec()))
            .collect())
    }

    fn survives(_: &io::Error) -> bool {
        false
    }

    fn close(&self) {
        // Fails when the other side was first.
        let _ = self.shutdown(Shutdown::Write);
    }
}

impl Wire for UdpSocket {
    fn send(&self, message: &[u8]) -> io::Result<()> {
        UdpSocket::send(self, message).map(drop)
    }

    fn receive(&self, pending: &mut Vec<u8>, _: usize) -> io::Result<Vec<Option<Vec<u8>>>> {
        pending.resize(64 << 10, 0);
        let length = self.recv(pending)?;
        Ok(vec![echoed(&pending[..length]).map(<[u8]>::to_vec)])
    }

    fn survives(error: &io::Error) -> bool {
        !matches!(Outcome::of(error), Outcome::Failed(_))
    }

    fn close(&self) {}
}

#[derive(Debug)]
struct Run<'a> {
    request: &'a Stream,
    stop: &'a AtomicBool,
    start: Instant,
    tally: Mutex<Tally>,
}

impl Run<'_> {
    fn go<W: Wire>(&self, wire: &W, print: &mut impl FnMut(&StreamLine) -> Result<()>) -> Result<()> {
        thread::scope(|scope| {
            let reader = scope.spawn(|| self.read(wire));
            let writer = scope.spawn(|| self.write(wire));
            let mut due = Instant::now();
            while !reader.is_finished() || !writer.is_finished() {
                if let Some(every) = self.request.progress_millis
                    && Instant::now() >= due
                {
                    print(&StreamLine::Progress(self.report()))?;
                    due = Instant::now() + Duration::from_millis(every);
                }
                thread::sleep(LOOK);
            }
            Ok(())
        })
    }

    /// Sends on a fixed schedule: a late message is sent at once, and the next ones at their own times.
    fn write<W: Wire>(&self, wire: &W) {
        let length = Duration::from_secs_f64(self.request.seconds.max(0.0));
        let mut message = pattern(self.request.bytes);
        for number in 0_u64.. {
            let due = Duration::from_secs_f64(number as f64 / f64::from(self.request.rate));
            if due >= length || self.stop.load(Ordering::Relaxed) || self.tally().has_ended() {
                break;
            }
            thread::sleep(due.saturating_sub(self.start.elapsed()));
            message[..NUMBER].copy_from_slice(&number.to_be_bytes());
            // Counted first: the echo may be back before the count otherwise.
            self.tally().sent_one();
            if let Err(error) = wire.send(&message) {
                self.failed::<W>(&error);
            }
        }
        self.tally().stopped_sending(self.start.elapsed());
        wire.close();
    }

    fn read<W: Wire>(&self, wire: &W) {
        let mut pending = Vec::new();
        while !self.is_over() {
            match wire.receive(&mut pending, self.request.bytes) {
                Ok(messages) => self.arrived(&messages),
                // Nothing to read for the moment.
                Err(error) if Outcome::of(&error) == Outcome::TimedOut => {}
                // The other side closes after we did.
                Err(_) if self.tally().is_complete() => {}
                Err(error) => self.failed::<W>(&error),
            }
        }
    }

    fn is_over(&self) -> bool {
        let linger = Duration::from_millis(self.request.linger_millis);
        let tally = self.tally();
        tally.has_ended() || tally.is_complete() || tally.waited(self.start.elapsed()) > Some(linger)
    }

    fn arrived(&self, messages: &[Option<Vec<u8>>]) {
        let now = self.start.elapsed();
        let mut tally = self.tally();
        for message in messages {
            tally.arrived(message.as_deref().and_then(|message| self.number(message)), now);
        }
    }

    /// The number of a message that is as it was sent.
    fn number(&self, message: &[u8]) -> Option<u64> {
        let (number, rest) = message.split_first_chunk::<NUMBER>()?;
        (rest == &pattern(self.request.bytes)[NUMBER..]).then_some(u64::from_be_bytes(*number))
    }

    fn failed<W: Wire>(&self, error: &io::Error) {
        if W::survives(error) {
            self.tally().failed_once();
        } else {
            self.tally().ended(Outcome::of(error));
        }
    }

    fn report(&self) -> StreamReport {
        self.tally().report(self.start.elapsed())
    }

    /// A thread that panicked leaves the count as good as it was.
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
