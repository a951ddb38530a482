//! Traffic over a bare link, without a dataplane: what is reported is what happened.

use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_testbed::topology::{Direct, Uplink, connect_routed, direct, forward, node_with_uplink};
use weir_testbed::traffic::{
    Greeting, HalfClose, Icmp, Outcome, Protocol, Serve, Stream, StreamReport, Tcp, Udp,
};
use weir_testbed::{Process, Testbed};

const PORT: u16 = 8080;
const SINK: u16 = 8081;
const LATE: u16 = 8082;

fn serve(at: &weir_testbed::Place, addresses: &[IpAddr]) -> Result<Process> {
    let with = |port| addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
    at.serve(&Serve {
        name: "server".into(),
        echo: with(PORT),
        sink: with(SINK),
        late_echo: with(LATE),
    })
}

/// A [`Direct`] with a server, in a testbed of that name.
fn with_server(name: &str) -> Result<(Testbed, Direct, Process)> {
    let testbed = Testbed::new(name)?;
    let direct = direct(&testbed, "d")?;
    let server = serve(&direct.server, &Direct::SERVER)?;
    Ok((testbed, direct, server))
}

#[test]
fn tcp_is_answered() -> Result<()> {
    let (testbed, direct, _server) = with_server("tcp")?;
    for (client, server) in Direct::CLIENT.into_iter().zip(Direct::SERVER) {
        let to = SocketAddr::new(server, PORT);
        let report = direct.client.tcp(&Tcp {
            bytes: 300_000,
            ..Tcp::to(to)
        })?;
        let local = report.local.expect("a local address");
        assert_eq!(local.ip(), client);
        assert_eq!(
            (report.outcome, report.connected, report.peer),
            (Outcome::Answered, true, Some(to))
        );
        assert_eq!(
            report.greeting,
            Some(Greeting {
                server: "server".into(),
                local: to,
                peer: local
            })
        );
    }
    testbed.remove()
}

#[test]
fn tcp_that_is_not_answered() -> Result<()> {
    let (testbed, direct, _server) = with_server("tcp-not")?;
    for server in Direct::SERVER {
        let closed = Tcp::to(SocketAddr::new(server, 1));
        assert_eq!(direct.client.tcp(&closed)?.outcome, Outcome::Refused);

        let silent = direct
            .client
            .tcp(&Tcp::to(SocketAddr::new(server, SINK)).timeout(Duration::from_millis(100)))?;
        assert_eq!(
            (silent.outcome, silent.connected, silent.greeting),
            (Outcome::TimedOut, true, None)
        );

        direct.client.ip(&format!("route add unreachable {server}"))?;
        assert_eq!(
            direct
                .client
                .tcp(&Tcp::to(SocketAddr::new(server, PORT)))?
                .outcome,
            Outcome::Unreachable
        );
        direct.client.ip(&format!("route del unreachable {server}"))?;
    }
    for (client, server) in Direct::CLIENT.into_iter().zip(Direct::SERVER) {
        direct.server.ip(&format!("route add blackhole {client}"))?;
        let cut = Tcp::to(SocketAddr::new(server, PORT)).timeout(Duration::from_millis(100));
        let report = direct.client.tcp(&cut)?;
        assert_eq!(
            (report.outcome, report.connected, report.local),
            (Outcome::TimedOut, false, None)
        );
    }
    testbed.remove()
}

#[test]
fn udp_is_answered_connected_and_not_whole_and_in_fragments() -> Result<()> {
    let (testbed, direct, _server) = with_server("udp")?;
    for (client, server) in Direct::CLIENT.into_iter().zip(Direct::SERVER) {
        let to = SocketAddr::new(server, PORT);
        for bytes in [0, 64, 1400, 9_000, 60_000] {
            for connected in [false, true] {
                let report = direct.client.udp(&Udp {
                    connected,
                    bytes,
                    ..Udp::to(to)
                })?;
                assert_eq!(
                    report.outcome,
                    Outcome::Answered,
                    "{bytes} bytes, connected: {connected}"
                );
                assert_eq!((report.from, report.peer), (Some(to), connected.then_some(to)));
                let greeting = report.greeting.expect("a greeting");
                assert_eq!((greeting.local, greeting.peer.ip()), (to, client));
            }
        }
    }
    testbed.remove()
}

