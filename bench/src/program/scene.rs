//! A node without an agent: interfaces, loaded programs, filled maps, three pods and a policy between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use aya::programs::{ProgramFd, loaded_programs};
use nix::net::if_::if_nametoindex;
use weir_abi::address::AddressValue;
use weir_abi::config::Control;
use weir_abi::policy::{ANY_PEER, INGRESS, PolicyKey, side};
use weir_abi::reason::Reason;
use weir_abi::service::ServiceValue;
use weir_abi::slots;
use weir_abi::workload::{NO_POLICY_SET, Workload, workload_flags};
use weir_agent::kernel::{AttachBy, Config, Kernel, OBJECT, Ring, TestPacket, remove_all, test_run};
use weir_agent::table::{Addresses, Backends, Maps as _, Policy, Services, Workloads};
use weir_testbed::Testbed;

use super::cases::{Case, Run};
use super::packet;
use crate::floor::{self, Endpoint, Floor};
use crate::load::{self, Load, backend, decides, service_key};

/// Each with an address of both families that ends in this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Host {
    Client = 2,
    /// Behind a policy that lets the client in; everything about it is logged.
    Server = 3,
    /// As the server, and nothing about it is logged.
    QuietServer = 4,
    /// Whom no policy lets in.
    Stranger = 5,
}

/// Of the Service before the server.
pub(super) const SERVICE: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
pub(super) const SERVICE_PORT: u16 = 80;
pub(super) const SERVER_PORT: u16 = 8080;

const POLICY_SET: u32 = 1;
const ALLOW_RULE: u32 = 1;
const ISOLATION_RULE: u32 = 2;
/// After every rule.
const LAST_RANK: u32 = (1 << 30) - 1;

/// Pods of a full node.
const OTHER_PODS: u32 = 110;

/// In units of the programs' clock: longer than any flow lives without a packet.
const FOREVER: u32 = 100_000;

impl Host {
    pub(super) const fn v4(self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, 0, self as u8)), port)
    }

    pub(super) const fn v6(self, port: u16) -> SocketAddr {
        SocketAddr::new(
            IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 2, 0, 0, 0, 0, self as u16)),
            port,
        )
    }

    fn addresses(self) -> [IpAddr; 2] {
        [self.v4(0).ip(), self.v6(0).ip()]
    }

    /// No identity of the load.
    fn identity(self) -> u32 {
        1_000 + self as u32
    }
}

/// Interface indices of the host sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interfaces {
    pub(super) client: u32,
    pub(super) server: u32,
    pub(super) stranger: u32,
}

#[derive(Debug)]
pub(super) struct Scene {
    pub(super) kernel: Kernel,
    pub(super) interfaces: Interfaces,
    ring: Ring,
    floor: Floor,
    from_pod: ProgramFd,
    bpffs: PathBuf,
    state: PathBuf,
}

impl Scene {
    /// In this thread's network namespace.
    pub(super) fn new(testbed: &Testbed, load: &Load) -> Result<Scene> {
        let (bpffs, state) = (testbed.bpffs().join("program"), testbed.subdirectory("program")?);
        let interfaces = Interfaces {
            client: veth("client")?,
            server: veth("server")?,
            stranger: veth("stranger")?,
        };
        let mut kernel = Kernel::open(Config {
            object: OBJECT,
            bpffs: bpffs.clone(),
            state: state.clone(),
            capacities: load.capacities(),
            attach_by: AttachBy::Best,
        })?;
        load.write(&mut kernel)?;
        write_pods(&mut kernel, interfaces)?;
        write_policy(&mut kernel)?;
        write_service(&mut kernel, load)?;
        kernel.set_control(Control {
            revision: 1,
            log_budget: u32::MAX,
        })?;
        let mut floor = Floor::load()?;
        fill_floor(&mut floor, load, interfaces)?;
        let (ring, from_pod) = (kernel.ring()?, program_of(&kernel, "from_pod")?);
        Ok(Scene {
            kernel,
            interfaces,
            ring,
            floor,
            from_pod,
            bpffs,
            state,
        })
    }

