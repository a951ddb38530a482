//! Sizes, asserted at compile time. A struct whose size is the sum of its fields has no implicit padding.

use crate::{
    address::*, config::*, event::*, explain::*, flow::*, policy::*, service::*, slots::*, workload::*,
};

macro_rules! sizes {
    ($($ty:ty = $($field:literal)+;)+) => {
        $(const _: () = assert!(size_of::<$ty>() == 0 $(+ $field)+, "implicit padding or a changed layout");)+
    };
}

sizes! {
    Address = 16;
    CidrKey = 4 16;
    AddressValue = 4 4;
    Slots = 8 8 8;
    PolicyKey = 4 4;
    PolicyValue = 24 24 4 4;
    PortKey = 4 2 1 1;
    PortValue = 24 24;
    RuleCount = 8 8 8 8;
    NumberKey = 4 4;
    NumberValue = 16;
    Workload = 4 4 4 4 6 6 4;
    ServiceKey = 16 2 1 5;
    ServiceValue = 4 4;
    Backend = 16 2 6;
    SocketKey = 8 16 2 6;
    SocketValue = 16 2 6;
    FlowKey4 = 4 4 2 2 1 3;
    FlowKey6 = 16 16 2 2 1 3;
    Hop = 4 6 6;
    FlowValue = 4 4 4 2 2 32 4 4 16 16;
    FragmentKey = 16 16 4 1 3;
    FragmentValue = 2 2 1 3;
    Control = 4 4;
    Masquerade = 16 16 2 2 4;
    LogBudget = 4 4 8 8 8;
    SideVerdict = 4 4 1 1 2;
    FlowEvent = 2 2 1 1 1 1 8 8 16 16 16 2 2 2 2 4 4 12 12;
    Explanation = 1 1 2 4 4 2 2 16 12 12;
}
