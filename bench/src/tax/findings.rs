//! What the samples say: a table for people, and the figures.

use anyhow::{Context, Result};
use weir_testbed::measure::{Sample, Test};

use super::path::Path;
use super::rounds::Samples;
use crate::figure::{Figure, Goal, Unit};
use crate::plain_table::plain_table;
use crate::statistics::Spread;

/// Weir, and the smallest program that it is compared with.
const FLOORS: [(&str, &str); 2] = [("weir", "floor"), ("weir-v6", "floor-v6")];
/// How much more than the smallest program a packet or a round trip may cost.
const OVER_FLOOR: Goal = Goal::AtMost(1.15);

/// Many services, and one.
const FLATNESS: [(&str, &str); 2] = [("weir", "weir-1"), ("weir-service", "weir-1-service")];
const FLAT: Goal = Goal::Around {
    center: 1.0,
    tolerance: 0.02,
};

/// The path whose figures bear no name.
const MAIN: &str = "weir";

const HEADINGS: [&str; 8] = [
    "path",
    "UDP packet, ns",
    "added [quartiles]",
    "TCP round trip, ns",
    "added [quartiles]",
    "TCP connection, ns",
    "added, us [quartiles]",
    "share of connections",
];

pub(super) fn table(paths: &[Path], samples: &Samples) -> Result<String> {
    let rows: Result<Vec<Vec<String>>> = paths.iter().map(|path| row(path, samples)).collect();
    Ok(plain_table(&HEADINGS, rows?))
}

fn row(path: &Path, samples: &Samples) -> Result<Vec<String>> {
    let added = Added::by(path, samples)?;
    let cost = |test| -> Result<String> {
        let spread = Spread::of(&nanos(samples, path.name, test)?).context("no rounds")?;
        Ok(format!("{:.0}", spread.median))
    };
    // A bare pair adds nothing to itself.
    let text = |unit: Unit, spread: Spread| {
        if path.is_base() {
            String::new()
        } else {
            text(unit, spread)
        }
    };
    Ok(vec![
        path.name.to_owned(),
        cost(Test::UdpPps)?,
        text(Unit::Ns, added.udp),
        cost(Test::TcpRr)?,
        text(Unit::Ns, added.tcp_rr),
        cost(Test::TcpCrr)?,
        text(Unit::Us, added.tcp_crr),
        text(Unit::Ratio, added.connections),
    ])
}

fn text(unit: Unit, spread: Spread) -> String {
    let [low, median, high] = [spread.low, spread.median, spread.high].map(|value| unit.text(value));
    format!("{median} [{low}..{high}]")
}

pub(super) fn figures(paths: &[Path], samples: &Samples) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for path in paths.iter().filter(|path| !path.is_base()) {
        figures.extend(of_path(path, samples)?);
    }
    for (weir, floor) in FLOORS {
        let (own, least) = (
            Added::by(find(paths, weir)?, samples)?,
            Added::by(find(paths, floor)?, samples)?,
        );
        for (metric, own, least) in [
            ("tax.udp_over_floor", own.udp, least.udp),
            ("tax.tcp_rr_over_floor", own.tcp_rr, least.tcp_rr),
        ] {
            // Noise that hides the smallest program hides how much more another one costs.
            let ratio = if least.median > 0.0 {
                own.median / least.median
            } else {
                f64::NAN
            };
            figures.push(Figure::new(named(metric, weir), ratio, Unit::Ratio, OVER_FLOOR));
        }
    }
    for (many, one) in FLATNESS {
        figures.extend(flatness(samples, many, one)?);
    }
    Ok(figures)
}

fn of_path(path: &Path, samples: &Samples) -> Result<[Figure; 4]> {
    let added = Added::by(path, samples)?;
    let figure =
        |metric, spread: Spread, unit, goal| Figure::new(named(metric, path.name), spread.median, unit, goal);
    Ok([
        figure("tax.udp_ns_per_packet", added.udp, Unit::Ns, path.goals.udp),
        figure("tax.tcp_rr_ns", added.tcp_rr, Unit::Ns, path.goals.tcp_rr),
        figure("tax.tcp_crr_us", added.tcp_crr, Unit::Us, Goal::None),
        figure("crr.ratio", added.connections, Unit::Ratio, path.goals.tcp_crr),
    ])
}

/// What many services cost, of what one costs.
fn flatness(samples: &Samples, many: &str, one: &str) -> Result<Vec<Figure>> {
    let pairs = [
        (
            "flat.udp",
            nanos(samples, many, Test::UdpPps)?,
            nanos(samples, one, Test::UdpPps)?,
        ),
        (
            "flat.tcp_rr",
            nanos(samples, many, Test::TcpRr)?,
            nanos(samples, one, Test::TcpRr)?,
        ),
        (
            "flat.tcp_crr",
            nanos(samples, many, Test::TcpCrr)?,
            nanos(samples, one, Test::TcpCrr)?,
        ),
        ("flat.connect", connects(samples, many)?, connects(samples, one)?),
    ];
    let figure = |(metric, many_costs, one_costs): &(&str, Vec<f64>, Vec<f64>)| {
        let spread = Spread::of_ratios(many_costs, one_costs).context("no rounds")?;
        Ok(Figure::new(named(metric, many), spread.median, Unit::Ratio, FLAT))
    };
    pairs.iter().map(figure).collect()
}

/// What a path adds to the bare pair of the same round.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Added {
    /// Nanoseconds.
    udp: Spread,
    /// Nanoseconds.
    tcp_rr: Spread,
    /// Microseconds.
    tcp_crr: Spread,
    /// Share of the bare pair's rate.
    connections: Spread,
}

