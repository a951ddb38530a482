//! The `bench` object (`bpf/src/bench.rs`): the smallest program that carries a packet from pod to pod, the one that
//! does nothing, and the one that puts a test packet back.

use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd};

use anyhow::{Context, Result};
use aya::maps::{Array, HashMap, ProgramArray};
use aya::programs::{ProgramFd, SchedClassifier, TcAttachType};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench"));

pub(crate) const EMPTY: &str = "empty";
pub(crate) const PEER4: &str = "peer4";
pub(crate) const PEER6: &str = "peer6";
pub(crate) const RESTORE: &str = "restore";

const PROGRAMS: [&str; 4] = [EMPTY, PEER4, PEER6, RESTORE];

/// Bytes at a packet's beginning that `restore` puts back.
pub(crate) const TEMPLATE_BYTES: usize = 80;

/// The loaded programs. What is attached is detached when they are dropped.
#[derive(Debug)]
pub(crate) struct Floor {
    ebpf: Ebpf,
}

/// How a packet gets to a pod: an ifindex, then the MAC addresses of its destination and its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) ifindex: u32,
    pub(crate) pod_mac: [u8; 6],
    pub(crate) host_mac: [u8; 6],
}

/// What `restore` does before it jumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) bytes: [u8; TEMPLATE_BYTES],
    /// Where the source port stands that every run counts up: 34 or 54; 0 for none.
    pub(crate) port_offset: u32,
    /// The port before the first one.
    pub(crate) port: u32,
}

impl Floor {
    pub(crate) fn load() -> Result<Floor> {
        // No program reads kernel structures, so there is nothing to relocate.
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .load(OBJECT)
            .context("load the bench object")?;
        for name in PROGRAMS {
            classifier(&mut ebpf, name)?
                .load()
                .with_context(|| format!("load program {name}"))?;
        }
        Ok(Floor { ebpf })
    }

    pub(crate) fn add_endpoint(&mut self, address: IpAddr, endpoint: Endpoint) -> Result<()> {
        let map = if address.is_ipv4() {
            "endpoints4"
        } else {
            "endpoints6"
        };
        let map = self
            .ebpf
            .map_mut(map)
            .context("the bench object lacks its endpoints")?;
        match address {
            IpAddr::V4(v4) => {
                let mut map: HashMap<_, [u8; 4], [u8; 16]> = map.try_into()?;
                map.insert(v4.octets(), endpoint.bytes(), 0)?;
            }
            IpAddr::V6(v6) => {
                let mut map: HashMap<_, [u8; 16], [u8; 16]> = map.try_into()?;
                map.insert(v6.octets(), endpoint.bytes(), 0)?;
            }
        }
        Ok(())
    }

    /// Attaches to what comes in by an interface of this thread's network namespace.
    pub(crate) fn attach(&mut self, program: &str, interface: &str) -> Result<()> {
        classifier(&mut self.ebpf, program)?
            .attach(interface, TcAttachType::Ingress)
            .with_context(|| format!("attach {program} to {interface}"))?;
        Ok(())
    }

    pub(crate) fn program(&self, name: &str) -> Result<BorrowedFd<'_>> {
        Ok(self.program_fd(name)?.as_fd())
    }

    pub(crate) fn program_fd(&self, name: &str) -> Result<&ProgramFd> {
        let program = self
            .ebpf
            .program(name)
            .with_context(|| format!("the bench object lacks {name}"))?;
        Ok(program.fd()?)
    }

    pub(crate) fn set_template(&mut self, template: &Template) -> Result<()> {
        let map = self
            .ebpf
            .map_mut("template")
            .context("the bench object lacks its template")?;
        let mut map: Array<_, [u8; TEMPLATE_BYTES + 8]> = map.try_into()?;
        Ok(map.set(0, template.raw(), 0)?)
    }

    /// Where `restore` jumps.
    pub(crate) fn set_next(&mut self, program: &ProgramFd) -> Result<()> {
        let map = self
            .ebpf
            .map_mut("next")
            .context("the bench object lacks its program array")?;
        ProgramArray::try_from(map)?
            .set(0, program, 0)
            .context("make a program the next one")
    }
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("the bench object lacks {name}"))?;
    Ok(program.try_into()?)
}

impl Endpoint {
    /// As `weir_abi::flow::Hop`.
    fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&self.ifindex.to_ne_bytes());
        bytes[4..10].copy_from_slice(&self.pod_mac);
        bytes[10..].copy_from_slice(&self.host_mac);
        bytes
    }
}

impl Template {
    fn raw(&self) -> [u8; TEMPLATE_BYTES + 8] {
        let mut raw = [0; TEMPLATE_BYTES + 8];
        raw[..TEMPLATE_BYTES].copy_from_slice(&self.bytes);
        raw[TEMPLATE_BYTES..TEMPLATE_BYTES + 4].copy_from_slice(&self.port_offset.to_ne_bytes());
        raw[TEMPLATE_BYTES + 4..].copy_from_slice(&self.port.to_ne_bytes());
        raw
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use weir_abi::flow::Hop;

    use super::*;

    #[test]
    fn an_endpoint_is_laid_out_as_a_hop() {
        let endpoint = Endpoint {
            ifindex: 7,
            pod_mac: [1; 6],
            host_mac: [2; 6],
        };
        let bytes = endpoint.bytes();
        assert_eq!(size_of::<Hop>(), bytes.len());
        assert_eq!(bytes[offset_of!(Hop, ifindex)..][..4], 7_u32.to_ne_bytes());
        assert_eq!(bytes[offset_of!(Hop, destination_mac)..][..6], [1; 6]);
        assert_eq!(bytes[offset_of!(Hop, source_mac)..][..6], [2; 6]);
    }
}
