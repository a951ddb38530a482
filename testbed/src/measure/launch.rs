//! Starting `weir-netperf` in a place.

use anyhow::Result;

use super::{Measure, Request, Sample, Serve};
use crate::launch::Launch;
use crate::place::Place;
use crate::process::Process;
use crate::program::program;

/// Above everything but the kernel's own threads: lower numbers of `SCHED_FIFO` give way to higher ones.
const PRIORITY: &str = "10";

impl Place {
    /// Starts a server in real time and waits until it is bound. It ends when dropped.
    pub fn measuring_server(&self, serve: &Serve) -> Result<Process> {
        self.netperf(&Request::Serve(serve.clone()))?
            .serve("weir-netperf")
    }

    /// Measures once, in real time.
    pub fn measure(&self, measure: &Measure) -> Result<Sample> {
        self.netperf(&Request::Measure(measure.clone()))?.report()
    }

    fn netperf(&self, request: &Request) -> Result<Launch> {
        let mut command = self.command("chrt");
        command.args(["--fifo", PRIORITY]).arg(program("weir-netperf")?);
        Ok(Launch::new(self, "weir-netperf", command, request))
    }
}
