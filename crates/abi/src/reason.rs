//! The one table of reasons: why a packet left a hook the way it did.
//!
//! The number is the index of the counter, the word is the metric's label and the log's word. Numbers are never
//! reused; a reason that is retired keeps its row.

macro_rules! reasons {
    ($($number:literal $name:ident $fate:ident $word:literal $sentence:literal;)+) => {
        /// Why a packet was passed on or dropped.
        #[repr(u8)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $(#[doc = $sentence] $name = $number,)+
        }

        impl Reason {
            /// From this number on, reasons drop.
            pub const FIRST_DROP: u8 = 32;

            /// Every reason, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// The word in metrics and logs.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            /// One sentence for people.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)+ }
            }

            /// Whether the packet went on.
            pub const fn is_forward(self) -> bool {
                match self { $(Self::$name => matches!(Fate::$fate, Fate::Forward),)+ }
            }
        }
    };
}

enum Fate {
    Forward,
    Drop,
}

reasons! {
    0 Established Forward "established" "belongs to a connection that was allowed before";
    1 Allowed Forward "allowed" "a policy rule allows the connection";
    2 DefaultAllowed Forward "default-allowed" "no policy restricts the connection";
    3 LocalNode Forward "local-node" "traffic between a pod and its own node is always allowed";
    5 RelatedError Forward "related-error" "an ICMP error about a connection that policy allows";
    6 LinkControl Forward "link-control" "ARP or neighbour discovery between a pod and its node";
    7 NotForPod Forward "not-for-pod" "neither end is a pod of this node; left to the node's own network stack";
    8 ToItself Forward "to-itself" "a pod reached itself through a Service";
    32 RuleDenied Drop "rule-denied" "a policy rule denies the connection";
    33 Isolated Drop "isolated" "policies isolate the pod and none of their rules allows the connection";
    34 PodClosed Drop "pod-closed" "the pod's policy is not in the kernel yet, so the pod is closed";
    35 SourceNotOwn Drop "source-not-own" "the sender used a source address that is not its own";
    36 PeerUnknown Drop "peer-unknown" "the other end is a pod that this node knows nothing of yet, and policy does not admit every pod";
    40 Truncated Drop "truncated" "the packet ends inside a header";
    41 Malformed Drop "malformed" "a header contradicts itself";
    42 UnsupportedEtherType Drop "unsupported-ethertype" "neither IPv4 nor IPv6";
    43 TooManyHeaders Drop "too-many-headers" "more IPv6 extension headers than are followed";
    44 FragmentUnknown Drop "fragment-unknown" "a later fragment whose first fragment was not seen";
    45 UnrelatedError Drop "unrelated-error" "an ICMP error about no connection that policy allows";
    46 Multicast Drop "multicast" "multicast and broadcast from pods are not forwarded";
    50 NoBackend Drop "no-backend" "the Service has no endpoint that can serve";
    51 FlowTableFull Drop "flow-table-full" "a Service connection needs a flow entry and there is no room for one";
    52 RewriteFailed Drop "rewrite-failed" "the kernel refused to rewrite the packet";
    53 PortsExhausted Drop "ports-exhausted" "no free port of the node is left for a connection to that destination";
    60 Internal Drop "internal" "a map of ours that must exist does not";
}

/// Length of the counter array: one more than the highest number that may ever be given.
pub const REASONS: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fit_the_counter_array_and_words_are_unique() {
        for (i, reason) in Reason::ALL.iter().enumerate() {
            assert!(u32::from(*reason as u8) < REASONS);
            assert_eq!(reason.is_forward(), (*reason as u8) < Reason::FIRST_DROP);
            assert_eq!(Reason::from_number(*reason as u8), Some(*reason));
            assert!(
                Reason::ALL[i + 1..]
                    .iter()
                    .all(|other| other.word() != reason.word())
            );
        }
    }
}
