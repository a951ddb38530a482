//! The third judge: the programs in the kernel say of every packet what the host's datapath says of its connection.

mod judging;
mod kernel_bed;

use std::cell::RefCell;
use std::collections::BTreeMap;

use judging::cluster::{NODES, World, connected, desired_with, world, world_with_pod_ranges};
use judging::host::{Host, connection, sides};
use kernel_bed::{Bed, CAPACITIES, in_bed, open};
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use weir_abi::address::{Address, address_flags};
use weir_abi::config::Control;
use weir_abi::event::{EVENT_VERSION, FlowEvent, SideVerdict, event_flags, side_verdict};
use weir_abi::explain::Explanation;
use weir_abi::policy::{NO_RULE, RuleCount};
use weir_abi::reason::Reason;
use weir_abi::workload::workload_flags;
use weir_agent::contents::Contents;
use weir_agent::flow::decode::decode;
use weir_agent::kernel::{Capacities, Kernel, LogCount, Ring, TestPacket};
use weir_agent::log_wishes::LogWishes;
use weir_agent::sync::Sync;
use weir_agent::table::Maps as _;
use weir_datapath::judge::{Connection, Judgement, judge};
use weir_datapath::packet::{protocol, tcp_flags};
use weir_datapath::service::{Destination, resolve};
use weir_datapath::testing::{echo, sctp, tcp, udp};
use weir_policy::arbitrary;
use weir_policy::resolved::Flow;
use weir_policy::snapshot::PodId;

const NODE: &str = NODES[0];
const FLOWS: usize = 40;
const CLUSTERS: u32 = 60;
const TC_ACT_OK: i32 = 0;
const TC_ACT_SHOT: i32 = 2;
const TC_ACT_REDIRECT: i32 = 7;

/// As many as a generated cluster has.
const PODS: usize = 7;

struct Judges {
    kernel: Kernel,
    sync: Sync,
    ring: Ring,
    /// By the number in a pod's name.
    interfaces: Vec<u32>,
    /// An interface that is no pod's.
    uplink: u32,
    source_port: u16,
    before: Counters,
}

/// Everything that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counters {
    reasons: BTreeMap<Reason, u64>,
    rules: BTreeMap<u32, RuleCount>,
    log: LogCount,
}

/// What the kernel did with a packet, or should do.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    action: i32,
    reasons: BTreeMap<Reason, u64>,
    rules: BTreeMap<u32, RuleCount>,
    /// Without CPU, sequence and time.
    records: Vec<FlowEvent>,
    /// Records that were due, and those of them that were lost.
    log: LogCount,
}

#[test]
fn the_kernel_agrees_with_the_host() {
    in_bed(|bed| {
        let judges = RefCell::new(Judges::new(bed));
        let cases = world_with_pod_ranges().prop_flat_map(|world| {
            let flows = arbitrary::some_flows(&world.snapshot, FLOWS);
            (Just(world), flows, any::<Option<proptest::sample::Index>>())
        });
        let config = ProptestConfig {
            cases: CLUSTERS,
            failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
                "proptest-regressions/judge_kernel.txt",
            ))),
            max_shrink_iters: 200,
            ..ProptestConfig::default()
        };
        TestRunner::new(config)
            .run(&cases, |(world, flows, closed)| {
                judges.borrow_mut().hold(&world, &flows, closed)
            })
            .unwrap_or_else(|error| panic!("{error}"));
    });
}

impl Judges {
    fn new(bed: &Bed) -> Self {
        let mut config = bed.config();
        config.capacities = Capacities {
            flows: 10_000,
            policy: 8_192,
            ports: 8_192,
            rules: 2_048,
            numbers: 8_192,
            ..CAPACITIES
        };
        let mut kernel = open(config);
        let control = Control {
            revision: 0,
            log_budget: u32::MAX,
        };
        kernel.set_control(control).expect("control");
        Self {
            ring: kernel.ring().expect("the ring"),
            before: Counters::read(&kernel),
            sync: Sync::default(),
            interfaces: (0..PODS)
                .map(|number| bed.veth(&format!("pod-{number}")))
                .collect(),
            uplink: bed.veth("uplink"),
            source_port: 1_000,
            kernel,
        }
    }