#[test]
fn udp_that_is_not_answered() -> Result<()> {
    let (testbed, direct, _server) = with_server("udp-not")?;
    for server in Direct::SERVER {
        let closed = Udp::to(SocketAddr::new(server, 1)).timeout(Duration::from_millis(300));
        assert_eq!(
            direct.client.udp(&closed.clone().connected())?.outcome,
            Outcome::Refused
        );
        // A socket that is not connected is not told of ICMP errors.
        assert_eq!(direct.client.udp(&closed)?.outcome, Outcome::TimedOut);
        let silent = Udp::to(SocketAddr::new(server, SINK)).timeout(Duration::from_millis(100));
        assert_eq!(direct.client.udp(&silent.connected())?.outcome, Outcome::TimedOut);
    }
    testbed.remove()
}

#[test]
fn icmp_is_answered_and_errors_are_told() -> Result<()> {
    let testbed = Testbed::new("icmp")?;
    let Uplink { node, outside } = node_with_uplink(&testbed, "node")?;
    forward(&node)?;
    for (own, world) in Uplink::OUTSIDE.into_iter().zip(Uplink::WORLD) {
        for bytes in [0, 56, 9_000] {
            let report = node.icmp(&Icmp::to(world).bytes(bytes))?;
            assert_eq!(
                (report.outcome, report.from, report.error),
                (Outcome::Answered, Some(world), None)
            );
        }
        let nowhere: IpAddr = if own.is_ipv4() {
            "198.51.100.1"
        } else {
            "2001:db8:1::1"
        }
        .parse()?;
        node.ip(&format!("route add unreachable {nowhere}"))?;
        let report = outside.icmp(&Icmp::to(nowhere))?;
        // Host unreachable, and no route to the destination.
        let (from, error) = if own.is_ipv4() {
            (Uplink::NODE[0], (3, 1))
        } else {
            (Uplink::NODE[1], (1, 0))
        };
        assert_eq!(
            (report.outcome, report.from, report.error),
            (Outcome::Unreachable, Some(from), Some(error))
        );
        let silent = Icmp::to(nowhere).timeout(Duration::from_millis(50));
        node.ip(&format!("route replace blackhole {nowhere}"))?;
        assert_eq!(outside.icmp(&silent)?.outcome, Outcome::TimedOut);
    }
    testbed.remove()
}

#[test]
fn a_connection_closed_in_one_direction_goes_on_in_the_other() -> Result<()> {
    let (testbed, direct, _server) = with_server("half")?;
    for server in Direct::SERVER {
        let report = direct
            .client
            .half_close(&HalfClose::to(SocketAddr::new(server, LATE)))?;
        assert_eq!(
            (report.outcome, report.sent, report.received),
            (Outcome::Answered, 100_000, 100_000)
        );
        assert!(
            report.millis > 400.0,
            "it came at once, within {} ms",
            report.millis
        );
    }
    testbed.remove()
}

#[test]
fn an_undisturbed_stream_loses_nothing() -> Result<()> {
    let (testbed, direct, _server) = with_server("stream")?;
    let length = Duration::from_millis(500);
    let mut running = Vec::new();
    for server in Direct::SERVER {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let to = SocketAddr::new(server, PORT);
            running.push(direct.client.stream(&Stream::new(protocol, to, 1000, length))?);
        }
    }
    for stream in running {
        let report = stream.finish()?;
        let expected = StreamReport {
            sent: 500,
            received: 500,
            max_gap_millis: report.max_gap_millis,
            silent_millis: report.silent_millis,
            ..StreamReport::default()
        };
        assert_eq!(report, expected);
    }
    testbed.remove()
}

