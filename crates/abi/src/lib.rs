//! What the eBPF programs and the agent share: map keys and values, reasons, events, load-time configuration.
