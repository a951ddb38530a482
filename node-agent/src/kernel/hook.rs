//! The places in the kernel where programs of ours are attached.

use std::fmt;
use std::str::FromStr;

use aya::programs::TcAttachType;
use aya_obj::generated::bpf_attach_type;

/// One attached program. The name of a hook is the name of its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Ingress of a pod's host-side interface.
    FromPod,
    /// Egress of a pod's host-side interface.
    ToPod,
    /// Ingress of an uplink.
    FromWire,
    Connect4,
    Connect6,
    Sendmsg4,
    Sendmsg6,
    Recvmsg4,
    Recvmsg6,
    Getpeername4,
    Getpeername6,
}

impl Hook {
    pub const ALL: &[Self] = &[
        Self::FromPod,
        Self::ToPod,
        Self::FromWire,
        Self::Connect4,
        Self::Connect6,
        Self::Sendmsg4,
        Self::Sendmsg6,
        Self::Recvmsg4,
        Self::Recvmsg6,
        Self::Getpeername4,
        Self::Getpeername6,
    ];
    pub(super) const POD: &[Self] = &[Self::ToPod, Self::FromPod];
    pub(super) const UPLINK: &[Self] = &[Self::FromWire];

    /// The program's name in the object.
    pub const fn program(self) -> &'static str {
        match self {
            Self::FromPod => "from_pod",
            Self::ToPod => "to_pod",
            Self::FromWire => "from_wire",
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::Sendmsg4 => "sendmsg4",
            Self::Sendmsg6 => "sendmsg6",
            Self::Recvmsg4 => "recvmsg4",
            Self::Recvmsg6 => "recvmsg6",
            Self::Getpeername4 => "getpeername4",
            Self::Getpeername6 => "getpeername6",
        }
    }

    /// The side of the interface; `None` for the hooks of a cgroup.
    pub(super) const fn direction(self) -> Option<TcAttachType> {
        match self {
            Self::FromPod | Self::FromWire => Some(TcAttachType::Ingress),
            Self::ToPod => Some(TcAttachType::Egress),
            Self::Connect4
            | Self::Connect6
            | Self::Sendmsg4
            | Self::Sendmsg6
            | Self::Recvmsg4
            | Self::Recvmsg6
            | Self::Getpeername4
            | Self::Getpeername6 => None,
        }
    }

    pub(super) const fn attach_type(self) -> bpf_attach_type {
        match self {
            Self::FromPod | Self::FromWire => bpf_attach_type::BPF_TCX_INGRESS,
            Self::ToPod => bpf_attach_type::BPF_TCX_EGRESS,
            Self::Connect4 => bpf_attach_type::BPF_CGROUP_INET4_CONNECT,
            Self::Connect6 => bpf_attach_type::BPF_CGROUP_INET6_CONNECT,
            Self::Sendmsg4 => bpf_attach_type::BPF_CGROUP_UDP4_SENDMSG,
            Self::Sendmsg6 => bpf_attach_type::BPF_CGROUP_UDP6_SENDMSG,
            Self::Recvmsg4 => bpf_attach_type::BPF_CGROUP_UDP4_RECVMSG,
            Self::Recvmsg6 => bpf_attach_type::BPF_CGROUP_UDP6_RECVMSG,
            Self::Getpeername4 => bpf_attach_type::BPF_CGROUP_INET4_GETPEERNAME,
            Self::Getpeername6 => bpf_attach_type::BPF_CGROUP_INET6_GETPEERNAME,
        }
    }

    pub(super) fn of_interfaces() -> impl Iterator<Item = Self> {
        Self::ALL
            .iter()
            .copied()
            .filter(|hook| hook.direction().is_some())
    }

    pub(super) fn of_cgroups() -> impl Iterator<Item = Self> {
        Self::ALL
            .iter()
            .copied()
            .filter(|hook| hook.direction().is_none())
    }
}

/// A hook of one interface or cgroup. As text, the name of its pinned link: `from_pod-12`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    pub hook: Hook,
    /// Interface index, or the cgroup's id (the inode number of its directory).
    pub target: u64,
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.hook.program(), self.target)
    }
}

impl FromStr for Attachment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.rsplit_once('-').and_then(|(program, target)| {
            let hook = Hook::ALL.iter().copied().find(|hook| hook.program() == program)?;
            Some(Self {
                hook,
                target: target.parse().ok()?,
            })
        });
        parsed.ok_or_else(|| format!("{text:?} is no name of a link of ours (program-target)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_links_survive() {
        for hook in Hook::ALL {
            let attachment = Attachment {
                hook: *hook,
                target: 17,
            };
            assert_eq!(attachment.to_string().parse(), Ok(attachment));
            // bpffs refuses names with a dot.
            assert!(!attachment.to_string().contains('.'));
        }
        assert!("from_pod".parse::<Attachment>().is_err());
        assert!("other-3".parse::<Attachment>().is_err());
        assert!("from_pod-x".parse::<Attachment>().is_err());
    }
}
