//! Network namespaces, pods and traffic for tests, the demo and the benchmarks.
//!
//! A [`Testbed`] owns everything that one test makes in the kernel: network namespaces, a BPF file system,
//! control groups, processes, a directory. All of it is gone when it is dropped, also after a panic, and
//! what a killed test leaves is removed by the next one.
//!
//! A [`Place`] is where a process of the test runs: a network namespace and a control group. [`topology`]
//! joins places by links. [`traffic`] sends and judges traffic between them, [`measure`] measures it.
//! [`Agent`] runs the program under test, and [`Manifests`] feeds it.
//!
//! It needs root and the programs `ip`, `nsenter` and, to measure, `chrt`.

mod agent;
mod arrivals;
mod cgroup;
mod interrupt;
mod launch;
mod manifests;
pub mod measure;
mod owner;
mod place;
mod process;
mod program;
mod remains;
mod testbed;
pub mod topology;
pub mod traffic;

pub use agent::{Agent, AgentOptions, FlowRecord};
pub use arrivals::Arrivals;
pub use interrupt::clean_up_on_interrupt;
pub use manifests::{Endpoint, EndpointSlice, Manifests, Pod, Port, Service};
pub use place::Place;
pub use process::Process;
pub use program::program;
pub use remains::sweep;
pub use testbed::Testbed;