    /// Programs a cluster over the one before, and holds the two judges against each other.
    fn hold(
        &mut self,
        world: &World,
        flows: &[Flow],
        closed: Option<proptest::sample::Index>,
    ) -> Result<(), TestCaseError> {
        let contents = self.program(world, closed)?;
        for flow in flows {
            self.source_port = self.source_port.checked_add(1).unwrap_or(1_000);
            let asked = Asked::new(flow, self.source_port, &contents);
            self.explains(&contents, &asked)?;
            self.decides(&contents, &asked)?;
        }
        for service in &world.services {
            for source in contents.workloads.keys().map(Address::to_ip) {
                if source.is_ipv4() == service.address.is_ipv4() {
                    let flow = Flow {
                        source,
                        destination: service.address,
                        protocol: service.protocol,
                        destination_port: service.port,
                    };
                    self.explains(&contents, &Asked::new(&flow, 999, &contents))?;
                }
            }
        }
        Ok(())
    }

    fn program(
        &mut self,
        world: &World,
        closed: Option<proptest::sample::Index>,
    ) -> Result<Contents, TestCaseError> {
        // A connection of the cluster before would be judged again, and not anew.
        self.kernel.expire_flows(1 << 30).expect("flows");
        let log = LogWishes {
            flags: workload_flags::LOG_INGRESS_ALLOW
                | workload_flags::LOG_INGRESS_DENY
                | workload_flags::LOG_EGRESS_ALLOW
                | workload_flags::LOG_EGRESS_DENY,
            allow_every: 1,
        };
        let mut pods = connected(&world.snapshot, NODE, |id| self.interface(id), log);
        if let Some(closed) = closed.filter(|_| !pods.is_empty()) {
            let place = closed.index(pods.len());
            pods.values_mut()
                .skip(place)
                .take(1)
                .for_each(|pod| pod.closed = true);
        }
        let desired = desired_with(world, NODE, &pods, self.sync.actual(&self.kernel).expect("maps"));
        self.sync
            .apply(&mut self.kernel, desired.contents.clone())
            .expect("room in the maps");
        prop_assert_eq!(
            Contents::read(&self.kernel).expect("maps"),
            desired.contents.clone()
        );
        Ok(desired.contents)
    }

    fn interface(&self, id: &PodId) -> u32 {
        let number = id
            .name
            .rsplit('-')
            .next()
            .and_then(|number| number.parse::<usize>().ok());
        self.interfaces[number.expect("a number in the name")]
    }

    fn explains(&mut self, contents: &Contents, asked: &Asked) -> Result<(), TestCaseError> {
        let answer = self
            .kernel
            .explain(&asked.packet, self.uplink)
            .expect("an answer");
        prop_assert_eq!(answer, explanation(contents, &asked.connection), "{:?}", asked);
        prop_assert_eq!(&Counters::read(&self.kernel), &self.before);
        Ok(())
    }

    /// The packet on every hook on which it can appear, and on some where it cannot.
    fn decides(&mut self, contents: &Contents, asked: &Asked) -> Result<(), TestCaseError> {
        let c = asked.connection;
        let mut runs = vec![("from_wire", self.uplink), ("from_pod", self.uplink)];
        if c.is_to_pod() {
            runs.push(("to_pod", c.destination_pod.ifindex));
        }
        if c.is_from_pod() {
            runs.push(("from_pod", c.source_pod.ifindex));
        }
        for (program, ifindex) in runs {
            let expected = expected(contents, asked, program, ifindex);
            let outcome = self.run(program, ifindex, &asked.packet);
            prop_assert_eq!(outcome, expected, "{} of {:?}", program, asked);
            // The next hook is to judge a first packet, too.
            self.kernel.expire_flows(1 << 30).expect("flows");
        }
        Ok(())
    }

