//! Which types may be copied to and from raw bytes.

/// A type that is nothing but its bytes: `repr(C)`, integers and arrays of them, no padding that is not a field.
///
/// # Safety
///
/// Every bit pattern must be a valid value, and the type must have no implicit padding.
#[expect(unsafe_code, reason = "the promise is what the trait is for")]
pub unsafe trait Plain: Copy + 'static {}

macro_rules! plain {
    ($($ty:ty),+ $(,)?) => {$(
        // SAFETY: `repr(C)` or primitive, integers and arrays only, padding spelled out (`layout` asserts the size).
        #[expect(unsafe_code, reason = "see the trait")]
        unsafe impl Plain for $ty {}
    )+};
}

plain!(u8, u16, u32, u64, [u8; 6], [u8; 16], [u32; 4]);
plain!(
    crate::address::Address,
    crate::address::CidrKey,
    crate::address::AddressValue
);
plain!(
    crate::config::Control,
    crate::config::LogBudget,
    crate::config::Masquerade
);
plain!(crate::event::FlowEvent, crate::event::SideVerdict);
plain!(crate::explain::Explanation);
plain!(
    crate::flow::FlowKey4,
    crate::flow::FlowKey6,
    crate::flow::FlowValue,
    crate::flow::Hop
);
plain!(crate::flow::FragmentKey, crate::flow::FragmentValue);
plain!(
    crate::policy::PolicyKey,
    crate::policy::PolicyValue,
    crate::policy::PortKey,
    crate::policy::PortValue
);
plain!(
    crate::policy::RuleCount,
    crate::policy::NumberKey,
    crate::policy::NumberValue
);
plain!(
    crate::service::ServiceKey,
    crate::service::ServiceValue,
    crate::service::Backend
);
plain!(crate::service::SocketKey, crate::service::SocketValue);
plain!(crate::slots::Slots);
plain!(crate::workload::Workload);
