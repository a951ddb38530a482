//! How far the programs go before they give up on a packet. Bounds are what the verifier and the reader can rely on.

/// IPv6 extension headers followed in one packet. Hop-by-hop, destination options (twice), routing, fragment and
/// authentication each appear at most once in a sensible packet (RFC 8200, section 4.1).
pub const EXTENSION_HEADERS: u32 = 6;

/// Seconds without a packet after which a flow entry counts as absent.
pub mod idle_seconds {
    /// A TCP connection that both ends have used (RFC 5382, REQ-5 asks for at least 2 h 4 min).
    pub const TCP_ESTABLISHED: u32 = 8 * 3600;
    /// A TCP connection that has seen packets of one end only.
    pub const TCP_OPENING: u32 = 60;
    /// A TCP connection that is over.
    pub const TCP_CLOSED: u32 = 10;
    /// UDP, SCTP and everything else, answered (RFC 4787, REQ-5 asks for at least 2 min).
    pub const OTHER_ANSWERED: u32 = 180;
    /// The same, unanswered.
    pub const OTHER_UNANSWERED: u32 = 60;
}
