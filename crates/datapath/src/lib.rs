//! Packets to verdicts as plain functions, built for the kernel and for the host.
