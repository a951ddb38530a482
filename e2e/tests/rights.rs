//! What a node's agent may do with its token, against a real API server: a fixed list of calls.

mod api_bed;

use api_bed::{Answer, Bed, Token};

/// Two nodes, an agent's pod on the first, and an object of each kind that an agent has to do with.
const OBJECTS: &str = r#"
{"apiVersion": "v1", "kind": "List", "items": [
  {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"zone": "a"}},
   "spec": {"taints": [{"key": "dataplane.weir.dev/not-ready", "effect": "NoSchedule"}, {"key": "other", "effect": "NoSchedule"}]}},
  {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2"},
   "spec": {"taints": [{"key": "dataplane.weir.dev/not-ready", "effect": "NoSchedule"}]}},
  {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "agent-n1", "namespace": "weir-system"},
   "spec": {"serviceAccountName": "weir-agent", "nodeName": "n1", "containers": [{"name": "a", "image": "a"}]}},
  {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "elsewhere", "namespace": "weir-system"},
   "spec": {"serviceAccountName": "weir-agent", "nodeName": "n2", "containers": [{"name": "a", "image": "a"}]}},
  {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "secret", "namespace": "weir-system"}},
  {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "default"}, "spec": {"ports": [{"port": 1}]}},
  {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "s", "namespace": "default"},
   "addressType": "IPv4", "endpoints": []},
  {"apiVersion": "dataplane.weir.dev/v1alpha1", "kind": "PolicyStatus", "metadata": {"name": "other", "namespace": "default"},
   "spec": {"policyUID": "u"}},
  {"apiVersion": "dataplane.weir.dev/v1alpha1", "kind": "NodeDataplane", "metadata": {"name": "n1"},
   "spec": {"addressBook": 1, "relevance": {}}},
  {"apiVersion": "dataplane.weir.dev/v1alpha1", "kind": "NodeDataplane", "metadata": {"name": "n2"},
   "spec": {"addressBook": 1, "relevance": {}}},
  {"apiVersion": "dataplane.weir.dev/v1alpha1", "kind": "IdentitySlice", "metadata": {"name": "head"}, "spec": {"revision": 1}},
  {"apiVersion": "dataplane.weir.dev/v1alpha1", "kind": "AddressSlice", "metadata": {"name": "head"}, "spec": {"revision": 1}},
  {"apiVersion": "dataplane.weir.dev/v1alpha1", "kind": "DataplaneConfig", "metadata": {"name": "all"}, "spec": {}},
  {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "weir-operator", "namespace": "weir-system"}},
  {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "weir-agent-n2", "namespace": "weir-system"}}
]}"#;

