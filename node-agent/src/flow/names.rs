//! What the numbers and addresses in an event stand for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weir_policy::model::PolicyRef;
use weir_policy::resolved::{Cause, Direction};

use crate::flow::record::PolicyName;

/// The names of things. The agent builds it anew after every change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// This node.
    pub node_name: String,
    pub endpoints: BTreeMap<IpAddr, Endpoint>,
    /// By rule number.
    pub rules: BTreeMap<u32, Attribution>,
    pub services: BTreeMap<ServiceAddress, ServiceName>,
    /// Nanoseconds to add to the boot clock to get the time since 1970 (UTC).
    pub wall_clock_offset: i64,
}

/// Who an address belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Pod(PodName),
    Node { name: String },
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodName {
    pub namespace: String,
    pub name: String,
    /// The pod's controller as its `ownerReferences` name it: for a Deployment's pod, the ReplicaSet.
    pub workload: Option<Workload>,
    pub node_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    pub kind: String,
    pub name: String,
}

/// The policies that a decision is owed to, and the rule among theirs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attribution {
    pub policies: Vec<PolicyName>,
    pub rule: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceAddress {
    pub address: IpAddr,
    /// Host byte order.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceName {
    pub namespace: String,
    pub name: String,
}

impl From<&Cause> for Attribution {
    fn from(cause: &Cause) -> Self {
        match cause {
            Cause::Rule {
                policy,
                direction,
                index,
                name,
                ..
            } => {
                let direction = match direction {
                    Direction::Ingress => "ingress",
                    Direction::Egress => "egress",
                };
                let rule = name.clone().unwrap_or_else(|| format!("{direction}[{index}]"));
                Self {
                    policies: vec![policy.into()],
                    rule: Some(rule),
                }
            }
            Cause::Isolated { policies, .. } => Self {
                policies: policies.iter().map(PolicyName::from).collect(),
                rule: None,
            },
        }
    }
}

impl From<&PolicyRef> for PolicyName {
    fn from(policy: &PolicyRef) -> Self {
        Self {
            name: policy.name.clone(),
            namespace: policy.namespace.clone(),
            kind: policy.kind.to_string(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn names() -> Names {
        let pod = |name: &str, owner: &str| {
            Endpoint::Pod(PodName {
                namespace: "default".to_owned(),
                name: name.to_owned(),
                workload: Some(Workload {
                    kind: "ReplicaSet".to_owned(),
                    name: owner.to_owned(),
                }),
                node_name: Some("n1".to_owned()),
            })
        };
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        Names {
            node_name: "n1".to_owned(),
            endpoints: BTreeMap::from([
                (ip("10.244.1.12"), pod("other-0", "other")),
                (ip("10.244.1.13"), pod("hello-web-0", "hello-web")),
                (
                    ip("192.168.0.1"),
                    Endpoint::Node {
                        name: "n1".to_owned(),
                    },
                ),
            ]),
            rules: BTreeMap::from([
                (
                    4,
                    Attribution {
                        policies: vec![policy("ClusterNetworkPolicy", None, "baseline")],
                        rule: Some("let-out".to_owned()),
                    },
                ),
                (
                    9,
                    Attribution {
                        policies: vec![
                            policy("NetworkPolicy", Some("default"), "a"),
                            policy("NetworkPolicy", Some("default"), "b"),
                        ],
                        rule: None,
                    },
                ),
            ]),
            services: BTreeMap::from([(
                ServiceAddress {
                    address: ip("10.96.10.80"),
                    port: 80,
                    protocol: 6,
                },
                ServiceName {
                    namespace: "default".to_owned(),
                    name: "hello-web".to_owned(),
                },
            )]),
            wall_clock_offset: 1_767_323_044_000_000_000,
        }
    }

    fn policy(kind: &str, namespace: Option<&str>, name: &str) -> PolicyName {
        PolicyName {
            name: name.to_owned(),
            namespace: namespace.map(str::to_owned),
            kind: kind.to_owned(),
        }
    }

    #[test]
    fn causes_become_names() {
        use weir_policy::model::Tier;
        use weir_policy::resolved::Action;
        let rule = |name: Option<&str>| {
            Attribution::from(&Cause::Rule {
                policy: PolicyRef::cluster_network_policy("quarantine"),
                tier: Tier::Admin,
                direction: Direction::Egress,
                index: 2,
                name: name.map(str::to_owned),
                action: Action::Deny,
            })
        };
        let policies = vec![policy("ClusterNetworkPolicy", None, "quarantine")];
        let named = |rule: &str| Attribution {
            policies: policies.clone(),
            rule: Some(rule.to_owned()),
        };
        assert_eq!(rule(None), named("egress[2]"));
        assert_eq!(rule(Some("no-way-out")), named("no-way-out"));
        let isolated = Cause::Isolated {
            policies: vec![
                PolicyRef::network_policy("default", "a"),
                PolicyRef::network_policy("default", "b"),
            ],
            direction: Direction::Ingress,
        };
        assert_eq!(Attribution::from(&isolated), names().rules[&9]);
    }
}
