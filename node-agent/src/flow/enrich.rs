//! A decoded event and the names of things → up to two records of the policy log, one for each side that judged.

use std::net::IpAddr;

use jiff::Timestamp;
use weir_abi::event::{FlowEvent, SideVerdict, event_flags, side_verdict};
use weir_abi::policy::NO_RULE;
use weir_abi::reason::Reason;

use crate::flow::names::{Attribution, Endpoint, Names, ServiceAddress};
use crate::flow::record::{Connection, Disposition, DryRun, LogDirection, Party, PolicyRecord, ServiceRef};

/// A side of an event that makes a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due<'a> {
    pub direction: LogDirection,
    pub disposition: Disposition,
    side: &'a SideVerdict,
    /// What the dry-run policies would have decided, where that is something else.
    dry_run: Option<Disposition>,
}

/// The sides of an event that make a record: those whose FlowLogPolicies want one and that judged the connection. What
/// is allowed because nothing restricts it is left out, unless a dry-run policy would have decided otherwise.
pub fn due(event: &FlowEvent) -> impl Iterator<Item = Due<'_>> {
    let sides = [
        (event_flags::LOG_EGRESS, LogDirection::Egress, &event.egress),
        (event_flags::LOG_INGRESS, LogDirection::Ingress, &event.ingress),
    ];
    let wanted = sides.into_iter().filter(|(flag, ..)| event.flags & flag != 0);
    wanted.filter_map(|(_, direction, side)| {
        let due = Due {
            direction,
            disposition: disposition(side.verdict)?,
            side,
            dry_run: disposition_if_different(side),
        };
        let by_no_rule = due.disposition == Disposition::Allow && side.rule == NO_RULE;
        (!by_no_rule || due.dry_run.is_some()).then_some(due)
    })
}

/// The record of a side, and how many of its rule numbers [`Names::rules`] does not have. `seq` and `lost` are zero: the
/// sink sets them.
pub fn name(event: &FlowEvent, due: &Due<'_>, names: &Names) -> (PolicyRecord, u64) {
    let mut unknown_rules = 0;
    let cause = attribution(due.side.rule, names, &mut unknown_rules);
    let dry_run = due.dry_run.map(|disposition| {
        let cause = attribution(due.side.dry_run_rule, names, &mut unknown_rules);
        DryRun {
            disposition,
            policies: cause.policies,
            rule: cause.rule,
        }
    });
    let record = PolicyRecord {
        connection: connection(event, due.direction),
        disposition: due.disposition,
        policies: cause.policies,
        src: party(event.source.to_ip(), names),
        dest: party(event.destination.to_ip(), names),
        count: 1,
        node_name: names.node_name.clone(),
        timestamp: timestamp(event.time, names.wall_clock_offset),
        rule: cause.rule,
        reason: side_reason(event, due.disposition, due.side.rule).to_owned(),
        service: service(event, names),
        dry_run,
        seq: 0,
        lost: 0,
    };
    (record, unknown_rules)
}

fn disposition(verdict: u8) -> Option<Disposition> {
    match verdict {
        side_verdict::ALLOW => Some(Disposition::Allow),
        side_verdict::DENY => Some(Disposition::Deny),
        _ => None,
    }
}

fn disposition_if_different(side: &SideVerdict) -> Option<Disposition> {
    let same = side.dry_run_verdict == side.verdict && side.dry_run_rule == side.rule;
    if same {
        None
    } else {
        disposition(side.dry_run_verdict)
    }
}

fn attribution(rule: u32, names: &Names, unknown_rules: &mut u64) -> Attribution {
    if rule == NO_RULE {
        return Attribution::default();
    }
    names.rules.get(&rule).cloned().unwrap_or_else(|| {
        *unknown_rules += 1;
        Attribution::default()
    })
}

fn connection(event: &FlowEvent, direction: LogDirection) -> Connection {
    let (src_port, dest_port) = if has_ports(event.protocol) {
        (
            u16::from_be(event.source_port),
            u16::from_be(event.destination_port),
        )
    } else {
        (0, 0)
    };
    Connection {
        src_ip: event.source.to_ip(),
        dest_ip: event.destination.to_ip(),
        src_port,
        dest_port,
        protocol: protocol(event.protocol),
        direction,
    }
}

fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 132)
}