impl Added {
    fn by(path: &Path, samples: &Samples) -> Result<Added> {
        let costs = |name, test, divisor: f64| -> Result<Vec<f64>> {
            Ok(nanos(samples, name, test)?
                .iter()
                .map(|nanos| nanos / divisor)
                .collect())
        };
        let difference = |test, divisor| {
            let (own, base) = (costs(path.name, test, divisor)?, costs(path.base, test, divisor)?);
            Spread::of_differences(&own, &base).context("no rounds")
        };
        let (own, base) = (
            costs(path.name, Test::TcpCrr, 1.0)?,
            costs(path.base, Test::TcpCrr, 1.0)?,
        );
        Ok(Added {
            udp: difference(Test::UdpPps, 1.0)?,
            tcp_rr: difference(Test::TcpRr, 1.0)?,
            tcp_crr: difference(Test::TcpCrr, 1e3)?,
            // Of rates, which are the inverse of costs.
            connections: Spread::of_ratios(&base, &own).context("no rounds")?,
        })
    }
}

/// What an operation costs, in nanoseconds, round by round; of round trips the median, as some wait for a timer.
fn nanos(samples: &Samples, path: &str, test: Test) -> Result<Vec<f64>> {
    let cost = |sample: &Sample| match sample.latency {
        Some(latency) if test == Test::TcpRr => latency.p50 as f64,
        _ => sample.nanos_each(),
    };
    Ok(of(samples, path, test)?.iter().map(cost).collect())
}

/// The median time from the SYN to the SYN-ACK, round by round.
fn connects(samples: &Samples, path: &str) -> Result<Vec<f64>> {
    let median = |sample: &Sample| Some(sample.connect?.p50 as f64);
    let all: Option<Vec<f64>> = of(samples, path, Test::TcpCrr)?.iter().map(median).collect();
    all.with_context(|| format!("{path}: connecting was not timed"))
}

fn of<'a>(samples: &'a Samples, path: &str, test: Test) -> Result<&'a [Sample]> {
    let mut all = samples.iter();
    let found = all.find(|((name, other), _)| *name == path && *other == test);
    let (_, samples) = found.with_context(|| format!("{path}: {test:?} was not measured"))?;
    Ok(samples)
}

fn find<'a>(paths: &'a [Path], name: &str) -> Result<&'a Path> {
    let mut all = paths.iter();
    all.find(|path| path.name == name)
        .with_context(|| format!("there is no path {name}"))
}

fn named(metric: &str, path: &str) -> String {
    if path == MAIN {
        metric.to_owned()
    } else {
        format!("{metric}.{path}")
    }
}

#[cfg(test)]
mod tests {
    use weir_testbed::measure::Latency;

    use super::*;

    /// Rounds in which an operation costs so many nanoseconds.
    fn rounds(test: Test, nanos: &[u64]) -> Vec<Sample> {
        let latency = |p50| Latency {
            min: p50,
            p50,
            p90: p50,
            p99: p50,
            p999: p50,
            max: p50,
        };
        let sample = |nanos: &u64| Sample {
            test,
            seconds: *nanos as f64 * 1e-6,
            operations: 1_000,
            errors: 0,
            latency: Some(latency(*nanos)),
            connect: Some(latency(nanos / 2)),
            received: None,
        };
        nanos.iter().map(sample).collect()
    }

    /// The second round is slow, for everybody.
    fn samples(costs: &[(&'static str, u64)]) -> Samples {
        let tests = [Test::UdpPps, Test::TcpRr, Test::TcpCrr];
        let all = costs.iter().flat_map(|(path, added)| {
            tests.map(|test| {
                (
                    (*path, test),
                    rounds(test, &[1_000 + added, 3_000 + added, 1_000 + added]),
                )
            })
        });
        all.collect()
    }

    fn spread(value: f64) -> Spread {
        Spread {
            low: value,
            median: value,
            high: value,
        }
    }

    fn close(a: Spread, b: Spread) -> bool {
        [a.low - b.low, a.median - b.median, a.high - b.high]
            .iter()
            .all(|difference| difference.abs() < 1e-6)
    }

    #[test]
    fn a_slow_round_does_not_count_as_added() {
        let samples = samples(&[("direct", 0), ("weir", 80)]);
        let added = |test, divisor: f64| {
            let divided = |path| -> Vec<f64> {
                nanos(&samples, path, test)
                    .expect("measured")
                    .iter()
                    .map(|nanos| nanos / divisor)
                    .collect()
            };
            Spread::of_differences(&divided("weir"), &divided("direct")).expect("rounds")
        };
        assert!(close(added(Test::UdpPps, 1.0), spread(80.0)));
        assert!(close(added(Test::TcpRr, 1.0), spread(80.0)));
        assert!(close(added(Test::TcpCrr, 1e3), spread(0.08)));
    }

    #[test]
    fn flatness_compares_with_one_service() {
        let samples = samples(&[("weir", 50), ("weir-1", 0)]);
        let lines: Vec<String> = flatness(&samples, "weir", "weir-1")
            .expect("figures")
            .iter()
            .map(ToString::to_string)
            .collect();
        let expected = [
            "flat.udp\t1.0500\tratio\t1+-0.02\tshort",
            "flat.tcp_rr\t1.0500\tratio\t1+-0.02\tshort",
            "flat.tcp_crr\t1.0500\tratio\t1+-0.02\tshort",
            "flat.connect\t1.0500\tratio\t1+-0.02\tshort",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn what_was_not_measured_is_an_error() {
        let samples = samples(&[("weir", 0)]);
        let error = nanos(&samples, "direct", Test::TcpRr).expect_err("not measured");
        assert_eq!(error.to_string(), "direct: TcpRr was not measured");
    }
}
