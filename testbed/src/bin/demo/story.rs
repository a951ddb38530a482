//! What the demo shows, step by step. Each step is checked: the first one that is not as said ends it.

use std::net::SocketAddr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use weir_testbed::Place;
use weir_testbed::traffic::{Outcome, Protocol, RunningStream, Stream, Tcp, TcpReport};

use crate::cast::{Cast, FOO, OTHER, SERVER};
use crate::samples::Sample;
use crate::{log, tell};

/// How long a change of a manifest may take to be in force.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of a connection that gets no answer.
const TIMEOUT: Duration = Duration::from_millis(500);
/// The label that the sample policy asks for.
const LABEL: &str = "app";

pub(crate) fn run(samples: &Path) -> Result<()> {
    tell::chapter("Setting the stage: a node, three pods, and weir-agent in standalone mode");
    let cast = Cast::assemble(samples)?;
    if let Err(error) = acts(&cast) {
        tell::quote(&cast.agent.log_tail());
        return Err(error);
    }
    tell::chapter("Taking it all down");
    cast.dismiss()?;
    println!("\nAll of it happened as said.");
    Ok(())
}

fn acts(cast: &Cast) -> Result<()> {
    let (policies, others) = cast.samples.by_stage();
    before_any_policy(cast, &others)?;
    let records = cast.agent.flow_records()?.len();
    with_the_policies(cast, &policies)?;
    tell::chapter(&format!(
        "Why? The flow log says so: {}",
        cast.agent.flow_log().display()
    ));
    log::show(&cast.agent, records, FOO, SERVER, "allow")?;
    log::show(&cast.agent, records, OTHER, SERVER, "deny")?;
    the_label_goes(cast)
}

fn before_any_policy(cast: &Cast, samples: &[&Sample]) -> Result<()> {
    tell::chapter("Before any policy, everybody reaches the Service");
    apply(cast, samples)?;
    for (name, client) in [(FOO, &cast.foo), (OTHER, &cast.other)] {
        for to in &cast.service {
            let report = eventually(client, *to, |report| report.outcome == Outcome::Answered)
                .with_context(|| format!("{name} does not reach the Service"))?;
            answered(name, *to, &report)?;
        }
    }
    Ok(())
}

fn with_the_policies(cast: &Cast, samples: &[&Sample]) -> Result<()> {
    tell::chapter(&format!("With the policies, only pods labelled {LABEL}={FOO} do"));
    apply(cast, samples)?;
    for to in &cast.service {
        eventually(&cast.other, *to, |report| report.outcome != Outcome::Answered)
            .with_context(|| format!("{OTHER} still reaches the Service"))?;
    }
    for to in &cast.service {
        answered(FOO, *to, &ask(&cast.foo, *to)?)?;
    }
    for to in &cast.service {
        let report = ask(&cast.other, *to)?;
        ensure!(
            report.greeting.is_none(),
            "{OTHER} → {to}: answered, in spite of the policy: {report:?}"
        );
        tell::check(&format!("{OTHER:<9} → {to:<21} gets no answer"));
    }
    Ok(())
}

fn the_label_goes(cast: &Cast) -> Result<()> {
    tell::chapter(&format!(
        "A live connection follows the policy: {FOO} loses its label"
    ));
    let mut streams = Vec::new();
    for to in &cast.service {
        let stream = Stream::new(Protocol::Tcp, *to, 100, Duration::from_secs(120));
        let stream = cast.foo.stream(&stream)?;
        let flows = stream.wait_until("under way", PATIENCE, |report| report.received > 20)?;
        tell::check(&format!(
            "{FOO:<9} → {to:<21} one connection, {} messages echoed so far",
            flows.received
        ));
        streams.push((to, stream));
    }
    let records = cast.agent.flow_records()?.len();
    let (file, text) = cast.samples.without_label(FOO, LABEL)?;
    let changed = Instant::now();
    cast.manifests.write(&file, &text)?;
    tell::say(&format!("{file}: label {LABEL} taken off Pod {FOO}"));
    for (to, stream) in &streams {
        is_cut(to, stream, changed)?;
    }
    log::show(&cast.agent, records, FOO, SERVER, "deny")?;
    for to in &cast.service {
        let report = ask(&cast.foo, *to)?;
        ensure!(
            report.greeting.is_none(),
            "{FOO} → {to}: answered, in spite of the policy: {report:?}"
        );
        tell::check(&format!(
            "{FOO:<9} → {to:<21} a new connection gets no answer either"
        ));
    }
    Ok(())
}

/// Silence, or a reset; and then nothing more.
fn is_cut(to: &SocketAddr, stream: &RunningStream, changed: Instant) -> Result<()> {
    let cut = |report: &weir_testbed::traffic::StreamReport| {
        report.silent_millis > 1500.0 || report.ended.is_some()
    };
    let report = stream.wait_until("cut", PATIENCE, cut)?;
    let after = changed.elapsed().as_secs_f64() * 1000.0 - report.silent_millis;
    sleep(Duration::from_millis(300));
    let later = stream.so_far();
    ensure!(
        later.received == report.received,
        "{FOO} → {to}: data flows again: {later:?}"
    );
    let end = if report.ended.is_some() {
        "was ended"
    } else {
        "is silent"
    };
    let when = if report.ended.is_some() {
        String::new()
    } else {
        format!(", {:.0} ms after the change", after.max(0.0))
    };
    tell::check(&format!("{FOO:<9} → {to:<21} the connection {end}{when}"));
    Ok(())
}

fn apply(cast: &Cast, samples: &[&Sample]) -> Result<()> {
    ensure!(!samples.is_empty(), "the samples of this step are missing");
    for sample in samples {
        cast.manifests.write(&sample.name, &sample.text)?;
        tell::say(&format!("{}: {}", sample.name, sample.titles()));
    }
    Ok(())
}

fn ask(client: &Place, to: SocketAddr) -> Result<TcpReport> {
    client.tcp(&Tcp::to(to).timeout(TIMEOUT))
}

/// Asks again until the answer is as wished.
fn eventually(client: &Place, to: SocketAddr, wish: impl Fn(&TcpReport) -> bool) -> Result<TcpReport> {
    let start = Instant::now();
    loop {
        let report = ask(client, to)?;
        if wish(&report) {
            return Ok(report);
        }
        if start.elapsed() > PATIENCE {
            bail!("{to}, for {PATIENCE:?}: {report:?}");
        }
        sleep(Duration::from_millis(50));
    }
}

fn answered(name: &str, to: SocketAddr, report: &TcpReport) -> Result<()> {
    let greeting = report.greeting.as_ref();
    let greeting = greeting.with_context(|| format!("{name} → {to}: not answered: {report:?}"))?;
    ensure!(report.outcome == Outcome::Answered, "{name} → {to}: {report:?}");
    ensure!(
        greeting.server == SERVER,
        "{name} → {to}: answered by {}",
        greeting.server
    );
    tell::check(&format!(
        "{name:<9} → {to:<21} answered by {} at {}",
        greeting.server, greeting.local
    ));
    Ok(())
}
