//! The flow event decoder: no record makes it panic, and one that it accepts has the fields that its bytes say.
#![no_main]

#[path = "../../node-agent/src/flow/decode.rs"]
mod decode;

use decode::{DecodeError, decode};
use libfuzzer_sys::fuzz_target;
use weir_abi::event::{EVENT_VERSION, FlowEvent};
use weir_datapath::bytes::Bytes;

fuzz_target!(|record: &[u8]| {
    check(record);
    // As long as an event, and of this version, so that what comes behind the first two checks is reached at once.
    let mut right = [0; size_of::<FlowEvent>()];
    let length = record.len().min(right.len());
    right[..length].copy_from_slice(&record[..length]);
    right[..2].copy_from_slice(&EVENT_VERSION.to_ne_bytes());
    check(&right);
});

fn check(record: &[u8]) {
    match decode(record) {
        Ok(event) => assert_eq!(Some(event), record.load::<FlowEvent>(0)),
        Err(DecodeError::Size { got }) => {
            assert!(got == record.len() && got != size_of::<FlowEvent>());
        }
        Err(_) => assert_eq!(record.len(), size_of::<FlowEvent>()),
    }
}