/// Arguments of kubectl, its input, and what the refusal says: nothing where the call is allowed.
type Call = (&'static str, &'static str, &'static str);

const RBAC: &str = "cannot";
const UNBOUND: &str = "the token is bound to no pod on a node: it may write nothing";

/// What an agent needs.
const ALLOWED: &[Call] = &[
    ("get node n1", "", ""),
    ("get nodes --field-selector=metadata.name=n1", "", ""),
    ("get pods -A --field-selector=spec.nodeName=n1", "", ""),
    ("get services -A", "", ""),
    ("get endpointslices -A", "", ""),
    ("get identityslices,addressslices", "", ""),
    ("get nodedataplane n1", "", ""),
    (
        "apply --server-side --subresource=status --field-manager=weir-agent -f -",
        STATUS_OF_N1,
        "",
    ),
    (
        "patch nodedataplane n1 --subresource=status --type=merge -p {\"status\":{\"pods\":3}}",
        "",
        "",
    ),
    ("create -f -", LEASE_OF_N1, ""),
    (
        "patch lease weir-agent-n1 -n weir-system --type=merge -p {\"spec\":{\"leaseDurationSeconds\":40}}",
        "",
        "",
    ),
    (
        "patch node n1 --type=json -p [{\"op\":\"test\",\"path\":\"/spec/taints/0/key\",\"value\":\"dataplane.weir.dev/not-ready\"},{\"op\":\"remove\",\"path\":\"/spec/taints/0\"}]",
        "",
        "",
    ),
    // RBAC has no notion of a node's own.
    ("get nodes,pods -A", "", ""),
    ("get nodedataplane n2", "", ""),
];

/// What nobody needs who speaks for a node.
const REFUSED: &[Call] = &[
    // Read what is none of its business.
    ("get secrets -A", "", RBAC),
    ("get secret secret -n weir-system", "", RBAC),
    ("get configmaps -A", "", RBAC),
    ("get namespaces", "", RBAC),
    ("get networkpolicies -A", "", RBAC),
    (
        "get clusternetworkpolicies,dataplaneconfigs,flowlogpolicies",
        "",
        RBAC,
    ),
    ("get policystatuses -A", "", RBAC),
    ("get leases -n weir-system", "", RBAC),
    ("get leases -n kube-node-lease", "", RBAC),
    ("get --raw /api/v1/nodes/n1/proxy/pods", "", RBAC),
    (
        "get --raw /api/v1/namespaces/weir-system/pods/agent-n1/log",
        "",
        RBAC,
    ),
    // Run something, or become somebody.
    ("create -f -", POD, RBAC),
    ("delete pod elsewhere -n weir-system", "", RBAC),
    (
        "patch pod agent-n1 -n weir-system --type=merge -p {\"metadata\":{\"labels\":{\"a\":\"b\"}}}",
        "",
        RBAC,
    ),
    (
        "create --raw /api/v1/namespaces/weir-system/pods/agent-n1/exec?command=sh -f -",
        "{}",
        RBAC,
    ),
    (
        "create --raw /api/v1/namespaces/weir-system/pods/agent-n1/eviction -f -",
        EVICTION,
        RBAC,
    ),
    (
        "patch pod agent-n1 -n weir-system --subresource=status --type=merge -p {\"status\":{\"phase\":\"Failed\"}}",
        "",
        RBAC,
    ),
    (
        "patch serviceaccount weir-agent -n weir-system -p {\"metadata\":{\"labels\":{\"a\":\"b\"}}}",
        "",
        RBAC,
    ),
    ("create -f -", BINDING, RBAC),
    (
        "delete validatingadmissionpolicybinding weir-agent-node",
        "",
        RBAC,
    ),
    (
        "get nodes --as=system:serviceaccount:weir-system:weir-operator",
        "",
        RBAC,
    ),
    ("create token weir-operator -n weir-system", "", RBAC),
    (
        "create token weir-agent -n weir-system --bound-object-kind=Pod --bound-object-name=elsewhere",
        "",
        RBAC,
    ),
    // Tell nodes what to do.
    (
        "patch nodedataplane n1 --type=merge -p {\"spec\":{\"addressBook\":9}}",
        "",
        RBAC,
    ),
    (
        "patch nodedataplane n2 --type=merge -p {\"spec\":{\"addressBook\":9}}",
        "",
        RBAC,
    ),
    (
        "replace --raw /apis/dataplane.weir.dev/v1alpha1/nodedataplanes/n1 -f -",
        SPEC_OF_N1,
        RBAC,
    ),
    ("delete nodedataplane n1", "", RBAC),
    ("delete nodedataplane n2", "", RBAC),
    (
        "delete --raw /apis/dataplane.weir.dev/v1alpha1/nodedataplanes",
        "",
        RBAC,
    ),
    ("create -f -", NODE_DATAPLANE, RBAC),
    (
        "patch service s -n default --type=merge -p {\"spec\":{\"externalIPs\":[\"192.0.2.1\"]}}",
        "",
        RBAC,
    ),
    (
        "patch endpointslice s -n default --type=merge -p {\"endpoints\":[{\"addresses\":[\"192.0.2.1\"]}]}",
        "",
        RBAC,
    ),
    (
        "patch identityslice head --type=merge -p {\"spec\":{\"revision\":9}}",
        "",
        RBAC,
    ),
    (
        "patch addressslice head --type=merge -p {\"spec\":{\"revision\":9}}",
        "",
        RBAC,
    ),
    ("create -f -", POLICY, RBAC),
    (
        "patch dataplaneconfig all --type=merge -p {\"spec\":{\"precedence\":9}}",
        "",
        RBAC,
    ),
    (
        "patch dataplaneconfig all --subresource=status --type=merge -p {\"status\":{\"nodes\":\"2/2\"}}",
        "",
        RBAC,
    ),
    (
        "patch policystatus other -n default --type=merge -p {\"spec\":{\"policyUID\":\"v\"}}",
        "",
        RBAC,
    ),
    (
        "patch policystatus other -n default --subresource=status --type=merge -p {\"status\":{\"nodes\":\"2/2\"}}",
        "",
        RBAC,
    ),
    ("create -f -", EVENT, RBAC),
    // Speak for another node, or for the operator.
    (
        "patch nodedataplane n2 --subresource=status --type=merge -p {\"status\":{\"pods\":3}}",
        "",
        "the agent of node n1 may not write the NodeDataplane of n2",
    ),
    (
        "apply --server-side --subresource=status --field-manager=weir-agent -f -",
        STATUS_OF_N2,
        "the agent of node n1 may not write the NodeDataplane of n2",
    ),
    (
        "patch lease weir-agent-n2 -n weir-system --type=merge -p {\"spec\":{\"leaseDurationSeconds\":40}}",
        "",
        "the agent of node n1 may not write the Lease weir-agent-n2",
    ),
    (
        "patch lease weir-operator -n weir-system --type=merge -p {\"spec\":{\"holderIdentity\":\"n1\"}}",
        "",
        "the agent of node n1 may not write the Lease weir-operator",
    ),
    (
        "create -f -",
        LEASE_OF_N3,
        "the agent of node n1 may not write the Lease weir-agent-n3",
    ),
    ("delete lease weir-agent-n1 -n weir-system", "", RBAC),
    ("delete lease weir-agent-n2 -n weir-system", "", RBAC),
    ("patch lease n1 -n kube-node-lease -p {}", "", RBAC),
    (
        "patch node n2 --type=json -p [{\"op\":\"test\",\"path\":\"/spec/taints/0/key\",\"value\":\"dataplane.weir.dev/not-ready\"},{\"op\":\"remove\",\"path\":\"/spec/taints/0\"}]",
        "",
        "the agent of node n1 may not change the node n2",
    ),
    // Of its node, change anything but the one taint.
    ("delete node n1", "", RBAC),
    (
        "patch node n1 --subresource=status --type=merge -p {\"status\":{\"phase\":\"x\"}}",
        "",
        RBAC,
    ),
    (
        "patch node n1 --type=json -p [{\"op\":\"test\",\"path\":\"/spec/taints/1/key\",\"value\":\"other\"},{\"op\":\"remove\",\"path\":\"/spec/taints/1\"}]",
        "",
        "of the node's taints an agent may take off dataplane.weir.dev/not-ready only",
    ),
    (
        "patch node n1 -p {\"spec\":{\"taints\":[{\"key\":\"new\",\"effect\":\"NoExecute\"}]}}",
        "",
        "of the node's taints an agent may take off dataplane.weir.dev/not-ready only",
    ),
    (
        "patch node n1 -p {\"metadata\":{\"labels\":{\"zone\":\"b\"}}}",
        "",
        LABELS,
    ),
    (
        "patch node n1 -p {\"metadata\":{\"annotations\":{\"a\":\"b\"}}}",
        "",
        LABELS,
    ),
    (
        "patch node n1 -p {\"metadata\":{\"finalizers\":[\"weir.dev/a\"]}}",
        "",
        LABELS,
    ),
    (
        "patch node n1 -p {\"spec\":{\"unschedulable\":true}}",
        "",
        "of its node's spec an agent may change the taints only",
    ),
    (
        "patch node n1 -p {\"spec\":{\"providerID\":\"a://b\"}}",
        "",
        "of its node's spec an agent may change the taints only",
    ),
    (
        "patch node n1 -p {\"spec\":{\"podCIDR\":\"10.0.0.0/24\",\"podCIDRs\":[\"10.0.0.0/24\"]}}",
        "",
        "of its node's spec an agent may change the taints only",
    ),
];

/// What the operator needs.
const ALLOWED_TO_OPERATOR: &[Call] = &[
    (
        "get pods,namespaces,nodes,networkpolicies,clusternetworkpolicies,dataplaneconfigs,flowlogpolicies -A",
        "",
        "",
    ),
    ("get leases -n weir-system", "", ""),
    (
        "apply --server-side --field-manager=weir-operator -f -",
        NODE_DATAPLANE,
        "",
    ),
    (
        "apply --server-side --field-manager=weir-operator -f -",
        POLICY_STATUS,
        "",
    ),
    (
        "apply --server-side --subresource=status --field-manager=weir-operator -f -",
        POLICY_STATUS,
        "",
    ),
    (
        "apply --server-side --field-manager=weir-operator --force-conflicts -f -",
        HEAD,
        "",
    ),
    ("delete identityslice head", "", ""),
    (
        "apply --server-side --subresource=status --field-manager=weir-operator -f -",
        STATUS_OF_CONFIG,
        "",
    ),
    (
        "patch lease weir-operator -n weir-system --type=merge -p {\"spec\":{\"holderIdentity\":\"a\"}}",
        "",
        "",
    ),
    ("create -f -", NEW_EVENT, ""),
];

/// What it does not: the spec of what people write, what agents report, and everything else.
const REFUSED_TO_OPERATOR: &[Call] = &[
    ("get secrets -A", "", RBAC),
    ("get configmaps -A", "", RBAC),
    ("create -f -", POD, RBAC),
    ("delete pod elsewhere -n weir-system", "", RBAC),
    ("create -f -", POLICY, RBAC),
    (
        "patch dataplaneconfig all --type=merge -p {\"spec\":{\"precedence\":9}}",
        "",
        RBAC,
    ),
    ("delete dataplaneconfig all", "", RBAC),
    (
        "patch nodedataplane n1 --subresource=status --type=merge -p {\"status\":{\"pods\":3}}",
        "",
        RBAC,
    ),
    (
        "patch node n1 -p {\"metadata\":{\"labels\":{\"zone\":\"b\"}}}",
        "",
        RBAC,
    ),
    ("patch lease a -n kube-node-lease -p {}", "", RBAC),
    ("create -f -", BINDING, RBAC),
    ("create token weir-agent -n weir-system", "", RBAC),
];

/// With a token that was issued to no pod: what would be allowed with one that was.
const REFUSED_UNBOUND: &[Call] = &[
    (
        "patch nodedataplane n1 --subresource=status --type=merge -p {\"status\":{\"pods\":3}}",
        "",
        UNBOUND,
    ),
    (
        "patch lease weir-agent-n1 -n weir-system --type=merge -p {\"spec\":{\"leaseDurationSeconds\":41}}",
        "",
        UNBOUND,
    ),
    (
        "patch node n1 -p {\"metadata\":{\"labels\":{\"zone\":\"b\"}}}",
        "",
        UNBOUND,
    ),
];

const LABELS: &str = "an agent may not change its node's labels, annotations, finalizers or owners";
const STATUS_OF_N1: &str = r#"{"apiVersion": "dataplane.weir.dev/v1alpha1", "kind": "NodeDataplane", "metadata": {"name": "n1"}, "status": {"programmedGeneration": 1}}"#;
const STATUS_OF_N2: &str = r#"{"apiVersion": "dataplane.weir.dev/v1alpha1", "kind": "NodeDataplane", "metadata": {"name": "n2"}, "status": {"programmedGeneration": 1}}"#;
const LEASE_OF_N1: &str = r#"{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "weir-agent-n1", "namespace": "weir-system"}}"#;
const LEASE_OF_N3: &str = r#"{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "weir-agent-n3", "namespace": "weir-system"}}"#;
const SPEC_OF_N1: &str = r#"{"apiVersion": "dataplane.weir.dev/v1alpha1", "kind": "NodeDataplane", "metadata": {"name": "n1"}, "spec": {"addressBook": 9, "relevance": {}}}"#;
const BINDING: &str = r#"{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "mine"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}, "subjects": [{"kind": "ServiceAccount", "name": "weir-agent", "namespace": "weir-system"}]}"#;
const POD: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mine", "namespace": "weir-system"}, "spec": {"containers": [{"name": "a", "image": "a"}]}}"#;
const EVICTION: &str = r#"{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "agent-n1", "namespace": "weir-system"}}"#;
const NODE_DATAPLANE: &str = r#"{"apiVersion": "dataplane.weir.dev/v1alpha1", "kind": "NodeDataplane", "metadata": {"name": "n3"}, "spec": {"addressBook": 1, "relevance": {}}}"#;
const HEAD: &str = r#"{"apiVersion": "dataplane.weir.dev/v1alpha1", "kind": "IdentitySlice", "metadata": {"name": "head"}, "spec": {"revision": 2}}"#;
const POLICY_STATUS: &str = r#"{"apiVersion": "dataplane.weir.dev/v1alpha1", "kind": "PolicyStatus", "metadata": {"name": "p", "namespace": "default"}, "spec": {"policyUID": "u"}, "status": {"nodes": "1/1"}}"#;
const STATUS_OF_CONFIG: &str = r#"{"apiVersion": "dataplane.weir.dev/v1alpha1", "kind": "DataplaneConfig", "metadata": {"name": "all"}, "status": {"nodes": "1/1"}}"#;
const NEW_EVENT: &str = r#"{"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"}, "eventTime": "2026-01-01T00:00:00.000000Z", "action": "A", "reason": "R", "type": "Normal", "reportingController": "weir-operator", "reportingInstance": "a", "regarding": {"kind": "Node", "name": "n1"}}"#;
const POLICY: &str = r#"{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": "weir-system"}, "spec": {"podSelector": {}}}"#;
const EVENT: &str = r#"{"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"}, "involvedObject": {"kind": "Node", "name": "n1"}}"#;

#[test]
fn an_agents_token_speaks_for_its_own_node_only() {
    let bed = Bed::start();
    bed.kubectl_with(&["create", "-f", "-"], OBJECTS)
        .expect("the objects");
    let agent = bed.token("weir-agent", Some("agent-n1"));
    let unbound = bed.token("weir-agent", None);
    wait_for_policies(&bed, &unbound);
    let mut wrong = Vec::new();
    // First what is refused: some of it is about what the allowed calls change.
    wrong.extend(differing(&bed, &unbound, &REFUSED_UNBOUND[..1]));
    wrong.extend(differing(&bed, &agent, REFUSED));
    wrong.extend(differing(&bed, &agent, ALLOWED));
    wrong.extend(differing(&bed, &unbound, REFUSED_UNBOUND));
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(taints(&bed, "n1"), "other");
    assert_eq!(taints(&bed, "n2"), "dataplane.weir.dev/not-ready");
}

#[test]
fn the_operator_writes_statuses_and_its_own_kinds_only() {
    let bed = Bed::start();
    bed.kubectl_with(&["create", "-f", "-"], OBJECTS)
        .expect("the objects");
    let operator = bed.token("weir-operator", None);
    let mut wrong = differing(&bed, &operator, REFUSED_TO_OPERATOR);
    wrong.extend(differing(&bed, &operator, ALLOWED_TO_OPERATOR));
    assert_eq!(wrong, Vec::<String>::new());
}

/// A write of status cannot carry a change of the spec along.
#[test]
fn a_status_takes_no_spec_with_it() {
    let bed = Bed::start();
    bed.kubectl_with(&["create", "-f", "-"], OBJECTS)
        .expect("the objects");
    let agent = bed.token("weir-agent", Some("agent-n1"));
    let patch = r#"{"metadata":{"labels":{"a":"b"}},"spec":{"addressBook":9},"status":{"pods":3}}"#;
    let arguments = [
        "patch",
        "nodedataplane",
        "n1",
        "--subresource=status",
        "--type=merge",
        "-p",
        patch,
    ];
    bed.kubectl_as(&agent, &arguments, "").expect("the status");
    let fields = "jsonpath={.spec.addressBook} {.metadata.labels} {.status.pods}";
    let found = bed.kubectl(&["get", "nodedataplane", "n1", "-o", fields]);
    assert_eq!(found.expect("the object"), "1  3");
}

/// Each policy is in force once it refuses what it alone refuses.
fn wait_for_policies(bed: &Bed, unbound: &Token) {
    let calls = [
        REFUSED_UNBOUND[0].0,
        "patch lease weir-agent-n2 -n weir-system --type=merge -p {\"spec\":{\"leaseDurationSeconds\":40}}",
        REFUSED_UNBOUND[2].0,
    ];
    for call in calls {
        let arguments: Vec<&str> = call.split(' ').collect();
        bed.until(
            call,
            || bed.kubectl_as(unbound, &arguments, ""),
            |answer| answer.err.contains(UNBOUND),
        );
    }
}

/// A line for each call that did not end as it should.
fn differing(bed: &Bed, who: &Token, calls: &[Call]) -> Vec<String> {
    let mut lines = Vec::new();
    for (arguments, input, refusal) in calls {
        let words: Vec<&str> = arguments.split(' ').collect();
        let answer = bed.kubectl_as(who, &words, input);
        if !is_as_expected(&answer, refusal) {
            lines.push(format!("{arguments}: expected {refusal:?}: {answer:?}"));
        }
    }
    lines
}

fn is_as_expected(answer: &Answer, refusal: &str) -> bool {
    if refusal.is_empty() {
        return answer.succeeded();
    }
    !answer.succeeded() && answer.err.contains("orbidden") && answer.err.contains(refusal)
}

/// Keys of a node's taints but those that the API server gives every new node.
fn taints(bed: &Bed, node: &str) -> String {
    let keys = bed.kubectl(&["get", "node", node, "-o", "jsonpath={.spec.taints[*].key}"]);
    let keys = keys.expect("the node");
    let keys: Vec<&str> = keys
        .split(' ')
        .filter(|key| !key.starts_with("node.kubernetes.io/"))
        .collect();
    keys.join(" ")
}
