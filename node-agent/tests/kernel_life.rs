//! First start, restart, growth and removal: contents and links survive what they must survive.
#![expect(clippy::unwrap_used, reason = "tests")]

mod kernel_bed;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use aya::programs::{SchedClassifier, TcAttachType};
use kernel_bed::flows::{TCP, flow, key4, key6};
use kernel_bed::{Bed, CAPACITIES, in_bed, open};
use weir_abi::address::{Address, AddressValue, CidrKey};
use weir_abi::config::Control;
use weir_abi::flow::{FlowKey4, FlowKey6};
use weir_abi::service::Backend;
use weir_agent::kernel::{AttachBy, Capacities, Config, FlowKey, Hook, Kernel, remove_all};
use weir_agent::table::{Addresses, Backends, Cidrs, Maps as _, Workloads};

const MAPS: &[&str] = &[
    "addresses",
    "backends",
    "cidrs",
    "control",
    "counters",
    "events",
    "flows4",
    "flows6",
    "fragments",
    "jump",
    "log_budget",
    "masquerade",
    "non_masquerade",
    "numbers",
    "overflow",
    "policy",
    "ports",
    "rule_counts",
    "services",
    "sockets",
    "spill4",
    "spill6",
    "workloads",
];

#[test]
fn the_first_start_pins_every_map_and_attaches_nothing() {
    in_bed(|bed| {
        let kernel = bed.kernel();
        assert_eq!(bed.pins(), map_pins());
        assert_eq!(kernel.attachments().unwrap(), BTreeSet::new());
        assert_eq!(kernel.replaced_maps(), Vec::<&str>::new());
        assert_eq!(kernel.capacity::<Workloads>().unwrap(), CAPACITIES.workloads);
    });
}

#[test]
fn two_agents_do_not_run_at_once() {
    in_bed(|bed| {
        let first = bed.kernel();
        let error = Kernel::open(bed.config()).unwrap_err();
        let lock = bed.state().join("agent.lock");
        assert_eq!(
            format!("{error:#}"),
            format!("another agent runs: it holds the lock on {}", lock.display())
        );
        assert!(remove_all(&bed.bpffs(), &bed.state()).is_err());
        drop(first);
        bed.kernel();
    });
}

#[test]
fn a_restarted_agent_adopts_maps_and_links() {
    in_bed(|bed| {
        let pod = bed.veth("pod");
        let mut kernel = bed.kernel();
        fill(&mut kernel);
        kernel.attach_pod(pod).unwrap();
        kernel.attach_cgroup(&bed.cgroup).unwrap();
        let (maps, links) = (unrenewed(&kernel), bed.links());
        let program = attached("pod", TcAttachType::Ingress);
        drop(kernel);
        assert_eq!(
            attached("pod", TcAttachType::Ingress),
            program,
            "the programs run on without an agent"
        );

        let kernel = bed.kernel();
        assert_eq!(unrenewed(&kernel), maps);
        assert_eq!(bed.links(), links);
        assert_filled(&kernel);
        let successor = attached("pod", TcAttachType::Ingress);
        assert_ne!(successor, program, "the link runs the new agent's program");
        assert_eq!(successor.len(), 1);
    });
}

#[test]
fn growing_keeps_contents_and_gives_every_link_the_new_maps() {
    in_bed(|bed| growing(bed, AttachBy::Best));
}

#[test]
fn growing_works_with_filters_on_clsact() {
    in_bed(|bed| growing(bed, AttachBy::Clsact));
}

fn growing(bed: &Bed, attach_by: AttachBy) {
    let mut kernel = attached_everywhere(bed, attach_by);
    fill(&mut kernel);
    let (before, links) = (kernel.map_ids(), bed.links());

    let larger = Capacities {
        flows: 2_000,
        addresses: 1_024,
        backends: 2_048,
        rules: 128,
        cidrs: 600,
        ..CAPACITIES
    };
    kernel.grow(larger).unwrap();
    let after = kernel.map_ids();
    let changed: Vec<&str> = after
        .iter()
        .filter(|(name, id)| before[*name] != **id)
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        changed,
        [
            "addresses",
            "backends",
            "cidrs",
            "flows4",
            "flows6",
            "jump",
            "rule_counts"
        ]
    );
    assert_filled(&kernel);
    assert_eq!(kernel.capacity::<Addresses>().unwrap(), 1_024);
    assert_eq!(kernel.expire_flows(1).unwrap().v4.capacity, 2_000);
    assert_eq!(
        bed.pins(),
        [
            links.iter().map(|link| format!("links/{link}")).collect(),
            map_pins()
        ]
        .concat()
    );
    for program in running(bed, attach_by) {
        let ids = program_map_ids(program);
        assert!(
            ids.iter()
                .all(|id| after.values().any(|other| other == id) || is_unpinned(*id)),
            "{ids:?}"
        );
    }

    // A restart with the former sizes keeps what has grown, but for the flow tables: their size is given, not grown.
    drop(kernel);
    let mut kernel = bed.kernel_by(attach_by);
    assert_eq!(kernel.capacity::<Addresses>().unwrap(), 1_024);
    assert_eq!(kernel.expire_flows(1).unwrap().v4.capacity, CAPACITIES.flows);
    assert_filled(&kernel);

    // Nothing to do is nothing done.
    let ids = kernel.map_ids();
    let programs = running(bed, attach_by);
    kernel.grow(CAPACITIES).unwrap();
    assert_eq!((kernel.map_ids(), running(bed, attach_by)), (ids, programs));
}