    /// Takes everything away but the interfaces, which are the namespace's.
    pub(super) fn remove(self) -> Result<()> {
        let (bpffs, state) = (self.bpffs.clone(), self.state.clone());
        drop(self);
        remove_all(&bpffs, &state)
    }

    /// Runs the case's packets and says what one took, in nanoseconds. An error if they leave for another reason than
    /// they should.
    pub(super) fn run(&mut self, case: &Case) -> Result<u32> {
        self.forget()?;
        for (ifindex, packet) in &case.before {
            let packet = TestPacket {
                bytes: packet,
                ifindex: *ifindex,
                repeat: 1,
            };
            self.kernel.test_run("from_pod", &packet)?;
        }
        self.aim(case)?;
        let (before, lost) = (self.kernel.packets()?, self.kernel.log_count()?.lost);
        let packet = TestPacket {
            bytes: &case.packet,
            ifindex: case.ifindex,
            repeat: case.repeat,
        };
        let outcome = match case.run {
            Run::Floor(program) => test_run(self.floor.program(program)?, &packet)?,
            Run::Repeated => self.kernel.test_run("from_pod", &packet)?,
            Run::EmptyRestored | Run::EmptyOpening | Run::Restored | Run::Opening => {
                test_run(self.floor.program(floor::RESTORE)?, &packet)?
            }
        };
        let moved = difference(&before, &self.kernel.packets()?);
        let expected: BTreeMap<Reason, u64> = case
            .reason
            .iter()
            .map(|reason| (*reason, u64::from(case.repeat)))
            .collect();
        ensure!(
            moved == expected,
            "the packets left for {moved:?}, and should for {expected:?}"
        );
        ensure!(
            self.kernel.log_count()?.lost == lost,
            "records were lost, which is less work than writing them"
        );
        ensure!(
            outcome.return_value == case.action,
            "TC action {}, and should be {}",
            outcome.return_value,
            case.action
        );
        Ok(outcome.nanos_per_run)
    }

    /// No flow and no record of what was before.
    fn forget(&mut self) -> Result<()> {
        let now = self.kernel.now()?;
        self.kernel.expire_flows(now + FOREVER)?;
        self.ring.drain(|_| {});
        Ok(())
    }

    fn aim(&mut self, case: &Case) -> Result<()> {
        let opening = matches!(case.run, Run::Opening | Run::EmptyOpening);
        self.floor
            .set_template(&packet::template(&case.packet, opening))?;
        match case.run {
            Run::EmptyRestored | Run::EmptyOpening => {
                let empty = self.floor.program_fd(floor::EMPTY)?.try_clone()?;
                self.floor.set_next(&empty)
            }
            Run::Restored | Run::Opening => self.floor.set_next(&self.from_pod),
            Run::Floor(_) | Run::Repeated => Ok(()),
        }
    }
}

