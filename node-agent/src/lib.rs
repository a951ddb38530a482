//! The node agent: makes the kernel hold the desired state and reports what it decides.
