//! A pod's first moments: nothing passes before its policy is in the kernel.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use socket2::{Domain, Socket, Type};
use weir_testbed::Place;

use crate::address::{Address, End};
use crate::node::{Node, PORT};
use crate::policy::{deny_all, network_policy, pods};
use crate::probe::{expect, tcp, udp};

/// Sends datagrams and opens connections to all of these, as fast as it goes, from before there is a way.
fn hammer(place: &Place, to: &[SocketAddr], stop: &AtomicBool) -> Result<()> {
    place
        .run(|| -> std::io::Result<()> {
            let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            let v6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
            while !stop.load(Ordering::Relaxed) {
                for to in to {
                    // There is no network most of the time.
                    let _ = if to.is_ipv4() {
                        v4.send_to(b"early", to)
                    } else {
                        v6.send_to(b"early", to)
                    };
                    let socket = Socket::new(Domain::for_address(*to), Type::STREAM, None)?;
                    socket.set_nonblocking(true)?;
                    let _ = socket.connect(&(*to).into());
                }
                sleep(Duration::from_micros(200));
            }
            Ok(())
        })?
        .map_err(Into::into)
}

/// Runs `work` while the first of each pair hammers at the second.
fn while_hammering(pairs: &[(&End, &End)], work: impl FnOnce() -> Result<()>) -> Result<()> {
    let stop = AtomicBool::new(false);
    scope(|scope| {
        let start = |(from, to): &(&End, &End)| {
            let (place, to) = (from.place.clone(), to.address.at(PORT));
            let stop = &stop;
            scope.spawn(move || hammer(&place, &to, stop))
        };
        let hammering: Vec<_> = pairs.iter().map(start).collect();
        let result = work();
        stop.store(true, Ordering::Relaxed);
        for hammering in hammering {
            hammering
                .join()
                .map_err(|_| anyhow::anyhow!("a hammer panicked"))??;
        }
        result
    })
}

#[test]
fn not_one_packet_passes_before_the_policy_is_there() -> Result<()> {
    let node = Node::start("window")?;
    let server = node.pod("server", 1)?;
    network_policy(&node.manifests, "closed", &deny_all("late"))?;
    expect(&[tcp(&server, &node.outside, PORT).answered()])?;
    // Made anew: under new addresses, under those of before, and after the agent was away.
    for (round, last) in [10, 11, 10, 11, 10].into_iter().enumerate() {
        let late = End {
            address: Address::new("late", crate::address::pod_ips(last)),
            ..node.place(&format!("late-{round}"), last)?
        };
        let (at_server, at_late) = (server.place.arrivals()?, late.place.arrivals()?);
        while_hammering(&[(&late, &server), (&server, &late)], || {
            sleep(Duration::from_millis(100));
            node.describe(&late, &[("app", "late")])?;
            // The node reaches it: so it is connected.
            expect(&[tcp(&node.end, &late, PORT).answered()])?;
            sleep(Duration::from_millis(300));
            Ok(())
        })?;
        assert_eq!(server.place.arrivals()?, at_server, "round {round}");
        let arrived = late.place.arrivals()? - at_late;
        assert_eq!(arrived.udp, 0, "round {round}");
        // It worked hard enough for the test to mean something.
        ensure!(node.packets("isolated")? > 100, "round {round}");
        node.remove_pod(&late)?;
        drop(late);
    }
    node.end()
}

/// A pod that has the right to talk can talk as soon as it is connected; and one whose address another has had before
/// does not inherit that one's rights.
#[test]
fn an_address_does_not_keep_the_rights_of_its_former_pod() -> Result<()> {
    let node = Node::start("window-heir")?;
    let server = node.pod("server", 1)?;
    network_policy(&node.manifests, "closed", &deny_all("late"))?;
    network_policy(
        &node.manifests,
        "in",
        &json!({ "podSelector": pods("server"), "ingress": [{ "from": [{ "podSelector": pods("good") }] }] }),
    )?;
    for round in 0..3 {
        let good = End {
            address: Address::new("good", crate::address::pod_ips(20)),
            ..node.place(&format!("good-{round}"), 20)?
        };
        node.describe(&good, &[("app", "good")])?;
        expect(&[
            tcp(&good, &server, PORT).answered(),
            udp(&good, &server, PORT).answered(),
        ])?;
        let late = End {
            address: Address::new("late", crate::address::pod_ips(20)),
            ..node.place(&format!("late-{round}"), 20)?
        };
        // The one goes and the other comes, in the same moment.
        let before = server.place.arrivals()?;
        while_hammering(&[(&late, &server)], || {
            node.describe(&late, &[("app", "late")])?;
            node.remove_pod(&good)?;
            expect(&[tcp(&node.end, &late, PORT).answered()])?;
            sleep(Duration::from_millis(300));
            Ok(())
        })?;
        let arrived = server.place.arrivals()? - before;
        assert_eq!((arrived.udp, arrived.tcp), (0, 0), "round {round}");
        node.remove_pod(&late)?;
    }
    node.end()
}
