//! Starting `weir-traffic` in a place and reading what it reports.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

use super::report::{HalfCloseReport, IcmpReport, StreamLine, StreamReport, TcpReport, UdpReport};
use super::request::{self, HalfClose, Icmp, Request, Serve, Stream, Tcp, Udp};
use crate::place::Place;
use crate::process::Process;
use crate::program::program;

/// A server says this once it is bound.
pub const READY: &str = "ready";

impl Place {
    /// Starts a server and waits until it is bound. It ends when dropped.
    pub fn serve(&self, serve: &Serve) -> Result<Process> {
        let mut command = self.traffic(&Request::Serve(serve.clone()))?;
        let mut process = Process::spawn("weir-traffic", command.stdout(Stdio::piped()))?;
        let output = process.child().stdout.take().context("a server's output")?;
        let mut line = String::new();
        BufReader::new(output)
            .read_line(&mut line)
            .context("a server's output")?;
        if line.trim_end() != READY {
            bail!("{}: server {} did not start", self.netns(), serve.name);
        }
        Ok(process)
    }

    pub fn tcp(&self, tcp: &Tcp) -> Result<TcpReport> {
        self.ask(&Request::Tcp(tcp.clone()))
    }

    pub fn udp(&self, udp: &Udp) -> Result<UdpReport> {
        self.ask(&Request::Udp(udp.clone()))
    }

    pub fn icmp(&self, icmp: &Icmp) -> Result<IcmpReport> {
        self.ask(&Request::Icmp(icmp.clone()))
    }

    pub fn half_close(&self, half_close: &HalfClose) -> Result<HalfCloseReport> {
        self.ask(&Request::HalfClose(half_close.clone()))
    }

    /// Starts a stream, to go on while the test does other things.
    pub fn stream(&self, stream: &Stream) -> Result<RunningStream> {
        let mut command = self.traffic(&Request::Stream(stream.clone()))?;
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::spawn("weir-traffic", command)?;
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

    fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T> {
        let output = self.traffic(request)?.output().context("run weir-traffic")?;
        if !output.status.success() {
            let problem = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{}: weir-traffic: {}: {}",
                self.netns(),
                output.status,
                problem.trim_end()
            );
        }
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).with_context(|| format!("weir-traffic: {text}"))
    }

    fn traffic(&self, request: &Request) -> Result<std::process::Command> {
        let mut command = self.command(program("weir-traffic")?);
        command.args(request::arguments(request)).stdin(Stdio::null());
        Ok(command)
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
