//! What the samples say: a table for people, and the figures.

use anyhow::{Context, Result};
use weir_testbed::measure::{Latency, Sample, Test};

use super::path::Path;
use super::rounds::Samples;
use crate::figure::{Figure, Goal, Unit};
use crate::plain_table::plain_table;
use crate::statistics::Spread;

/// How much more than the smallest program a packet may cost.
const OVER_FLOOR: Goal = Goal::AtMost(1.15);
const FLAT: Goal = Goal::Around {
    center: 1.0,
    tolerance: 0.02,
};

/// Weir, and the smallest program that it is compared with.
const FLOORS: [(&str, &str); 2] = [("weir", "floor"), ("weir-v6", "floor-v6")];
/// Ten thousand services, and one.
const FLATNESS: [(&str, &str); 2] = [("weir", "weir-1"), ("weir-service", "weir-1-service")];

/// The path whose figures bear no name.
const MAIN: &str = "weir";

pub(super) fn table(paths: &[Path], samples: &Samples) -> Result<String> {
    let mut rows = Vec::new();
    for path in paths {
        let added = added(path, samples)?;
        rows.push(vec![
            path.name.to_owned(),
            cost(samples, path.name, Test::UdpPps)?,
            text(Unit::Ns, added.udp, 1.0, path),
            cost(samples, path.name, Test::TcpRr)?,
            text(Unit::Ns, added.tcp_rr, 1.0, path),
            cost(samples, path.name, Test::TcpCrr)?,
            text(Unit::Us, added.tcp_crr, 1e-3, path),
            text(Unit::Ratio, added.connections, 1.0, path),
        ]);
    }
    let headings = [
        "path",
        "UDP packet, ns",
        "added [quartiles]",
        "TCP round trip, ns",
        "added [quartiles]",
        "TCP connection, ns",
        "added, us [quartiles]",
        "share of connections",
    ];
    Ok(plain_table(&headings, rows))
}

pub(super) fn figures(paths: &[Path], samples: &Samples) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for path in paths.iter().filter(|path| !path.is_base()) {
        let added = added(path, samples)?;
        let named = |metric: &str| {
            if path.name == MAIN {
                metric.to_owned()
            } else {
                format!("{metric}.{}", path.name)
            }
        };
        figures.push(Figure::new(
            named("tax.udp_ns_per_packet"),
            added.udp.median,
            Unit::Ns,
            path.goals.udp,
        ));
        figures.push(Figure::new(
            named("tax.tcp_rr_ns"),
            added.tcp_rr.median,
            Unit::Ns,
            path.goals.tcp_rr,
        ));
        let connection = added.tcp_crr.median / 1e3;
        figures.push(Figure::new(
            named("tax.tcp_crr_us"),
            connection,
            Unit::Us,
            Goal::None,
        ));
        figures.push(Figure::new(
            named("crr.ratio"),
            added.connections.median,
            Unit::Ratio,
            path.goals.tcp_crr,
        ));
    }
    for (weir, floor) in FLOORS {
        let udp = |name: &str| Ok::<f64, anyhow::Error>(added(find(paths, name)?, samples)?.udp.median);
        let metric = if weir == MAIN {
            "tax.udp_over_floor".to_owned()
        } else {
            format!("tax.udp_over_floor.{weir}")
        };
        figures.push(Figure::new(
            metric,
            udp(weir)? / udp(floor)?,
            Unit::Ratio,
            OVER_FLOOR,
        ));
    }
    for (many, one) in FLATNESS {
        figures.extend(flatness(samples, many, one)?);
    }
    Ok(figures)
}

/// To what is there by the bare pair of the same round.
struct Added {
    /// Nanoseconds.
    udp: Spread,
    tcp_rr: Spread,
    tcp_crr: Spread,
    /// Share of the bare pair's rate.
    connections: Spread,
}

fn added(path: &Path, samples: &Samples) -> Result<Added> {
    let costs =
        |test| Ok::<_, anyhow::Error>((nanos(samples, path.name, test)?, nanos(samples, path.base, test)?));
    let difference = |test| {
        let (costs, bases) = costs(test)?;
        Spread::of_differences(&costs, &bases).context("no rounds")
    };
    let (costs, bases) = costs(Test::TcpCrr)?;
    Ok(Added {
        udp: difference(Test::UdpPps)?,
        tcp_rr: difference(Test::TcpRr)?,
        tcp_crr: difference(Test::TcpCrr)?,
        connections: Spread::of_ratios(&bases, &costs).context("no rounds")?,
    })
}

fn flatness(samples: &Samples, many: &str, one: &str) -> Result<Vec<Figure>> {
    let ratio = |many: &[f64], one: &[f64]| Spread::of_ratios(many, one).context("no rounds");
    let connects = |name: &str| {
        let all = of(samples, name, Test::TcpCrr)?;
        let medians = all
            .iter()
            .map(|sample| sample.connect.map(|connect: Latency| connect.p50 as f64));
        medians.collect::<Option<Vec<f64>>>().context("no connect times")
    };
    let named = |metric: &str| {
        if many == MAIN {
            format!("flat.{metric}")
        } else {
            format!("flat.{metric}.{many}")
        }
    };
    let mut figures = Vec::new();
    for (metric, test) in [
        ("udp", Test::UdpPps),
        ("tcp_rr", Test::TcpRr),
        ("tcp_crr", Test::TcpCrr),
    ] {
        let spread = ratio(&nanos(samples, many, test)?, &nanos(samples, one, test)?)?;
        figures.push(Figure::new(named(metric), spread.median, Unit::Ratio, FLAT));
    }
    let spread = ratio(&connects(many)?, &connects(one)?)?;
    figures.push(Figure::new(named("connect"), spread.median, Unit::Ratio, FLAT));
    Ok(figures)
}

/// What an operation costs, in nanoseconds; of round trips the median, as some wait for a timer.
fn nanos(samples: &Samples, path: &str, test: Test) -> Result<Vec<f64>> {
    let cost = |sample: &Sample| match (test, sample.latency) {
        (Test::TcpRr, Some(latency)) => latency.p50 as f64,
        _ => sample.nanos_each(),
    };
    Ok(of(samples, path, test)?.iter().map(cost).collect())
}

fn of<'a>(samples: &'a Samples, path: &str, test: Test) -> Result<&'a [Sample]> {
    let found = samples
        .iter()
        .find(|((name, other), _)| *name == path && *other == test);
    found
        .map(|(_, samples)| samples.as_slice())
        .with_context(|| format!("{path}: {test:?} was not measured"))
}

fn find<'a>(paths: &'a [Path], name: &str) -> Result<&'a Path> {
    paths
        .iter()
        .find(|path| path.name == name)
        .with_context(|| format!("no path {name}"))
}

fn cost(samples: &Samples, path: &str, test: Test) -> Result<String> {
    let spread = Spread::of(&nanos(samples, path, test)?).context("no rounds")?;
    Ok(format!("{:.0}", spread.median))
}

/// A bare pair adds nothing to itself.
fn text(unit: Unit, spread: Spread, factor: f64, path: &Path) -> String {
    if path.is_base() {
        return String::new();
    }
    let [low, median, high] = [spread.low, spread.median, spread.high].map(|value| unit.text(value * factor));
    format!("{median} [{low}..{high}]")
}
