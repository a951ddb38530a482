//! Starting `weir-traffic` in a place and reading what it reports.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::report::{HalfCloseReport, IcmpReport, StreamLine, StreamReport, TcpReport, UdpReport};
use super::request::{HalfClose, Icmp, Request, Serve, Stream, Tcp, Udp};
use crate::launch::Launch;
use crate::place::Place;
use crate::process::Process;
use crate::program::program;

impl Place {
    /// Starts a server and waits until it is bound. It ends when dropped.
    pub fn serve(&self, serve: &Serve) -> Result<Process> {
        let name = format!("server {}", serve.name);
        self.traffic(&Request::Serve(serve.clone()))?.serve(&name)
    }

    pub fn tcp(&self, tcp: &Tcp) -> Result<TcpReport> {
        self.traffic(&Request::Tcp(tcp.clone()))?.report()
    }

    pub fn udp(&self, udp: &Udp) -> Result<UdpReport> {
        self.traffic(&Request::Udp(udp.clone()))?.report()
    }

    pub fn icmp(&self, icmp: &Icmp) -> Result<IcmpReport> {
        self.traffic(&Request::Icmp(icmp.clone()))?.report()
    }

    pub fn half_close(&self, half_close: &HalfClose) -> Result<HalfCloseReport> {
        self.traffic(&Request::HalfClose(half_close.clone()))?.report()
    }

    /// Starts a stream, to go on while the test does other things.
    pub fn stream(&self, stream: &Stream) -> Result<RunningStream> {
        let mut launch = self.traffic(&Request::Stream(stream.clone()))?;
        let command = launch.command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::spawn(launch.program, command)?;
        let output = process.child().stdout.take().context("a stream's output")?;
        let last = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&last);
        let reader = spawn(move || {
            for line in BufReader::new(output).lines() {
                let line = line.context("a stream's output")?;
                let line: StreamLine = serde_json::from_str(&line).with_context(|| line.clone())?;
                *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
            }
            Ok(())
        });
        Ok(RunningStream {
            process,
            reader: Some(reader),
            last,
            seconds: stream.seconds,
        })
    }

    fn traffic(&self, request: &Request) -> Result<Launch> {
        let command = self.command(program("weir-traffic")?);
        Ok(Launch::new(self, "weir-traffic", command, request))
    }
}

/// A stream under way.
#[derive(Debug)]
pub struct RunningStream {
    process: Process,
    reader: Option<JoinHandle<Result<()>>>,
    last: Arc<Mutex<Option<StreamLine>>>,
    seconds: f64,
}

impl RunningStream {
    /// What the stream reported last; nothing yet means nothing sent.
    pub fn so_far(&self) -> StreamReport {
        match self.last() {
            Some(StreamLine::Progress(report) | StreamLine::Done(report)) => report,
            None => StreamReport::default(),
        }
    }

    /// Waits until the stream so far is as wished.
    pub fn wait_until(
        &self,
        what: &str,
        patience: Duration,
        wish: impl Fn(&StreamReport) -> bool,
    ) -> Result<StreamReport> {
        let start = Instant::now();
        loop {
            let report = self.so_far();
            if wish(&report) {
                return Ok(report);
            }
            if start.elapsed() > patience {
                bail!("the stream was not {what} within {patience:?}: {report:?}");
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// Ends the sending, if the stream is stoppable, and waits for the last echoes.
    pub fn stop(mut self) -> Result<StreamReport> {
        drop(self.process.child().stdin.take());
        self.finish()
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Result<StreamReport> {
        let patience = Duration::from_secs_f64(self.seconds + 20.0);
        let status = self.process.wait(patience)?;
        if let Some(reader) = self.reader.take() {
            reader
                .join()
                .map_err(|_| anyhow::anyhow!("the reader of a stream panicked"))??;
        }
        match self.last() {
            Some(StreamLine::Done(report)) => Ok(report),
            _ => bail!("weir-traffic: {status}, and no report at the end"),
        }
    }

    fn last(&self) -> Option<StreamLine> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
