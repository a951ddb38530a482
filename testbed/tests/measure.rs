//! Each measurement works over a bare link, in both families, and its figures fit together.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use weir_testbed::Testbed;
use weir_testbed::measure::{Latency, Measure, Sample, Serve, Test};
use weir_testbed::topology::{Direct, direct, tune_for_measuring};

const PORT: u16 = 7000;

fn request(test: Test, to: IpAddr) -> Measure {
    let bytes = if test == Test::UdpPps { 64 } else { 1 };
    Measure {
        test,
        to,
        port: PORT,
        seconds: 0.1,
        bytes,
        cpu: Some(0),
    }
}

#[test]
fn all_tests_in_both_families() -> Result<()> {
    let testbed = Testbed::new("measure")?;
    let direct = direct(&testbed, "d")?;
    tune_for_measuring(&direct.client)?;
    tune_for_measuring(&direct.server)?;
    let _server = direct.server.measuring_server(&Serve {
        port: PORT,
        cpu: Some(0),
    })?;
    for to in Direct::SERVER {
        for test in [
            Test::TcpRr,
            Test::TcpCrr,
            Test::UdpRr,
            Test::UdpPps,
            Test::TcpStream,
        ] {
            let sample = direct.client.measure(&request(test, to))?;
            check(test, &sample).map_err(|error| error.context(format!("{test:?} to {to}: {sample:?}")))?;
        }
    }
    testbed.remove()
}

fn check(test: Test, sample: &Sample) -> Result<()> {
    ensure!(sample.test == test && sample.errors == 0);
    ensure!(sample.seconds >= 0.1 && sample.seconds < 1.0);
    ensure!(sample.operations > 50);
    let one_way = matches!(test, Test::UdpPps | Test::TcpStream);
    ensure!(sample.received.is_some() == one_way && sample.latency.is_none() == one_way);
    ensure!(sample.connect.is_some() == (test == Test::TcpCrr));
    if let Some(latency) = sample.latency {
        let Latency {
            min,
            p50,
            p90,
            p99,
            p999,
            max,
        } = latency;
        ensure!(0 < min && min <= p50 && p50 <= p90 && p90 <= p99 && p99 <= p999 && p999 <= max);
    }
    match (test, sample.received) {
        // On one CPU the sender yields only when its time is up; the rest waits in the socket's queue or is lost.
        (Test::UdpPps, Some(received)) => ensure!(received > 0 && received <= sample.operations),
        (Test::TcpStream, Some(received)) => {
            ensure!(received > 0 && received <= sample.operations * (128 << 10))
        }
        _ => {}
    }
    Ok(())
}

#[test]
fn a_server_that_is_not_there_is_an_error() -> Result<()> {
    let testbed = Testbed::new("measure-not")?;
    let direct = direct(&testbed, "d")?;
    for test in [Test::TcpRr, Test::TcpCrr, Test::UdpPps, Test::TcpStream] {
        let result = direct.client.measure(&request(test, Direct::SERVER[0]));
        ensure!(result.is_err(), "{test:?}: {result:?}");
    }
    let sample = direct.client.measure(&request(Test::UdpRr, Direct::SERVER[0]))?;
    ensure!(sample.operations == 0 && sample.errors > 0, "{sample:?}");
    testbed.remove()
}