    fn run(&mut self, program: &str, ifindex: u32, packet: &[u8]) -> Outcome {
        let packet = TestPacket {
            bytes: packet,
            ifindex,
            repeat: 1,
        };
        let outcome = self.kernel.test_run(program, &packet).expect("a run");
        let after = Counters::read(&self.kernel);
        let before = std::mem::replace(&mut self.before, after.clone());
        let mut records = Vec::new();
        self.ring.drain(|bytes| {
            let record = decode(bytes).expect("a record of ours");
            records.push(FlowEvent {
                cpu: 0,
                sequence: 0,
                time: 0,
                ..record
            });
        });
        Outcome {
            action: outcome.return_value,
            reasons: after
                .reasons
                .iter()
                .map(|(reason, count)| (*reason, count - before.reasons[reason]))
                .filter(|(_, count)| *count != 0)
                .collect(),
            rules: after
                .rules
                .iter()
                .map(|(rule, count)| {
                    (
                        *rule,
                        less(*count, before.rules.get(rule).copied().unwrap_or_default()),
                    )
                })
                .filter(|(_, count)| *count != RuleCount::default())
                .collect(),
            records,
            log: LogCount {
                due: after.log.due - before.log.due,
                lost: after.log.lost - before.log.lost,
            },
        }
    }
}

impl Counters {
    fn read(kernel: &Kernel) -> Self {
        Self {
            reasons: kernel.packets().expect("counters"),
            rules: kernel.rule_counts().expect("rule counts"),
            log: kernel.log_count().expect("the log count"),
        }
    }
}

fn less(count: RuleCount, before: RuleCount) -> RuleCount {
    RuleCount {
        allowed: count.allowed - before.allowed,
        denied: count.denied - before.denied,
        logged: count.logged - before.logged,
        lost: count.lost - before.lost,
    }
}

/// A connection, and its first packet.
#[derive(Debug)]
struct Asked {
    connection: Connection,
    packet: Vec<u8>,
    /// TCP flags or ICMP type.
    detail: u8,
}

impl Asked {
    fn new(flow: &Flow, source_port: u16, contents: &Contents) -> Self {
        let (from, to, port) = (flow.source, flow.destination, flow.destination_port);
        let mut connection = connection(contents, flow, source_port);
        let (packet, detail) = match flow.protocol {
            protocol::TCP => (tcp(from, to, source_port, port, tcp_flags::SYN), tcp_flags::SYN),
            protocol::UDP => (udp(from, to, source_port, port), 0),
            protocol::SCTP => (sctp(from, to, source_port, port), 0),
            _ => {
                // The identifier stands for both ports.
                connection.destination_port = connection.source_port;
                (echo(from, to, source_port), if from.is_ipv4() { 8 } else { 128 })
            }
        };
        Self {
            connection,
            packet: packet.bytes(),
            detail,
        }
    }
}

fn explanation(contents: &Contents, connection: &Connection) -> Explanation {
    let (host, mut c) = (Host(contents), *connection);
    let mut judgement = Judgement::NONE;
    let mut nowhere = false;
    if c.is_from_pod() {
        match resolve(&host, &c.destination, c.destination_port, c.protocol, 0) {
            Destination::Plain => {}
            Destination::NoBackend => nowhere = true,
            Destination::Backend(backend) => {
                c.destination = backend.address;
                c.destination_port = backend.port;
                c.destination_pod = contents
                    .workloads
                    .get(&backend.address)
                    .copied()
                    .unwrap_or_default();
            }
        }
    }
    let reason = if nowhere {
        Reason::NoBackend
    } else {
        judge(&host, &c, &mut judgement)
    };
    Explanation {
        reason: reason as u8,
        has_flow: 0,
        padding: [0; 2],
        source_identity: judgement.source_identity,
        destination_identity: judgement.destination_identity,
        destination_port: c.destination_port,
        padding2: 0,
        destination: c.destination,
        egress: judgement.egress,
        ingress: judgement.ingress,
    }
}

fn is_this_node(contents: &Contents, address: &Address) -> bool {
    let value = contents.addresses.get(address);
    value.is_some_and(|value| value.flags & address_flags::LOCAL_NODE != 0)
}

