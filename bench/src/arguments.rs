//! The command line.

use std::path::PathBuf;
use std::thread::available_parallelism;

use clap::{Args, Parser, Subcommand};

use crate::api_scale::ApiScaleOptions;
use crate::load::Load;

#[derive(Debug, Clone, Parser)]
#[command(
    name = "weir-bench",
    about = "Measures Weir beside a bare veth pair and the smallest program that could do",
    after_help = "Last comes one line a figure: metric, value, unit, goal, and `ok` or `short`, with tabs between them."
)]
pub struct Arguments {
    /// `all`, if none is named
    #[command(subcommand)]
    pub benchmark: Option<Benchmark>,
    #[command(flatten)]
    pub options: Options,
}

#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Benchmark {
    /// What the dataplane adds to a bare veth pair: a packet, a round trip, a connection
    Tax,
    /// What a packet costs in the programs alone, and how much work they are for the verifier
    Program,
    /// What the maps take with a large cluster in them, and how long writing them takes
    Memory,
    /// What the operator takes in a large cluster: time, memory, writes. It needs no root
    ApiScale(ApiScaleOptions),
    /// All of these but `api-scale`
    All,
}

#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Rounds of `tax`; `program` does three times as many
    #[arg(long, global = true, default_value_t = 7, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub rounds: u16,
    /// Length of one run of `tax`
    #[arg(long, global = true, default_value_t = 0.5, value_name = "SECONDS")]
    pub seconds: f64,
    /// Measure on this CPU; the second one, if there are two
    #[arg(long, global = true, value_name = "CPU")]
    pub cpu: Option<usize>,
    /// Two short rounds and a hundredth of the load: shows that it works, measures nothing
    #[arg(long, global = true)]
    pub quick: bool,
    /// Add what was measured to a file in this directory, in JSON, an object a line
    #[arg(long, global = true, value_name = "DIR", num_args = 0..=1, default_missing_value = "bench/results")]
    pub save: Option<PathBuf>,
}

impl Options {
    pub fn cpu(&self) -> usize {
        let last = available_parallelism().map_or(0, |count| count.get() - 1);
        self.cpu.unwrap_or(last.min(1))
    }

    pub fn rounds(&self) -> usize {
        if self.quick { 2 } else { self.rounds.into() }
    }

    pub fn seconds(&self) -> f64 {
        if self.quick { 0.05 } else { self.seconds }
    }

    pub(crate) fn load(&self) -> Load {
        if self.quick { Load::SMALL } else { Load::FULL }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Arguments {
        Arguments::try_parse_from(line.split(' ')).expect("arguments")
    }

    #[test]
    fn options_stand_before_or_after_the_benchmark() {
        Arguments::command().debug_assert();
        for line in [
            "weir-bench --rounds 9 tax --cpu 0",
            "weir-bench tax --cpu 0 --rounds 9",
        ] {
            let arguments = parse(line);
            assert_eq!(arguments.benchmark, Some(Benchmark::Tax), "{line}");
            assert_eq!(
                (arguments.options.rounds(), arguments.options.cpu()),
                (9, 0),
                "{line}"
            );
        }
    }

    #[test]
    fn saving_has_a_place_of_its_own_unless_one_is_named() {
        let place = |line: &str| parse(line).options.save;
        assert_eq!(place("weir-bench"), None);
        assert_eq!(place("weir-bench --save"), Some("bench/results".into()));
        assert_eq!(place("weir-bench all --save /tmp/x"), Some("/tmp/x".into()));
    }

    #[test]
    fn no_round_is_no_measurement() {
        assert!(Arguments::try_parse_from(["weir-bench", "--rounds", "0"]).is_err());
    }
}
