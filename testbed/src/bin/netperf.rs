//! Measures a path of the network between a client and a server.

use std::io::{self, Write};

use anyhow::Result;
use clap::Parser;
use weir_testbed::measure::{self, Request};
use weir_testbed::traffic::READY;

#[derive(Debug, Parser)]
#[command(name = "weir-netperf", about)]
struct Arguments {
    #[command(subcommand)]
    request: Request,
}

fn main() -> Result<()> {
    match Arguments::parse().request {
        Request::Serve(serve) => measure::serve(&serve, || writeln!(io::stdout(), "{READY}")),
        Request::Measure(request) => {
            let line = serde_json::to_string(&measure::measure(&request)?)?;
            Ok(writeln!(io::stdout(), "{line}")?)
        }
    }
}