#[test]
fn a_flow_table_that_shrinks_keeps_what_fits() {
    in_bed(|bed| {
        let mut kernel = bed.kernel();
        let flows: Vec<_> = (0..800).map(|port| (tcp4(port), flow(1, 0))).collect();
        kernel.write_flows(&flows).unwrap();
        kernel
            .grow(Capacities {
                flows: 100,
                ..CAPACITIES
            })
            .unwrap();
        let table = kernel.expire_flows(1).unwrap().v4;
        assert_eq!((table.capacity, table.entries), (100, 100));
    });
}

#[test]
fn an_object_that_does_not_load_leaves_everything_as_it_was() {
    in_bed(|bed| {
        let pod = bed.veth("pod");
        let mut kernel = bed.kernel();
        fill(&mut kernel);
        kernel.attach_pod(pod).unwrap();
        let (maps, pins, programs) = (
            unrenewed(&kernel),
            bed.pins(),
            attached("pod", TcAttachType::Ingress),
        );
        drop(kernel);
        // The last program that the kernel is asked for begins with an instruction that does not exist.
        let broken: &'static [u8] = Box::leak(broken_object(bed.config().object).into_boxed_slice());
        let capacities = Capacities {
            addresses: 2_048,
            ..CAPACITIES
        };
        let error = Kernel::open(Config {
            object: broken,
            capacities,
            ..bed.config()
        })
        .unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.starts_with(
                "loading the programs (those that run already are not touched): the kernel refuses program "
            ),
            "{text}"
        );
        assert_eq!(
            (bed.pins(), attached("pod", TcAttachType::Ingress)),
            (pins, programs)
        );
        let kernel = bed.kernel();
        assert_eq!(unrenewed(&kernel), maps);
        assert_filled(&kernel);
    });
}

#[test]
fn flows_of_an_agent_that_died_while_growing_are_not_lost() {
    in_bed(|bed| {
        let mut kernel = bed.kernel();
        kernel.write_flows(&[(tcp4(1), flow(1, 0))]).unwrap();
        drop(kernel);
        // As if an agent had died between the switch and the renaming: programs have written to the next table.
        fs::create_dir(bed.bpffs().join("v2/next0")).unwrap();
        for map in ["flows4", "policy"] {
            let from = bed.bpffs().join("v2/maps").join(map);
            fs::rename(from, bed.bpffs().join("v2/next0").join(map)).unwrap();
        }
        let kernel = bed.kernel();
        assert_eq!(flows::<FlowKey4>(&kernel), [tcp4(1)].into());
        assert_eq!(bed.pins(), map_pins());
    });
}

#[test]
fn nothing_is_left_after_removal() {
    for attach_by in [AttachBy::Best, AttachBy::Clsact] {
        in_bed(|bed| {
            let kernel = attached_everywhere(bed, attach_by);
            assert_eq!(running(bed, attach_by).len(), Hook::ALL.len());
            drop(kernel);
            remove_all(&bed.bpffs(), &bed.state()).unwrap();
            assert_eq!(bed.pins(), Vec::<String>::new());
            assert_eq!(running(bed, attach_by), BTreeSet::new());
            assert_eq!(attached("pod", TcAttachType::Ingress), Vec::<u32>::new());
            let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
            assert!(!mounts.contains(bed.bpffs().to_str().unwrap()), "{mounts}");
            // Twice is no error.
            remove_all(&bed.bpffs(), &bed.state()).unwrap();
        });
    }
}

#[test]
fn a_bpffs_of_others_stays_and_so_do_their_pins() {
    in_bed(|bed| {
        let others = bed.bpffs();
        fs::create_dir(&others).unwrap();
        kernel_bed::run("mount", &["-t", "bpf", "bpf", others.to_str().unwrap()]);
        fs::create_dir(others.join("theirs")).unwrap();
        let ours = others.join("weir");
        let kernel = open(Config {
            bpffs: ours.clone(),
            ..bed.config()
        });
        drop(kernel);
        remove_all(&ours, &bed.state()).unwrap();
        assert!(!ours.exists());
        assert!(others.join("theirs").exists());
    });
}

/// An agent with a pod, an uplink and a cgroup.
fn attached_everywhere(bed: &Bed, attach_by: AttachBy) -> Kernel {
    let (pod, uplink) = (bed.veth("pod"), bed.veth("uplink"));
    let mut kernel = bed.kernel_by(attach_by);
    kernel.attach_pod(pod).unwrap();
    kernel.attach_uplink(uplink).unwrap();
    kernel.attach_cgroup(&bed.cgroup).unwrap();
    kernel
}

