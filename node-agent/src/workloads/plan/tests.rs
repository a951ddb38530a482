use super::*;

fn link() -> PodLink {
    PodLink {
        netns: "/run/netns/a".into(),
        host_ifname: "weir1".into(),
        pod_ifname: "eth0".into(),
        addresses: vec![address("fd00::5"), address("10.0.0.5")],
        mtu: 1500,
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

const POD_MAC: Mac = Mac([0x0a, 0x58, 10, 0, 0, 5]);
const OTHER_MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

/// The kernel holds exactly what is wanted.
fn right() -> Seen {
    let peer = PeerLink {
        index: 7,
        mac: HOST_MAC,
        alias: ALIAS.into(),
    };
    Seen {
        host: Some(HostLink {
            index: 7,
            veth: true,
            peers_with_pod: true,
            end: wanted_host(&link()),
        }),
        pod: Some(PodEnd {
            index: 2,
            end: wanted_pod(&link()),
            peer: Some(peer),
        }),
        loopback_up: true,
    }
}

fn nothing() -> Seen {
    Seen {
        host: None,
        pod: None,
        loopback_up: false,
    }
}

/// What the kernel holds after `steps`, with the side effects that the kernel's have.
fn settle(mut seen: Seen, steps: &[Operation]) -> Seen {
    for step in steps {
        match step {
            Operation::RemovePair { index } => {
                if seen
                    .pod
                    .as_ref()
                    .and_then(|pod| pod.peer.as_ref())
                    .is_some_and(|peer| peer.index == *index)
                {
                    seen.pod = None;
                }
                if seen.host.as_ref().is_some_and(|host| host.index == *index) {
                    seen.host = None;
                }
            }
            Operation::CreatePair => {
                assert_eq!((&seen.host, &seen.pod), (&None, &None), "both names must be free");
                let peer = PeerLink {
                    index: 7,
                    mac: HOST_MAC,
                    alias: ALIAS.into(),
                };
                let end = fresh(wanted_host(&link()));
                seen.host = Some(HostLink {
                    index: 7,
                    veth: true,
                    peers_with_pod: true,
                    end,
                });
                seen.pod = Some(PodEnd {
                    index: 2,
                    end: fresh(wanted_pod(&link())),
                    peer: Some(peer),
                });
            }
            Operation::LoopbackUp => seen.loopback_up = true,
            Operation::SetSysctl { end, sysctl, value } => {
                of(&mut seen, *end).sysctls.insert(*sysctl, value.clone());
            }
            Operation::SetMac { end, mac } => {
                let end = of(&mut seen, *end);
                end.mac = *mac;
                end.neighbours.clear();
            }
            Operation::SetMtu { end, mtu } => of(&mut seen, *end).mtu = *mtu,
            Operation::SetAlias { end, alias } => of(&mut seen, *end).alias.clone_from(alias),
            Operation::SetUp { end } => of(&mut seen, *end).up = true,
            Operation::AddAddress { end, address } => {
                let end = of(&mut seen, *end);
                let twice = |net: &IpNet| net.addr() == address.addr() && address.addr().is_ipv6();
                assert!(!end.addresses.iter().any(twice), "IPv6 knows an address once");
                assert!(end.addresses.insert(*address));
            }
            Operation::RemoveAddress { end, address } => {
                let end = of(&mut seen, *end);
                assert!(end.addresses.remove(address));
                let is_v4 = |net: &IpNet| net.addr().is_ipv4();
                if is_v4(address) && !end.addresses.iter().any(is_v4) {
                    end.routes.retain(|route| !is_v4(&route.destination));
                    end.neighbours.retain(|address, _| address.is_ipv6());
                }
            }
            Operation::AddRoute { end, route } => {
                let end = of(&mut seen, *end);
                assert!(end.up, "a link that is down takes no routes");
                let reachable = |gateway| end.routes.iter().any(|r| r.destination == single(gateway));
                assert!(route.gateway.is_none_or(reachable), "the gateway comes first");
                assert!(end.routes.insert(*route));
            }
            Operation::RemoveRoute { end, route } => assert!(of(&mut seen, *end).routes.remove(route)),
            Operation::RemoveNeighbour { end, address } => {
                assert!(of(&mut seen, *end).neighbours.remove(address).is_some());
            }
            Operation::SetNeighbour { end, address, mac } => {
                let end = of(&mut seen, *end);
                assert!(end.up, "a link that is down takes no neighbours");
                end.neighbours.insert(*address, *mac);
            }
        }
    }
    seen
}

fn of(seen: &mut Seen, end: EndName) -> &mut End {
    match end {
        EndName::Host => &mut seen.host.as_mut().expect("a host end").end,
        EndName::Pod => &mut seen.pod.as_mut().expect("a pod end").end,
    }
}

type Damage = (&'static str, fn(&mut End));

/// Everything that can be wrong with an end of a pair that is there.
fn damages() -> Vec<Damage> {
    vec![
        ("address", |end| end.mac = OTHER_MAC),
        ("mtu", |end| end.mtu = 1400),
        ("alias", |end| end.alias = "weir".chars().rev().collect()),
        ("down", |end| {
            end.up = false;
            end.routes.clear();
            end.neighbours.clear();
            end.addresses.retain(|net| net.addr().is_ipv4());
        }),
        ("no addresses", |end| end.addresses.clear()),
        ("stale addresses", |end| {
            end.addresses = [net("10.0.0.9/32"), net("fd00::9/128")].into()
        }),
        ("address of another length", |end| {
            end.addresses = [net("10.0.0.5/24"), net("fd00::5/64")].into()
        }),
        ("no routes", |end| end.routes.clear()),
        ("stale route", |end| {
            end.routes.insert(Route {
                gateway: None,
                destination: net("10.0.0.9/32"),
            });
        }),
        ("other gateway", |end| {
            let mut routes = std::mem::take(&mut end.routes);
            routes.retain(|route| route.gateway.is_none());
            routes.insert(Route {
                gateway: Some(address("10.0.0.1")),
                destination: net("0.0.0.0/0"),
            });
            end.routes = routes;
        }),
        ("no neighbours", |end| end.neighbours.clear()),
        ("stale neighbour", |end| {
            end.neighbours.insert(address("10.0.0.9"), OTHER_MAC);
        }),
        ("neighbours at another address", |end| {
            end.neighbours.values_mut().for_each(|mac| *mac = OTHER_MAC)
        }),
        ("no settings", |end| end.sysctls.clear()),
        ("other settings", |end| {
            end.sysctls.values_mut().for_each(|value| value.push('7'))
        }),
    ]
}

#[test]
fn from_nothing() {
    let sysctl = |end, family, key, value: &str| Operation::SetSysctl {
        end,
        sysctl: Sysctl { family, key },
        value: value.into(),
    };
    let route = |end, gateway: Option<&str>, destination| Operation::AddRoute {
        end,
        route: Route {
            gateway: gateway.map(address),
            destination: net(destination),
        },
    };
    use super::super::Family::{V4, V6};
    use EndName::{Host, Pod};
    let expected = vec![
        Operation::CreatePair,
        Operation::LoopbackUp,
        sysctl(Pod, V6, "accept_dad", "0"),
        sysctl(Pod, V6, "accept_ra", "0"),
        sysctl(Pod, V6, "disable_ipv6", "0"),
        Operation::SetUp { end: Pod },
        Operation::AddAddress {
            end: Pod,
            address: net("10.0.0.5/32"),
        },
        Operation::AddAddress {
            end: Pod,
            address: net("fd00::5/128"),
        },
        route(Pod, None, "169.254.1.1/32"),
        route(Pod, None, "fe80::1/128"),
        route(Pod, Some("169.254.1.1"), "0.0.0.0/0"),
        route(Pod, Some("fe80::1"), "::/0"),
        Operation::SetNeighbour {
            end: Pod,
            address: address("169.254.1.1"),
            mac: HOST_MAC,
        },
        Operation::SetNeighbour {
            end: Pod,
            address: address("fe80::1"),
            mac: HOST_MAC,
        },
        sysctl(Host, V4, "accept_local", "1"),
        sysctl(Host, V4, "forwarding", "1"),
        sysctl(Host, V4, "rp_filter", "0"),
        sysctl(Host, V6, "accept_dad", "0"),
        sysctl(Host, V6, "accept_ra", "0"),
        sysctl(Host, V6, "addr_gen_mode", "1"),
        sysctl(Host, V6, "disable_ipv6", "0"),
        sysctl(Host, V6, "forwarding", "1"),
        Operation::SetAlias {
            end: Host,
            alias: "weir".into(),
        },
        // From here on packets can pass.
        Operation::SetUp { end: Host },
        route(Host, None, "10.0.0.5/32"),
        route(Host, None, "fd00::5/128"),
        Operation::SetNeighbour {
            end: Host,
            address: address("10.0.0.5"),
            mac: POD_MAC,
        },
        Operation::SetNeighbour {
            end: Host,
            address: address("fd00::5"),
            mac: POD_MAC,
        },
    ];
    assert_eq!(plan(&link(), &nothing()), Ok(expected.clone()));
    assert_eq!(settle(nothing(), &expected), right());
}

#[test]
fn what_is_right_stays() {
    assert_eq!(plan(&link(), &right()), Ok(vec![]));
}

#[test]
fn the_order_of_addresses_means_nothing() {
    let mut other = link();
    other.addresses.reverse();
    assert_eq!(plan(&other, &right()), Ok(vec![]));
}

/// Any two damages together, at either end, are mended in one go, and without a new pair.
#[test]
fn what_is_partly_wrong_is_mended() {
    for (first_name, first) in damages() {
        for (second_name, second) in damages() {
            for (one, two) in [
                (EndName::Pod, EndName::Pod),
                (EndName::Pod, EndName::Host),
                (EndName::Host, EndName::Host),
                (EndName::Host, EndName::Pod),
            ] {
                let mut seen = right();
                first(of(&mut seen, one));
                second(of(&mut seen, two));
                let host = &seen.host.as_ref().expect("a host end").end;
                if !is_ours(host.mac, &host.alias) {
                    continue;
                }
                let steps = plan(&link(), &seen).expect("a plan");
                assert!(
                    !steps.contains(&Operation::CreatePair),
                    "{first_name}, {second_name}"
                );
                assert_eq!(
                    settle(seen, &steps),
                    right(),
                    "{first_name} at {one}, {second_name} at {two}"
                );
            }
        }
    }
}

#[test]
fn one_wrong_thing_takes_one_step() {
    let mut seen = right();
    of(&mut seen, EndName::Pod).mtu = 9000;
    assert_eq!(
        plan(&link(), &seen),
        Ok(vec![Operation::SetMtu {
            end: EndName::Pod,
            mtu: 1500
        }])
    );
}

#[test]
fn a_pair_into_another_pod_is_replaced() {
    let mut seen = right();
    seen.pod = None;
    if let Some(host) = &mut seen.host {
        host.peers_with_pod = false;
    }
    let steps = plan(&link(), &seen).expect("a plan");
    assert_eq!(
        steps[..2],
        [Operation::RemovePair { index: 7 }, Operation::CreatePair]
    );
    assert_eq!(settle(seen, &steps), right());
}

#[test]
fn a_pair_of_ours_under_another_name_is_replaced() {
    let mut seen = right();
    seen.host = None;
    if let Some(peer) = seen.pod.as_mut().and_then(|pod| pod.peer.as_mut()) {
        peer.index = 4;
    }
    let steps = plan(&link(), &seen).expect("a plan");
    assert_eq!(
        steps[..2],
        [Operation::RemovePair { index: 4 }, Operation::CreatePair]
    );
    assert_eq!(settle(seen, &steps), right());
}

#[test]
fn what_is_not_ours_is_not_touched() {
    let mut seen = right();
    of(&mut seen, EndName::Host).mac = OTHER_MAC;
    of(&mut seen, EndName::Host).alias.clear();
    assert_eq!(
        plan(&link(), &seen),
        Err(Refusal::HostNameTaken { name: "weir1".into() })
    );

    let mut seen = right();
    if let Some(host) = &mut seen.host {
        host.veth = false;
    }
    assert_eq!(
        plan(&link(), &seen),
        Err(Refusal::HostNameTaken { name: "weir1".into() })
    );

    let mut seen = right();
    seen.host = None;
    if let Some(pod) = &mut seen.pod {
        pod.peer = None;
    }
    assert_eq!(
        plan(&link(), &seen),
        Err(Refusal::PodNameTaken { name: "eth0".into() })
    );
}

#[test]
fn one_family_leaves_the_other_alone() {
    let v4 = PodLink {
        addresses: vec![address("10.0.0.5")],
        ..link()
    };
    let steps = plan(&v4, &nothing()).expect("a plan");
    let v6 = |step: &Operation| format!("{step}").contains("ipv6") || format!("{step}").contains("::");
    assert_eq!(
        steps.iter().filter(|step| v6(step)).collect::<Vec<_>>(),
        Vec::<&Operation>::new()
    );
    let v6_only = PodLink {
        addresses: vec![address("fd00::102:304")],
        ..link()
    };
    assert_eq!(pod_mac(&v6_only), Mac([0x0a, 0x58, 1, 2, 3, 4]));
}

#[test]
fn bad_input_is_refused_by_field() {
    let field = |change: fn(&mut PodLink)| {
        let mut bad = link();
        change(&mut bad);
        match plan(&bad, &nothing()) {
            Err(Refusal::Invalid { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(field(|l| l.addresses.clear()), "addresses");
    for unusable in [
        "0.0.0.0",
        "::",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "169.254.1.1",
        "fe80::1",
        "ff02::1",
    ] {
        let bad = PodLink {
            addresses: vec![address(unusable)],
            ..link()
        };
        let refused = plan(&bad, &nothing());
        assert!(
            matches!(
                refused,
                Err(Refusal::Invalid {
                    field: "addresses",
                    ..
                })
            ),
            "{unusable}: {refused:?}"
        );
    }
    assert_eq!(field(|l| l.mtu = 1279), "mtu");
    assert_eq!(field(|l| l.mtu = 65536), "mtu");
    assert_eq!(
        field(|l| l.host_ifname = "sixteencharacter".into()),
        "host_ifname"
    );
    assert_eq!(field(|l| l.host_ifname = "weir%d".into()), "host_ifname");
    assert_eq!(field(|l| l.pod_ifname = String::new()), "pod_ifname");
    assert_eq!(field(|l| l.pod_ifname = "a/b".into()), "pod_ifname");
    let v4 = PodLink {
        addresses: vec![address("10.0.0.5")],
        mtu: 576,
        ..link()
    };
    assert!(plan(&v4, &nothing()).is_ok());
}
