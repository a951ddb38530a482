//! Measures Weir beside what it is compared with, and says which goals are met.

use anyhow::Result;
use clap::Parser;
use weir_bench::Arguments;

fn main() -> Result<()> {
    weir_bench::run(&Arguments::parse())
}
