//! What holds of flow keys and flow entries, whatever the values.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::FileFailurePersistence;
use weir_abi::address::Address;
use weir_abi::flow::{FlowValue, Hop, flow_flags};
use weir_abi::limits::idle_seconds;
use weir_datapath::flow::{Arrival, Step, idle_limit, is_idle, key4, key6, quick_step, step};
use weir_datapath::packet::{protocol, tcp_flags};

const TCP: u8 = protocol::TCP;

fn flow(revision: u32, seen: u32, flags: u32) -> FlowValue {
    FlowValue {
        revision,
        seen,
        flags,
        rewrite_source_port: 0,
        rewrite_destination_port: 0,
        hops: [Hop::default(); 2],
        egress_rule: 0,
        ingress_rule: 0,
        rewrite_source: Address::default(),
        rewrite_destination: Address::default(),
    }
}

/// Any values, and often such as meet.
fn flow_and_arrival() -> impl Strategy<Value = (FlowValue, Arrival)> {
    let flags = prop_oneof![8 => 0u32..128, 1 => any::<u32>()];
    let protocol = prop_oneof![4 => Just(TCP), 2 => Just(protocol::UDP), 1 => any::<u8>()];
    let limits = [
        0,
        1,
        idle_seconds::TCP_CLOSED,
        idle_seconds::TCP_OPENING,
        idle_seconds::OTHER_ANSWERED,
        idle_seconds::TCP_ESTABLISHED,
        i32::MAX.cast_unsigned(),
        u32::MAX,
    ];
    let age = prop_oneof![
        4 => (select(limits.to_vec()), 0u32..3).prop_map(|(limit, more)| limit.wrapping_add(more).wrapping_sub(1)),
        1 => any::<u32>(),
    ];
    let revision = prop_oneof![6 => Just(3u32), 1 => any::<u32>()];
    (
        flags,
        protocol,
        any::<u8>(),
        any::<bool>(),
        any::<u32>(),
        age,
        revision,
    )
        .prop_map(|(flags, protocol, tcp_flags, from_low, seen, age, revision)| {
            let arrival = Arrival {
                from_low,
                protocol,
                tcp_flags: if protocol == TCP { tcp_flags } else { 0 },
                now: seen.wrapping_add(age),
                revision: 3,
            };
            (flow(revision, seen, flags), arrival)
        })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 5_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("proptest-regressions/flow.txt"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_quick_step_is_the_step((flow, arrival) in flow_and_arrival()) {
        if let Some(flags) = quick_step(&flow, &arrival) {
            prop_assert_eq!(step(&flow, &arrival), (Step::Forward, flags));
        }
    }

    /// What is left to the slow path is the unusual.
    #[test]
    fn the_quick_step_takes_the_usual((flow, arrival) in flow_and_arrival()) {
        const BOTH: u32 = flow_flags::OPENER_FINISHED | flow_flags::PEER_FINISHED;
        let usual = flow.revision == arrival.revision
            && flow.flags & (flow_flags::CLOSED | flow_flags::REWRITE) == 0
            && flow.flags & BOTH != BOTH
            && arrival.now.wrapping_sub(flow.seen).cast_signed() <= idle_seconds::TCP_OPENING.cast_signed()
            && !(arrival.is_tcp() && arrival.tcp_flags & tcp_flags::RST != 0)
            && !arrival.opens();
        prop_assert_eq!(quick_step(&flow, &arrival).is_some(), usual);
    }

    /// A step adds what it has learned and forgets nothing, and one that opens a connection of its own leaves the
    /// entry as it is.
    #[test]
    fn a_step_only_learns((flow, arrival) in flow_and_arrival()) {
        let (step, flags) = step(&flow, &arrival);
        prop_assert_eq!(flags & flow.flags, flow.flags);
        let learned = flags & !flow.flags;
        prop_assert_eq!(learned & !flow_flags::SHARED, 0);
        match step {
            Step::Open => prop_assert_eq!(learned, 0),
            Step::Close => prop_assert!(flags & flow_flags::CLOSED != 0),
            Step::Forward => prop_assert!(flags & flow_flags::CLOSED == 0 && flow.revision == arrival.revision),
            Step::Rejudge => prop_assert!(flow.revision != arrival.revision),
        }
        prop_assert!(!is_idle(&flow, arrival.protocol, arrival.now) || step == Step::Open);
    }

    /// A clock that is behind the one by which the entry was written makes nothing idle.
    #[test]
    fn idle_is_what_is_older_than_its_limit(
        flags in any::<u32>(),
        protocol in any::<u8>(),
        seen in any::<u32>(),
        ahead in 1u32..1 << 31,
    ) {
        let flow = flow(0, seen, flags);
        let limit = idle_limit(flags, protocol);
        prop_assert!(!is_idle(&flow, protocol, seen.wrapping_sub(ahead)));
        prop_assert!(!is_idle(&flow, protocol, seen.wrapping_add(limit)));
        prop_assert!(is_idle(&flow, protocol, seen.wrapping_add(limit + 1)));
        prop_assert!(is_idle(&flow, protocol, seen.wrapping_add(i32::MAX.cast_unsigned())));
    }

    #[test]
    fn both_ends_of_an_ipv4_flow_find_one_key(
        one in (select(vec![0u32, 1, 0x0100_000a, 0x0200_000a, 1 << 31, u32::MAX]), any::<u16>()),
        other in (prop_oneof![select(vec![0u32, 1, 0x0100_000a, 1 << 31, u32::MAX]), any::<u32>()], any::<u16>()),
        protocol in any::<u8>(),
    ) {
        let ((key, one_is_low), (reverse, other_is_low)) = (key4(one, other, protocol), key4(other, one, protocol));
        prop_assert_eq!(key, reverse);
        prop_assert_eq!(one_is_low + other_is_low, u32::from(one != other));
        let (low, high) = if one_is_low == 1 { (one, other) } else { (other, one) };
        prop_assert_eq!((key.low, key.low_port, key.high, key.high_port), (low.0, low.1, high.0, high.1));
        prop_assert_eq!((key.protocol, key.padding), (protocol, [0; 3]));
    }

    #[test]
    fn both_ends_of_an_ipv6_flow_find_one_key(
        // Few words, so that addresses differ in one of them, in any place.
        one in (proptest::array::uniform4(0u32..3).prop_map(Address), 0u16..3),
        other in (proptest::array::uniform4(prop_oneof![3 => 0u32..3, 1 => any::<u32>()]).prop_map(Address), 0u16..3),
        protocol in any::<u8>(),
    ) {
        let ((a, port), (b, other_port)) = (one, other);
        let (key, one_is_low) = key6((&a, port), (&b, other_port), protocol);
        let (reverse, other_is_low) = key6((&b, other_port), (&a, port), protocol);
        prop_assert_eq!(key, reverse);
        prop_assert_eq!(one_is_low + other_is_low, u32::from(one != other));
        let (low, high) = if one_is_low == 1 { (one, other) } else { (other, one) };
        prop_assert_eq!((key.low, key.low_port, key.high, key.high_port), (low.0, low.1, high.0, high.1));
        prop_assert_eq!((key.protocol, key.padding), (protocol, [0; 3]));
    }
}

/// Packets of one connection, one after the other.
struct Life {
    flow: FlowValue,
    protocol: u8,
    now: u32,
}

impl Life {
    /// Opened by the low end.
    fn new(protocol: u8) -> Self {
        Self {
            flow: flow(3, 100, 0),
            protocol,
            now: 100,
        }
    }

    fn arrives(&mut self, from_low: bool, tcp_flags: u8) -> Step {
        let arrival = Arrival {
            from_low,
            protocol: self.protocol,
            tcp_flags,
            now: self.now,
            revision: 3,
        };
        let (step, flags) = step(&self.flow, &arrival);
        if step != Step::Open {
            self.flow.flags = flags;
            self.flow.seen = self.now;
        }
        step
    }

    fn waits(&mut self, seconds: u32) -> &mut Self {
        self.now += seconds;
        self
    }
}

use tcp_flags::{ACK, FIN, RST, SYN};

#[test]
fn a_connection_from_handshake_to_the_last_acknowledgement() {
    let mut life = Life::new(TCP);
    assert_eq!(life.arrives(true, SYN), Step::Forward, "sent again");
    assert_eq!(life.arrives(false, SYN | ACK), Step::Forward);
    assert_eq!(life.arrives(true, ACK), Step::Forward);
    assert_eq!(
        life.waits(idle_seconds::TCP_ESTABLISHED).arrives(false, ACK),
        Step::Forward
    );
    assert_eq!(life.arrives(true, FIN | ACK), Step::Forward);
    assert_eq!(
        life.arrives(false, ACK),
        Step::Forward,
        "half closed, and still sending"
    );
    assert_eq!(life.arrives(false, FIN | ACK), Step::Forward);
    assert_eq!(life.arrives(true, ACK), Step::Close);
    assert_eq!(
        life.flow.flags,
        flow_flags::ANSWERED | flow_flags::OPENER_FINISHED | flow_flags::PEER_FINISHED | flow_flags::CLOSED
    );
}

#[test]
fn a_reset_ends_it_from_either_end() {
    for from_low in [true, false] {
        let mut life = Life::new(TCP);
        assert_eq!(life.arrives(from_low, RST), Step::Close);
    }
}

#[test]
fn a_syn_on_a_connection_that_was_answered_opens_another() {
    let mut life = Life::new(TCP);
    assert_eq!(life.arrives(false, SYN | ACK), Step::Forward);
    assert_eq!(life.arrives(true, SYN), Step::Open);
    let mut life = Life::new(TCP);
    assert_eq!(
        life.arrives(false, SYN),
        Step::Open,
        "the other end opens one of its own"
    );
}

#[test]
fn an_entry_lives_as_long_as_what_was_seen_of_it_says() {
    let mut opening = Life::new(TCP);
    assert_eq!(
        opening.waits(idle_seconds::TCP_OPENING).arrives(true, ACK),
        Step::Forward
    );
    assert_eq!(
        opening.waits(idle_seconds::TCP_OPENING + 1).arrives(true, ACK),
        Step::Open
    );
    let mut asked = Life::new(protocol::UDP);
    assert_eq!(
        asked.waits(idle_seconds::OTHER_UNANSWERED + 1).arrives(false, 0),
        Step::Open
    );
    let mut answered = Life::new(protocol::UDP);
    assert_eq!(answered.arrives(false, 0), Step::Forward);
    assert_eq!(
        answered.waits(idle_seconds::OTHER_ANSWERED).arrives(true, 0),
        Step::Forward
    );
    assert_eq!(
        answered.waits(idle_seconds::OTHER_ANSWERED + 1).arrives(true, 0),
        Step::Open
    );
}