/// The word of an IP protocol number (IANA "Protocol Numbers").
fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    }
}

fn party(address: IpAddr, names: &Names) -> Party {
    match names.endpoints.get(&address) {
        Some(Endpoint::Pod(pod)) => Party {
            pod_name: Some(pod.name.clone()),
            node_name: pod.node_name.clone(),
            workload_kind: pod.workload.as_ref().map(|workload| workload.kind.clone()),
            workload_name: pod.workload.as_ref().map(|workload| workload.name.clone()),
            pod_namespace: Some(pod.namespace.clone()),
            namespace: Some(pod.namespace.clone()),
            instance: None,
        },
        Some(Endpoint::Node { name }) => Party {
            node_name: Some(name.clone()),
            workload_kind: Some("Node".to_owned()),
            ..Party::default()
        },
        None => Party {
            instance: Some(address),
            ..Party::default()
        },
    }
}

/// Any sum of the two is a time that can be written: they span the years 1677 to 2847.
fn timestamp(boot_clock: u64, offset: i64) -> String {
    let nanoseconds = i128::from(boot_clock) + i128::from(offset);
    format!(
        "{:.9}",
        Timestamp::from_nanosecond(nanoseconds).unwrap_or(Timestamp::MAX)
    )
}

/// The event's reason is that of the packet. A side that allowed what the other one denied has a reason of its own.
fn side_reason(event: &FlowEvent, disposition: Disposition, rule: u32) -> &'static str {
    let own = if rule == NO_RULE {
        Reason::DefaultAllowed
    } else {
        Reason::Allowed
    };
    let reason = match (disposition, Reason::from_number(event.reason)) {
        (Disposition::Allow, Some(Reason::Allowed | Reason::DefaultAllowed) | None) => own,
        (Disposition::Allow, Some(reason)) if !reason.is_forward() => own,
        (Disposition::Allow | Disposition::Deny, Some(reason)) => reason,
        (Disposition::Deny, None) => Reason::Internal,
    };
    reason.word()
}

