//! Sends or answers traffic and reports how it went: a line of JSON.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Result;
use clap::Parser;
use serde::Serialize;
use weir_testbed::traffic::{self, Request};

#[derive(Debug, Parser)]
#[command(name = "weir-traffic", about)]
struct Arguments {
    #[command(subcommand)]
    request: Request,
}

fn main() -> Result<()> {
    match Arguments::parse().request {
        Request::Serve(serve) => traffic::serve(&serve, || writeln!(io::stdout(), "{}", traffic::READY)),
        Request::Tcp(tcp) => print(&traffic::tcp(&tcp)),
        Request::Udp(udp) => print(&traffic::udp(&udp)),
        Request::Icmp(icmp) => print(&traffic::icmp(&icmp)),
        Request::Stream(stream) => traffic::stream(&stream, &stop_signal(stream.stoppable), print),
        Request::HalfClose(half_close) => print(&traffic::half_close(&half_close)),
    }
}

/// Set when the standard input ends, if it is to be heeded.
fn stop_signal(heeded: bool) -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    if heeded {
        let signal = Arc::clone(&stop);
        thread::spawn(move || {
            // An error is an end as well.
            let _ = io::stdin().read_to_end(&mut Vec::new());
            signal.store(true, Ordering::Relaxed);
        });
    }
    stop
}

fn print(report: &impl Serialize) -> Result<()> {
    let line = serde_json::to_string(report)?;
    Ok(writeln!(io::stdout(), "{line}")?)
}