/// Ids of the maps that outlive programs.
fn unrenewed(kernel: &Kernel) -> BTreeMap<String, u32> {
    kernel
        .map_ids()
        .into_iter()
        .filter(|(name, _)| name != "jump")
        .collect()
}

const CONTROL: Control = Control {
    revision: 3,
    log_budget: 4,
};

fn addresses() -> [(Address, AddressValue); 1] {
    let value = AddressValue {
        identity: 4,
        flags: 0,
    };
    [(Address::from_v4(9), value)]
}

fn cidrs() -> [(CidrKey, u32); 1] {
    let key = CidrKey {
        prefix_len: 8,
        address: [1, 0, 0, 0],
    };
    [(key, 5)]
}

fn backends() -> [(u32, Backend); 1] {
    let backend = Backend {
        port: 80,
        ..Backend::default()
    };
    [(500, backend)]
}

fn fill(kernel: &mut Kernel) {
    kernel.write::<Addresses>(&addresses()).unwrap();
    kernel.write::<Cidrs>(&cidrs()).unwrap();
    kernel.write::<Backends>(&backends()).unwrap();
    kernel.set_control(CONTROL).unwrap();
    let flows: Vec<_> = (0..600).map(|port| (tcp4(port), flow(1, 0))).collect();
    kernel.write_flows(&flows).unwrap();
    kernel.write_flows(&[(key6(), flow(1, 0))]).unwrap();
}

fn assert_filled(kernel: &Kernel) {
    assert_eq!(kernel.read::<Addresses>().unwrap(), addresses().into());
    assert_eq!(kernel.read::<Cidrs>().unwrap(), cidrs().into());
    assert_eq!(kernel.read::<Backends>().unwrap(), backends().into());
    assert_eq!(kernel.control().unwrap(), CONTROL);
    assert_eq!(flows::<FlowKey4>(kernel), (0..600).map(tcp4).collect());
    assert_eq!(flows::<FlowKey6>(kernel), [key6()].into());
}

fn flows<K: FlowKey + Ord>(kernel: &Kernel) -> BTreeSet<K> {
    let mut keys = BTreeSet::new();
    kernel
        .for_each_flow::<K>(|key, value| {
            assert_eq!(value, flow(1, 0));
            keys.insert(key);
        })
        .unwrap();
    keys
}

fn map_pins() -> Vec<String> {
    MAPS.iter().map(|map| format!("v2/maps/{map}")).collect()
}

/// Ids of the tcx programs on one side of an interface.
fn attached(interface: &str, direction: TcAttachType) -> Vec<u32> {
    let (_, programs) = SchedClassifier::query_tcx(interface, direction).unwrap();
    programs.iter().map(|program| program.id()).collect()
}

/// Ids of the programs of ours that are attached: behind pinned links, and in filters of the two interfaces.
fn running(bed: &Bed, attach_by: AttachBy) -> BTreeSet<u32> {
    let mut ids: BTreeSet<u32> = bed
        .links()
        .iter()
        .map(|link| kernel_bed::linked_program(bed, link))
        .collect();
    if attach_by == AttachBy::Clsact {
        for (interface, direction) in [("pod", "ingress"), ("pod", "egress"), ("uplink", "ingress")] {
            ids.extend(kernel_bed::filters(interface, direction).values());
        }
    }
    ids
}

fn program_map_ids(id: u32) -> Vec<u32> {
    let program = aya::programs::loaded_programs().find_map(|program| program.ok().filter(|p| p.id() == id));
    program.unwrap().map_ids().unwrap().unwrap()
}

/// Constants and scratch space belong to the programs.
fn is_unpinned(id: u32) -> bool {
    let info = aya::maps::MapInfo::from_id(id).unwrap();
    let name = info.name_as_str().unwrap();
    name.starts_with("scratch") || name.starts_with('.')
}

/// The object with the first instruction of `to_pod` replaced by zeros, which is no instruction.
fn broken_object(object: &[u8]) -> Vec<u8> {
    let parsed = aya_obj::Object::parse(object).unwrap();
    let function = &parsed.functions[&parsed.programs["to_pod"].function_key()];
    let mut code = Vec::new();
    for instruction in &function.instructions {
        code.extend_from_slice(&instruction.code.to_ne_bytes());
        code.push(instruction.dst_reg() | instruction.src_reg() << 4);
        code.extend_from_slice(&instruction.off.to_ne_bytes());
        code.extend_from_slice(&instruction.imm.to_ne_bytes());
    }
    let at: Vec<usize> = object
        .windows(code.len())
        .enumerate()
        .filter(|(_, w)| *w == code)
        .map(|(at, _)| at)
        .collect();
    let mut broken = object.to_vec();
    for at in at {
        broken[at..at + 8].fill(0);
    }
    assert_ne!(broken, object, "the program's code was found in the object");
    broken
}

fn tcp4(port: u16) -> FlowKey4 {
    key4(port, TCP)
}
