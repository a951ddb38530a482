//! The packet parser: no input makes it panic, what it says depends on the input alone, and every offset it gives is
//! one of a header in the packet.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_datapath::packet::{Packet, shape};
use weir_datapath::parse::parse;
use weir_datapath::testing::FULL;

fuzz_target!(|frame: &[u8]| {
    let mut packet = Packet::default();
    let mut over_another = FULL;
    let first = parse(frame, &mut packet);
    assert_eq!(first, parse(frame, &mut over_another));
    if first.is_err() {
        return;
    }
    assert_eq!(packet, over_another, "a field was not written");
    if packet.shape == shape::ARP {
        assert_eq!(
            packet,
            Packet {
                shape: shape::ARP,
                ..Packet::default()
            }
        );
        return;
    }
    let ip_header = if packet.family == 4 { 20 } else { 40 };
    assert!(usize::from(packet.transport) >= 14 + ip_header);
    if packet.shape == shape::ICMP_ERROR {
        assert_eq!(packet.quoted, packet.transport + 8);
        assert!(usize::from(packet.quoted) + ip_header <= frame.len());
        assert!(usize::from(packet.quoted_transport) >= usize::from(packet.quoted) + ip_header);
    }
    if packet.family == 6 {
        assert!(usize::from(packet.transport) <= frame.len());
        assert!(usize::from(packet.quoted_transport) <= frame.len());
    }
    let is_fragment = matches!(packet.shape, shape::FIRST_FRAGMENT | shape::LATER_FRAGMENT);
    assert!(is_fragment || packet.identification == 0);
});