/// The way back is cut for a while. UDP loses what was sent then, no more and no less; TCP sends it again.
#[test]
fn a_cut_shows_as_loss_in_udp_and_as_a_gap_in_tcp() -> Result<()> {
    const CUT: Duration = Duration::from_millis(400);
    let (testbed, direct, _server) = with_server("cut")?;
    for (client, server) in Direct::CLIENT.into_iter().zip(Direct::SERVER) {
        let to = SocketAddr::new(server, PORT);
        let start = |protocol| {
            direct
                .client
                .stream(&Stream::new(protocol, to, 1000, Duration::from_secs(2)))
        };
        let (tcp, udp) = (start(Protocol::Tcp)?, start(Protocol::Udp)?);
        for stream in [&tcp, &udp] {
            stream.wait_until("under way", Duration::from_secs(5), |report| {
                report.received > 100
            })?;
        }
        direct.server.ip(&format!("route add blackhole {client}"))?;
        sleep(CUT);
        assert!(udp.so_far().silent_millis > 200.0);
        direct.server.ip(&format!("route del blackhole {client}"))?;

        let udp = udp.finish()?;
        ensure!(udp.lost > 300 && udp.received > 100, "{udp:?}");
        ensure!(
            udp.max_gap_millis > 350.0 && udp.max_gap_millis < 1000.0,
            "{udp:?}"
        );
        assert_eq!(
            (udp.sent, udp.sent - udp.received, udp.ended),
            (2000, udp.lost, None)
        );

        let tcp = tcp.finish()?;
        ensure!(tcp.max_gap_millis > 350.0, "{tcp:?}");
        assert_eq!(
            (tcp.sent, tcp.received, tcp.lost, tcp.ended),
            (2000, 2000, 0, None)
        );
    }
    testbed.remove()
}

#[test]
fn a_stream_tells_of_a_reset_and_of_a_closed_server() -> Result<()> {
    let (testbed, direct, mut server) = with_server("reset")?;
    let to = SocketAddr::new(Direct::SERVER[0], PORT);
    let start = |protocol| {
        direct
            .client
            .stream(&Stream::new(protocol, to, 1000, Duration::from_secs(20)))
    };
    let (tcp, udp) = (start(Protocol::Tcp)?, start(Protocol::Udp)?);
    for stream in [&tcp, &udp] {
        stream.wait_until("under way", Duration::from_secs(5), |report| report.received > 10)?;
    }
    server.kill9()?;
    // The kernel closes the connection and then refuses what still comes; which is seen first is open.
    let report = tcp.finish()?;
    assert!(
        matches!(report.ended, Some(Outcome::Closed | Outcome::Reset)),
        "{report:?}"
    );
    // The kernel sends a few ICMP errors at once and then one a second.
    udp.wait_until("refused", Duration::from_secs(5), |report| report.errors >= 2)?;
    testbed.remove()
}

/// Two pods on a node, joined by the kernel's routing; and a host outside that reaches them.
#[test]
fn routed_pods_reach_each_other_and_the_outside() -> Result<()> {
    let testbed = Testbed::new("routed")?;
    let Uplink { node, outside } = node_with_uplink(&testbed, "node")?;
    forward(&node)?;
    let addresses = |last: u8| -> [IpAddr; 2] {
        [
            [10, 244, 1, last].into(),
            [0xfd00, 0x10, 0x244, 1, 0, 0, 0, u16::from(last)].into(),
        ]
    };
    let (client, server) = (testbed.pod(&node, "client")?, testbed.pod(&node, "server")?);
    connect_routed(&node, &client, "pod1", &addresses(1))?;
    connect_routed(&node, &server, "pod2", &addresses(2))?;
    let _pod = serve(&server, &addresses(2))?;
    let _outside = serve(&outside, &Uplink::WORLD)?;
    for (from, to) in [
        (&client, addresses(2)),
        (&outside, addresses(2)),
        (&client, Uplink::WORLD),
    ] {
        for to in to {
            assert_eq!(
                from.icmp(&Icmp::to(to))?.outcome,
                Outcome::Answered,
                "ICMP to {to}"
            );
            let to = SocketAddr::new(to, PORT);
            assert_eq!(from.tcp(&Tcp::to(to))?.outcome, Outcome::Answered, "TCP to {to}");
            assert_eq!(
                from.udp(&Udp::to(to).bytes(9000))?.outcome,
                Outcome::Answered,
                "UDP to {to}"
            );
        }
    }
    testbed.remove()
}