fn expected(contents: &Contents, asked: &Asked, program: &str, ifindex: u32) -> Outcome {
    let c = &asked.connection;
    let mut judgement = Judgement::NONE;
    let refusal = match program {
        "from_pod" => (c.source_pod.ifindex != ifindex).then_some(Reason::SourceNotOwn),
        "to_pod" if c.destination_pod.ifindex != ifindex => Some(Reason::PodClosed),
        "from_wire" if !c.is_to_pod() => Some(Reason::NotForPod),
        // Nobody outside is the node.
        "from_wire" if is_this_node(contents, &c.source) => Some(Reason::SourceNotOwn),
        _ => c.is_from_pod().then_some(Reason::SourceNotOwn),
    };
    let reason = refusal.unwrap_or_else(|| judge(&Host(contents), c, &mut judgement));
    let redirected = program != "to_pod" && c.is_to_pod() && reason != Reason::NotForPod;
    let (rules, flags) = if refusal.is_some() {
        (BTreeMap::new(), 0)
    } else {
        told(&judgement, reason)
    };
    let record = FlowEvent {
        version: EVENT_VERSION,
        cpu: 0,
        reason: reason as u8,
        protocol: c.protocol,
        detail: asked.detail,
        flags,
        sequence: 0,
        time: 0,
        source: c.source,
        destination: c.destination,
        service: Address::default(),
        source_port: c.source_port,
        destination_port: c.destination_port,
        service_port: 0,
        padding: 0,
        source_identity: judgement.source_identity,
        destination_identity: judgement.destination_identity,
        egress: judgement.egress,
        ingress: judgement.ingress,
    };
    let records: Vec<FlowEvent> = Some(record)
        .filter(|record| record.flags != 0)
        .into_iter()
        .collect();
    Outcome {
        action: match (reason.is_forward(), redirected) {
            (false, _) => TC_ACT_SHOT,
            (true, true) => TC_ACT_REDIRECT,
            (true, false) => TC_ACT_OK,
        },
        reasons: [(reason, 1)].into(),
        rules,
        log: LogCount {
            due: records.len() as u64,
            lost: 0,
        },
        records,
    }
}

/// What is counted of each rule, and for which ends a record is due: for the end that denied; else for each end whose
/// rule allowed it, and for one whose dry-run policies would deny it.
fn told(judgement: &Judgement, reason: Reason) -> (BTreeMap<u32, RuleCount>, u8) {
    let ends = [
        (&judgement.egress, event_flags::LOG_EGRESS),
        (&judgement.ingress, event_flags::LOG_INGRESS),
    ];
    let denies = |side: &SideVerdict| side.verdict == side_verdict::DENY;
    let (mut rules, mut flags) = (BTreeMap::new(), 0);
    for (side, flag) in ends {
        let concerned = if reason.is_forward() {
            side.rule != NO_RULE || side.dry_run_verdict == side_verdict::DENY
        } else {
            denies(side)
        };
        if !concerned {
            continue;
        }
        flags |= flag;
        if side.rule != NO_RULE {
            let count = RuleCount {
                allowed: u64::from(reason.is_forward()),
                denied: u64::from(!reason.is_forward()),
                logged: 1,
                lost: 0,
            };
            rules.insert(side.rule, count);
        }
    }
    (rules, flags)
}

/// The host's two ways of asking agree, on which the tests of the transition rely.
#[test]
fn each_side_alone_says_what_it_says_with_the_other() {
    let mut runner = TestRunner::deterministic();
    for _ in 0..20 {
        let world =
            proptest::strategy::ValueTree::current(&world().new_tree(&mut runner).expect("a cluster"));
        let pods = connected(
            &world.snapshot,
            NODE,
            judging::cluster::ifindex_by_name,
            LogWishes::default(),
        );
        let contents = desired_with(&world, NODE, &pods, &Contents::default()).contents;
        for flow in arbitrary::flows(&world.snapshot).iter().step_by(37) {
            let mut judgement = Judgement::NONE;
            let reason = judge(
                &Host(&contents),
                &connection(&contents, flow, 40_000),
                &mut judgement,
            );
            let sides = sides(&contents, flow);
            let allowed = [sides.egress, sides.ingress]
                .into_iter()
                .flatten()
                .all(|side| side.verdict == side_verdict::ALLOW);
            assert_eq!(reason.is_forward(), allowed, "{flow:?}");
        }
    }
}