fn service(event: &FlowEvent, names: &Names) -> Option<ServiceRef> {
    if event.service.octets() == [0; 16] {
        return None;
    }
    let key = ServiceAddress {
        address: event.service.to_ip(),
        port: u16::from_be(event.service_port),
        protocol: event.protocol,
    };
    Some(match names.services.get(&key) {
        Some(service) => ServiceRef::Named {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
        },
        None => ServiceRef::Unknown {
            instance: key.address,
        },
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use weir_abi::address::Address;

    use super::*;
    use crate::flow::decode::tests::{address, event};
    use crate::flow::names::tests::names;

    /// The records of an event, and how many rules have no name.
    pub(crate) fn enrich(event: &FlowEvent, names: &Names) -> (Vec<PolicyRecord>, u64) {
        let (records, unknown): (Vec<_>, Vec<u64>) = due(event).map(|due| name(event, &due, names)).unzip();
        (records, unknown.iter().sum())
    }

    fn lines(event: &FlowEvent) -> Vec<String> {
        let (records, unknown_rules) = enrich(event, &names());
        assert_eq!(unknown_rules, 0);
        records
            .iter()
            .map(|record| serde_json::to_string(record).expect("JSON"))
            .collect()
    }

    #[test]
    fn both_sides_of_a_denied_connection() {
        let ends = concat!(
            r#""src":{"pod_name":"other-0","node_name":"n1","workload_kind":"ReplicaSet","workload_name":"other","pod_namespace":"default","namespace":"default"},"#,
            r#""dest":{"pod_name":"hello-web-0","node_name":"n1","workload_kind":"ReplicaSet","workload_name":"hello-web","pod_namespace":"default","namespace":"default"},"#,
            r#""count":1,"node_name":"n1","timestamp":"2026-01-02T03:04:05.000000006Z","#,
        );
        let connection = r#"{"connection":{"src_ip":"10.244.1.12","dest_ip":"10.244.1.13","src_port":45084,"dest_port":8080,"protocol":"tcp","direction":"#;
        let service = r#""service":{"namespace":"default","name":"hello-web"},"seq":0}"#;
        assert_eq!(
            lines(&event()),
            [
                format!(
                    r#"{connection}"egress"}},"disposition":"allow","policies":[{{"name":"baseline","kind":"ClusterNetworkPolicy"}}],{ends}"rule":"let-out","reason":"allowed",{service}"#
                ),
                format!(
                    r#"{connection}"ingress"}},"disposition":"deny","policies":[{{"name":"a","namespace":"default","kind":"NetworkPolicy"}},{{"name":"b","namespace":"default","kind":"NetworkPolicy"}}],{ends}"reason":"isolated",{service}"#
                ),
            ]
        );
    }

    #[test]
    fn only_the_sides_that_are_wanted_and_that_judged() {
        let directions = |change: fn(&mut FlowEvent)| -> Vec<LogDirection> {
            let mut event = event();
            change(&mut event);
            due(&event).map(|due| due.direction).collect()
        };
        assert_eq!(directions(|e| e.flags = 0), []);
        assert_eq!(
            directions(|e| e.flags = event_flags::LOG_INGRESS),
            [LogDirection::Ingress]
        );
        assert_eq!(
            directions(|e| e.ingress = SideVerdict::default()),
            [LogDirection::Egress],
            "not judged"
        );
        assert_eq!(
            directions(|e| (e.egress.rule, e.egress.dry_run_rule) = (NO_RULE, NO_RULE)),
            [LogDirection::Ingress],
            "allowed by no rule"
        );
    }

    #[test]
    fn an_allow_by_no_rule_is_logged_where_a_dry_run_policy_would_deny() {
        let mut event = event();
        event.flags = event_flags::LOG_INGRESS;
        event.reason = Reason::DefaultAllowed as u8;
        event.ingress = SideVerdict {
            rule: NO_RULE,
            dry_run_rule: 9,
            verdict: side_verdict::ALLOW,
            dry_run_verdict: side_verdict::DENY,
            padding: 0,
        };
        let records = enrich(&event, &names()).0;
        assert_eq!(records.len(), 1);
        assert_eq!(
            (records[0].disposition, records[0].reason.as_str()),
            (Disposition::Allow, "default-allowed")
        );
        assert_eq!(
            records[0].dry_run,
            Some(DryRun {
                disposition: Disposition::Deny,
                policies: names().rules[&9].policies.clone(),
                rule: None
            })
        );
    }

    #[test]
    fn what_is_unknown_is_written_by_its_address_and_counted() {
        let mut event = event();
        event.flags = event_flags::LOG_INGRESS;
        event.protocol = 58;
        event.source = address("2001:db8::1");
        event.destination = address("192.168.0.1");
        event.service = address("fd00::80");
        event.ingress.rule = 77;
        event.ingress.dry_run_rule = 77;
        assert_eq!(
            enrich(&event, &names()),
            (
                vec![PolicyRecord {
                    connection: Connection {
                        src_ip: address("2001:db8::1").to_ip(),
                        dest_ip: address("192.168.0.1").to_ip(),
                        src_port: 0,
                        dest_port: 0,
                        protocol: "icmpv6".to_owned(),
                        direction: LogDirection::Ingress,
                    },
                    disposition: Disposition::Deny,
                    policies: vec![],
                    src: Party {
                        instance: Some(address("2001:db8::1").to_ip()),
                        ..Party::default()
                    },
                    dest: Party {
                        node_name: Some("n1".to_owned()),
                        workload_kind: Some("Node".to_owned()),
                        ..Party::default()
                    },
                    count: 1,
                    node_name: "n1".to_owned(),
                    timestamp: "2026-01-02T03:04:05.000000006Z".to_owned(),
                    rule: None,
                    reason: "isolated".to_owned(),
                    service: Some(ServiceRef::Unknown {
                        instance: address("fd00::80").to_ip()
                    }),
                    dry_run: None,
                    seq: 0,
                    lost: 0,
                }],
                1
            )
        );
    }

    #[test]
    fn a_connection_to_no_service_names_none() {
        let mut event = event();
        event.service = Address::default();
        assert!(
            enrich(&event, &names())
                .0
                .iter()
                .all(|record| record.service.is_none())
        );
    }

    #[test]
    fn the_widest_clocks_can_be_written() {
        assert_eq!(timestamp(0, i64::MIN), "1677-09-21T00:12:43.145224192Z");
        assert_eq!(timestamp(u64::MAX, i64::MAX), "2846-10-30T23:21:50.564327422Z");
    }
}