fn veth(name: &str) -> Result<u32> {
    let arguments = [
        "link",
        "add",
        name,
        "type",
        "veth",
        "peer",
        "name",
        &format!("{name}-pod"),
    ];
    let output = Command::new("ip").args(arguments).output().context("run ip")?;
    ensure!(
        output.status.success(),
        "make {name}: {}",
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    if_nametoindex(name).with_context(|| format!("interface {name}"))
}

fn write_pods(kernel: &mut Kernel, interfaces: Interfaces) -> Result<()> {
    const LOG: u32 = workload_flags::LOG_INGRESS_ALLOW
        | workload_flags::LOG_INGRESS_DENY
        | workload_flags::LOG_EGRESS_ALLOW
        | workload_flags::LOG_EGRESS_DENY;
    let hosts = [
        (Host::Client, interfaces.client, NO_POLICY_SET, LOG),
        (Host::Server, interfaces.server, POLICY_SET, LOG),
        (Host::QuietServer, interfaces.server, POLICY_SET, 0),
        (Host::Stranger, interfaces.stranger, NO_POLICY_SET, LOG),
    ];
    let workload = |ifindex, identity, policy_set, flags| Workload {
        ifindex,
        identity,
        policy_set,
        flags,
        pod_mac: [2, 0, 0, 0, 1, 1],
        host_mac: [2, 0, 0, 0, 1, 2],
        log_allow_every: 1,
    };
    let mut workloads = Vec::new();
    let mut addresses = Vec::new();
    for (host, ifindex, policy_set, flags) in hosts {
        for ip in host.addresses() {
            workloads.push((
                load::address(ip),
                workload(ifindex, host.identity(), policy_set, flags),
            ));
            addresses.push((
                load::address(ip),
                AddressValue {
                    identity: host.identity(),
                    flags: 0,
                },
            ));
        }
    }
    for i in 0..OTHER_PODS {
        let address = load::address(Load::pod_address(i));
        workloads.push((address, workload(interfaces.stranger, 1, NO_POLICY_SET, 0)));
    }
    kernel.write::<Addresses>(&addresses)?;
    Ok(kernel.write::<Workloads>(&workloads)?)
}

fn write_policy(kernel: &mut Kernel) -> Result<()> {
    let side = side(POLICY_SET, INGRESS);
    let allowed = PolicyKey {
        side,
        peer: Host::Client.identity(),
    };
    let others = PolicyKey { side, peer: ANY_PEER };
    Ok(kernel.write::<Policy>(&[
        (allowed, decides(slots::slot(0, slots::ACCEPT, ALLOW_RULE))),
        (
            others,
            decides(slots::slot(LAST_RANK, slots::DENY, ISOLATION_RULE)),
        ),
    ])?)
}

/// Its backend comes after those of the load.
fn write_service(kernel: &mut Kernel, load: &Load) -> Result<()> {
    let server = Host::Server.v4(SERVER_PORT);
    kernel.write::<Backends>(&[(load.backends, backend(server.ip(), server.port()))])?;
    let value = ServiceValue {
        first: load.backends,
        count: 1,
    };
    Ok(kernel.write::<Services>(&[(service_key(SERVICE.into(), SERVICE_PORT), value)])?)
}

/// As many endpoints as the load has addresses.
fn fill_floor(floor: &mut Floor, load: &Load, interfaces: Interfaces) -> Result<()> {
    let endpoint = Endpoint {
        ifindex: interfaces.server,
        pod_mac: [2, 0, 0, 0, 1, 1],
        host_mac: [2, 0, 0, 0, 1, 2],
    };
    for i in 0..load.addresses {
        let v4 = Load::pod_address(i);
        floor.add_endpoint(v4.into(), endpoint)?;
        floor.add_endpoint(v4.to_ipv6_mapped().into(), endpoint)?;
    }
    for ip in Host::Server.addresses() {
        floor.add_endpoint(ip, endpoint)?;
    }
    Ok(())
}

/// Others of that name may be loaded: ours is the one that uses our maps.
fn program_of(kernel: &Kernel, name: &str) -> Result<ProgramFd> {
    let ours: BTreeSet<u32> = kernel.map_ids().into_values().collect();
    for program in loaded_programs() {
        // One that is unloaded while the list is read is not ours.
        let Ok(program) = program else { continue };
        let maps = program.map_ids().ok().flatten().unwrap_or_default();
        if program.name_as_str() == Some(name) && maps.iter().any(|id| ours.contains(id)) {
            return Ok(program.fd()?);
        }
    }
    bail!("program {name} is not loaded")
}

/// Counters that moved, and by how much.
fn difference(before: &BTreeMap<Reason, u64>, after: &BTreeMap<Reason, u64>) -> BTreeMap<Reason, u64> {
    let moved = after
        .iter()
        .map(|(reason, count)| (*reason, count - before.get(reason).copied().unwrap_or(0)));
    moved.filter(|(_, count)| *count != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_counters_that_moved_are_named() {
        let before = BTreeMap::from([(Reason::Allowed, 5), (Reason::DefaultAllowed, 1)]);
        let after = BTreeMap::from([
            (Reason::Allowed, 8),
            (Reason::Isolated, 2),
            (Reason::DefaultAllowed, 1),
        ]);
        let expected = BTreeMap::from([(Reason::Allowed, 3), (Reason::Isolated, 2)]);
        assert_eq!(difference(&before, &after), expected);
    }
}
