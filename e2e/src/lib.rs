//! A Kubernetes cluster of several nodes on one machine, for the tests that only a cluster can show, and an API
//! server alone, for those that need no nodes.
//!
//! Everything is the real thing, built from the Go module proxy ([`recipes`], [`build`]): etcd, the control plane,
//! and on each node containerd, runc and a kubelet. Nodes are network, mount, PID, UTS, IPC and cgroup namespaces of
//! this machine. There is no kube-proxy and no network plugin but Weir's.

pub mod addons;
pub mod api_server;
pub mod build;
pub mod certificates;
pub mod cgroups;
pub mod cluster;
pub mod control_plane;
pub mod down;
pub mod go_module;
pub mod images;
pub mod install;
pub mod kube_apiserver;
pub mod kubeconfig;
pub mod kubernetes;
pub mod lock;
pub mod network;
pub mod node;
mod own_program;
pub mod pki;
pub mod places;
pub mod plan;
pub mod process;
pub mod progress;
pub mod recipes;
pub mod seed;
pub mod status;
pub mod up;
pub mod upstream;
