//! What a packet costs in the programs alone: `BPF_PROG_TEST_RUN`, hot caches, one CPU, the best of many rounds.
//!
//! The maps hold the load of a large cluster. Every case says for which reason its packets must leave, and is refused
//! if the counters say otherwise: a wrong turn would make a fast figure.
//!
//! All figures contain what running an empty program costs. Where [`floor::RESTORE`] has to put the packet back before
//! each run, its own cost is taken off.

mod cases;
mod packet;
mod scene;
mod sizes;

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;
use weir_testbed::Testbed;

use crate::arguments::Options;
use crate::figure::{Figure, Unit};
use crate::floor;
use crate::plain_table::plain_table;
use crate::report::{Report, progress};
use crate::statistics::Spread;
use cases::{Case, Run, cases};
use scene::Scene;

/// Beside one of `tax`, a round is short.
const ROUNDS: usize = 3;

pub fn run(testbed: &Testbed, options: &Options, report: &mut Report) -> Result<()> {
    let place = testbed.host("program")?;
    place.run(|| run_here(testbed, options, report))?
}

/// On a thread in a network namespace that nobody else uses.
fn run_here(testbed: &Testbed, options: &Options, report: &mut Report) -> Result<()> {
    progress("program: loading the programs and filling the maps");
    let mut scene = Scene::new(testbed, &options.load())?;
    pin(options.cpu())?;
    progress("program: running them");
    let cases = cases(&scene.interfaces, options.quick)?;
    let measured = measure(&mut scene, &cases, options.rounds() * ROUNDS)?;
    let sizes = scene.kernel.program_sizes()?;
    scene.remove()?;
    for measured in &measured {
        report.keep("program", measured)?;
    }
    let figures = cases
        .iter()
        .zip(&measured)
        .map(|(case, measured)| figure(case, measured))
        .collect();
    report.add("a packet in the programs, ns", &table(&cases, &measured), figures)?;
    report.add(
        "the programs' sizes",
        &sizes::table(&sizes),
        sizes::figures(&sizes),
    )
}

/// Nanoseconds a packet.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Measured {
    what: &'static str,
    /// One mean a round.
    rounds: Vec<u32>,
    /// What putting the packet back costs: a part of the above.
    restoring: u32,
}

impl Measured {
    fn best(&self) -> f64 {
        self.rounds
            .iter()
            .copied()
            .min()
            .map_or(f64::NAN, |best| f64::from(best) - f64::from(self.restoring))
    }

    fn median(&self) -> f64 {
        let rounds: Vec<f64> = self.rounds.iter().copied().map(f64::from).collect();
        Spread::of(&rounds).map_or(f64::NAN, |spread| spread.median - f64::from(self.restoring))
    }
}

/// Every case once a round, in an order that moves on, so that a slow moment does not hit the same case always.
fn measure(scene: &mut Scene, cases: &[Case], rounds: usize) -> Result<Vec<Measured>> {
    let mut measured: Vec<Measured> = cases
        .iter()
        .map(|case| Measured {
            what: case.what,
            rounds: Vec::new(),
            restoring: 0,
        })
        .collect();
    for round in 0..rounds {
        for i in 0..cases.len() {
            let at = (i + round) % cases.len();
            let nanos = scene.run(&cases[at]).with_context(|| cases[at].what)?;
            measured[at].rounds.push(nanos);
        }
    }
    let restoring = restoring(&measured, cases)?;
    for (measured, case) in measured.iter_mut().zip(cases) {
        measured.restoring = restoring(case.run);
    }
    Ok(measured)
}

/// What of a case's time is not the program's own.
fn restoring(measured: &[Measured], cases: &[Case]) -> Result<impl Fn(Run) -> u32 + use<>> {
    let best = |run: Run| {
        let at = cases.iter().position(|case| case.run == run);
        let best = at.and_then(|at| measured[at].rounds.iter().min().copied());
        best.with_context(|| format!("no case measures {run:?}"))
    };
    let empty = best(Run::Floor(floor::EMPTY))?;
    let (same, counting) = (best(Run::EmptyRestored)?, best(Run::EmptyOpening)?);
    ensure!(
        same >= empty && counting >= empty,
        "a program that does more took less time: {measured:?}"
    );
    Ok(move |run| match run {
        Run::Restored => same - empty,
        Run::Opening => counting - empty,
        Run::Floor(_) | Run::EmptyRestored | Run::EmptyOpening | Run::Repeated => 0,
    })
}

fn figure(case: &Case, measured: &Measured) -> Figure {
    Figure::new(
        format!("program.{}", case.metric),
        measured.best(),
        Unit::Ns,
        case.goal,
    )
}

fn table(cases: &[Case], measured: &[Measured]) -> String {
    let least = cases
        .iter()
        .zip(measured)
        .find(|(case, _)| case.run == Run::Floor(floor::PEER4));
    let rows = cases.iter().zip(measured).map(|(case, measured)| {
        let of_least = least.map(|(_, least)| format!("{:.2}", measured.best() / least.best()));
        let restoring = (measured.restoring != 0).then(|| measured.restoring.to_string());
        vec![
            case.what.to_owned(),
            format!("{:.0}", measured.best()),
            format!("{:.0}", measured.median()),
            restoring.unwrap_or_default(),
            of_least.unwrap_or_default(),
            case.goal.to_string(),
        ]
    });
    plain_table(
        &["packet", "best", "median", "taken off", "of the smallest", "goal"],
        rows,
    )
}

fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("run on CPU {cpu}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restoring_is_taken_off() {
        let measured = Measured {
            what: "x",
            rounds: vec![30, 20, 50],
            restoring: 8,
        };
        assert_eq!((measured.best(), measured.median()), (12.0, 22.0));
    }
}
