//! Raw bytes out of the ring buffer → [`FlowEvent`].

use weir_abi::address::Address;
use weir_abi::event::{EVENT_VERSION, FlowEvent, SideVerdict, side_verdict};
use weir_abi::reason::Reason;

/// Why a record cannot be read. A record that is none of ours is counted and skipped, never guessed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("a flow event has {expected} bytes, this one {got}", expected = size_of::<FlowEvent>())]
    Size { got: usize },
    #[error("flow event version {got}, this agent reads version {EVENT_VERSION}")]
    Version { got: u16 },
    #[error("no reason has the number {0}")]
    Reason(u8),
    #[error("no verdict has the number {0}")]
    Verdict(u8),
}

/// Reads one record. The event's fields stay as the kernel wrote them: ports in network byte order, the rest in the
/// machine's own.
pub fn decode(bytes: &[u8]) -> Result<FlowEvent, DecodeError> {
    let size = DecodeError::Size { got: bytes.len() };
    if bytes.len() != size_of::<FlowEvent>() {
        return Err(size);
    }
    let event = read_event(&mut Reader(bytes)).ok_or(size)?;
    if event.version != EVENT_VERSION {
        return Err(DecodeError::Version { got: event.version });
    }
    if Reason::from_number(event.reason).is_none() {
        return Err(DecodeError::Reason(event.reason));
    }
    for side in [event.egress, event.ingress] {
        known_verdict(side.verdict)?;
        known_verdict(side.dry_run_verdict)?;
    }
    Ok(event)
}

fn known_verdict(verdict: u8) -> Result<(), DecodeError> {
    match verdict {
        side_verdict::NOT_JUDGED | side_verdict::ALLOW | side_verdict::DENY => Ok(()),
        unknown => Err(DecodeError::Verdict(unknown)),
    }
}

fn read_event(r: &mut Reader<'_>) -> Option<FlowEvent> {
    Some(FlowEvent {
        version: r.u16()?,
        cpu: r.u16()?,
        reason: r.u8()?,
        protocol: r.u8()?,
        detail: r.u8()?,
        flags: r.u8()?,
        sequence: r.u64()?,
        time: r.u64()?,
        source: r.address()?,
        destination: r.address()?,
        service: r.address()?,
        source_port: r.u16()?,
        destination_port: r.u16()?,
        service_port: r.u16()?,
        padding: r.u16()?,
        source_identity: r.u32()?,
        destination_identity: r.u32()?,
        egress: r.side()?,
        ingress: r.side()?,
    })
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_ne_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    fn address(&mut self) -> Option<Address> {
        self.take().map(Address::from_octets)
    }

    fn side(&mut self) -> Option<SideVerdict> {
        Some(SideVerdict {
            rule: self.u32()?,
            dry_run_rule: self.u32()?,
            verdict: self.u8()?,
            dry_run_verdict: self.u8()?,
            padding: self.u16()?,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;
    use weir_abi::event::event_flags;

    use super::*;

    /// A denied TCP connection between two pods, wanted by both sides' FlowLogPolicies.
    pub(crate) fn event() -> FlowEvent {
        FlowEvent {
            version: EVENT_VERSION,
            cpu: 3,
            reason: Reason::Isolated as u8,
            protocol: 6,
            detail: 2,
            flags: event_flags::LOG_EGRESS | event_flags::LOG_INGRESS,
            sequence: 7,
            time: 1_000_000_006,
            source: address("10.244.1.12"),
            destination: address("10.244.1.13"),
            service: address("10.96.10.80"),
            source_port: 45084_u16.to_be(),
            destination_port: 8080_u16.to_be(),
            service_port: 80_u16.to_be(),
            padding: 0,
            source_identity: 257,
            destination_identity: 258,
            egress: SideVerdict {
                rule: 4,
                dry_run_rule: 4,
                verdict: side_verdict::ALLOW,
                dry_run_verdict: side_verdict::ALLOW,
                padding: 0,
            },
            ingress: SideVerdict {
                rule: 9,
                dry_run_rule: 9,
                verdict: side_verdict::DENY,
                dry_run_verdict: side_verdict::DENY,
                padding: 0,
            },
        }
    }

    pub(crate) fn address(text: &str) -> Address {
        Address::from_ip(text.parse::<IpAddr>().expect("an address"))
    }

    /// The bytes that the kernel writes, offset by offset as `repr(C)` lays the struct out.
    pub(crate) fn encode(event: &FlowEvent) -> Vec<u8> {
        let mut bytes = vec![0; size_of::<FlowEvent>()];
        let mut put =
            |offset: usize, field: &[u8]| bytes[offset..offset + field.len()].copy_from_slice(field);
        macro_rules! put_fields {
            ($($base:expr, $ty:ty, $value:expr => $($field:ident)+;)+) => {
                $($(put($base + std::mem::offset_of!($ty, $field), &$value.$field.to_ne_bytes());)+)+
            };
        }
        let (egress, ingress) = (
            std::mem::offset_of!(FlowEvent, egress),
            std::mem::offset_of!(FlowEvent, ingress),
        );
        put_fields! {
            0, FlowEvent, event => version cpu reason protocol detail flags sequence time source_port
                destination_port service_port padding source_identity destination_identity;
            egress, SideVerdict, event.egress => rule dry_run_rule verdict dry_run_verdict padding;
            ingress, SideVerdict, event.ingress => rule dry_run_rule verdict dry_run_verdict padding;
        }
        put(std::mem::offset_of!(FlowEvent, source), &event.source.octets());
        put(
            std::mem::offset_of!(FlowEvent, destination),
            &event.destination.octets(),
        );
        put(std::mem::offset_of!(FlowEvent, service), &event.service.octets());
        bytes
    }

    #[test]
    fn what_the_kernel_wrote_is_read_back() {
        assert_eq!(decode(&encode(&event())), Ok(event()));
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let good = encode(&event());
        let longer = [good.as_slice(), &[0]].concat();
        let with = |change: fn(&mut FlowEvent)| {
            let mut event = event();
            change(&mut event);
            decode(&encode(&event))
        };
        assert_eq!(decode(&[]), Err(DecodeError::Size { got: 0 }));
        assert_eq!(
            decode(&good[..good.len() - 1]),
            Err(DecodeError::Size { got: good.len() - 1 })
        );
        assert_eq!(decode(&longer), Err(DecodeError::Size { got: longer.len() }));
        assert_eq!(with(|e| e.version = 9), Err(DecodeError::Version { got: 9 }));
        assert_eq!(with(|e| e.reason = 255), Err(DecodeError::Reason(255)));
        assert_eq!(with(|e| e.egress.verdict = 3), Err(DecodeError::Verdict(3)));
        assert_eq!(
            with(|e| e.ingress.dry_run_verdict = 77),
            Err(DecodeError::Verdict(77))
        );
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn random_events_are_read_whole(mut bytes in proptest::collection::vec(any::<u8>(), size_of::<FlowEvent>())) {
            bytes[..2].copy_from_slice(&EVENT_VERSION.to_ne_bytes());
            if let Ok(event) = decode(&bytes) {
                prop_assert_eq!(encode(&event), bytes);
            }
        }
    }
}
