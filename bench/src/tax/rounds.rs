//! Measuring all paths in turn, round after round.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use weir_testbed::measure::{Measure, Sample, Test};

use super::path::{PORT, Path};
use crate::report::progress;

/// What is measured of each path, and with how many bytes.
pub(super) const TESTS: [(Test, usize); 3] = [(Test::UdpPps, 64), (Test::TcpRr, 1), (Test::TcpCrr, 1)];

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Setting {
    pub(super) rounds: usize,
    /// Of one run.
    pub(super) seconds: f64,
    pub(super) cpu: usize,
}

/// By path and test, one a round.
pub(super) type Samples = BTreeMap<(&'static str, Test), Vec<Sample>>;

/// The order moves on from round to round: a slow moment does not hit the same path always.
pub(super) fn measure(paths: &[Path], setting: &Setting) -> Result<Samples> {
    let mut samples = Samples::new();
    for round in 0..setting.rounds {
        progress(&format!("tax: round {} of {}", round + 1, setting.rounds));
        for (test, bytes) in TESTS {
            for i in 0..paths.len() {
                let path = &paths[(i + round) % paths.len()];
                let sample =
                    once(path, test, bytes, setting).with_context(|| format!("{}: {test:?}", path.name))?;
                samples.entry((path.name, test)).or_default().push(sample);
            }
        }
    }
    Ok(samples)
}

fn once(path: &Path, test: Test, bytes: usize, setting: &Setting) -> Result<Sample> {
    let sample = path.client.measure(&Measure {
        test,
        to: path.to,
        port: PORT,
        seconds: setting.seconds,
        bytes,
        cpu: Some(setting.cpu),
    })?;
    ensure!(
        sample.errors == 0 && sample.operations > 0,
        "{} errors, {} operations",
        sample.errors,
        sample.operations
    );
    // Of what one CPU sends without a pause some is lost at the receiver's socket, but never all.
    ensure!(sample.received != Some(0), "nothing arrived");
    Ok(sample)
}
