//! Addresses and who they belong to.

/// An IPv6 address, or an IPv4 address as `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2), in network byte order.
///
/// Four words rather than sixteen bytes: BPF copies and compares byte arrays one byte at a time.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Address(pub [u32; 4]);

impl Address {
    /// The third word of every IPv4-mapped address.
    pub const MAPPED: u32 = 0x0000_ffff_u32.to_be();

    /// `address` is in network byte order, as in the packet.
    #[inline(always)]
    pub const fn from_v4(address: u32) -> Self {
        Self([0, 0, Self::MAPPED, address])
    }

    /// Whether this is an IPv4 address in its mapped form.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] | self.0[1] | (self.0[2] ^ Self::MAPPED) == 0
    }

    /// The IPv4 address in network byte order; meaningful only if [`is_v4`](Self::is_v4).
    #[inline(always)]
    pub const fn v4(&self) -> u32 {
        self.0[3]
    }

    pub const fn from_ip(ip: core::net::IpAddr) -> Self {
        let octets = match ip {
            core::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            core::net::IpAddr::V6(v6) => v6.octets(),
        };
        Self::from_octets(octets)
    }

    pub const fn from_octets(o: [u8; 16]) -> Self {
        Self([
            u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
            u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
            u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
            u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
        ])
    }

    pub const fn octets(&self) -> [u8; 16] {
        let (a, b, c, d) = (
            self.0[0].to_ne_bytes(),
            self.0[1].to_ne_bytes(),
            self.0[2].to_ne_bytes(),
            self.0[3].to_ne_bytes(),
        );
        [
            a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3],
        ]
    }

    pub fn to_ip(&self) -> core::net::IpAddr {
        core::net::IpAddr::from(self.octets()).to_canonical()
    }
}

/// Key of the `cidrs` LPM trie: the kernel wants the prefix length in front (`struct bpf_lpm_trie_key_u8`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CidrKey {
    /// 0 to 128; an IPv4 prefix of length `n` has `96 + n`.
    pub prefix_len: u32,
    /// Network byte order, bits past the prefix zero.
    pub address: [u32; 4],
}

/// Value of the `addresses` hash: who an address belongs to.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct AddressValue {
    /// Identity number; [`UNKNOWN_IDENTITY`] where the address has none (a node, a host-network pod).
    pub identity: u32,
    /// Bits of [`address_flags`].
    pub flags: u32,
}

/// What an address that is not in the map, or belongs to no pod, has for an identity.
pub const UNKNOWN_IDENTITY: u32 = 0;

/// What a pod of another node that is not in the map yet has for an identity: an address that is not in the map, and
/// in a range of [`POD_RANGE`](crate::config::POD_RANGE)s.
pub const UNKNOWN_POD: u32 = (1 << 31) - 1;

pub mod address_flags {
    /// One of this node's own addresses. Traffic between it and the node's pods is always allowed.
    pub const LOCAL_NODE: u32 = 1 << 0;
    /// An address of another node.
    pub const REMOTE_NODE: u32 = 1 << 1;
}
