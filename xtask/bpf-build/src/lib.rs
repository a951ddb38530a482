//! Builds the eBPF objects of `bpf/`: the only place that knows the recipe.
//!
//! The objects need a compiler whose standard library's source is at hand (`core` is built for the BPF target)
//! and a linker that speaks LLVM bitcode. Neither is what builds the rest of the workspace, so `bpf/` is a
//! workspace of its own, built by a cargo of its own. [`Toolchain`] finds the compiler, [`Linker`] the linker,
//! and [`objects`] runs them. Nothing here installs anything: that is `cargo xtask setup`.
//!
//! The environment chooses:
//!
//! - `BPF_OBJ_DIR`: a directory with prebuilt objects; nothing is compiled.
//! - `BPF_TOOLCHAIN`: the rustup toolchain to build with, instead of the first that fits.

pub mod cache;
pub mod environment;
mod linker;
mod objects;
mod script;
mod toolchain;

pub use linker::{LINKER_VERSION, Linker, linker_root};
pub use objects::{BpfTree, Object, objects};
pub use script::embed;
pub use toolchain::{SYSTEM_RUSTC, Toolchain};
