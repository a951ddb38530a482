//! Programs get onto interfaces and cgroups, once, and off again.
#![expect(clippy::unwrap_used, reason = "tests")]

mod kernel_bed;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use aya::programs::{SchedClassifier, TcAttachType};
use kernel_bed::{Bed, filters, in_bed, ip, linked_program};
use weir_agent::kernel::{Abilities, AttachBy, Attachment, Hook, Kernel, Wanted};

/// Bits of the programs' names on both sides of an interface, as tcx knows them.
fn tcx(interface: &str) -> (Vec<String>, Vec<String>) {
    let names = |direction| {
        let (_, programs) = SchedClassifier::query_tcx(interface, direction).unwrap();
        programs
            .iter()
            .map(|program| program.name_as_str().unwrap().to_owned())
            .collect()
    };
    (names(TcAttachType::Ingress), names(TcAttachType::Egress))
}

/// As [`tcx`], whichever way they were attached.
fn attached(by: AttachBy, interface: &str) -> (Vec<String>, Vec<String>) {
    if by == AttachBy::Best && has_tcx() {
        return tcx(interface);
    }
    let names = |direction| filters(interface, direction).into_keys().collect();
    (names("ingress"), names("egress"))
}

fn has_tcx() -> bool {
    let has = Abilities::of_this_kernel().unwrap().tcx;
    if !has {
        eprintln!("SKIPPED what only tcx shows: this kernel has none");
    }
    has
}

/// Of a pod and an uplink, by the indices of their interfaces.
fn attachments(pod: u32, uplink: u32) -> BTreeSet<Attachment> {
    [(Hook::FromPod, pod), (Hook::ToPod, pod), (Hook::FromWire, uplink)]
        .map(|(hook, index)| Attachment {
            hook,
            target: index.into(),
        })
        .into()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn cgroup_links(kernel: &Kernel) -> Vec<Hook> {
    kernel
        .attachments()
        .unwrap()
        .into_iter()
        .map(|attachment| attachment.hook)
        .filter(|hook| ![Hook::FromPod, Hook::ToPod, Hook::FromWire].contains(hook))
        .collect()
}

#[test]
fn tcx_is_found_where_it_is() {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|number| number.parse::<u32>());
    let version = (numbers.next().unwrap().unwrap(), numbers.next().unwrap().unwrap());
    assert_eq!(has_tcx(), version >= (6, 6), "{release}");
}

#[test]
fn pods_and_uplinks_by_tcx() {
    if !has_tcx() {
        return;
    }
    in_bed(|bed| {
        let (pod, uplink) = (bed.veth("pod"), bed.veth("uplink"));
        let mut kernel = bed.kernel();
        for _ in 0..2 {
            kernel.attach_pod(pod).unwrap();
            kernel.attach_uplink(uplink).unwrap();
            assert_eq!(tcx("pod"), (names(&["from_pod"]), names(&["to_pod"])));
            assert_eq!(tcx("uplink"), (names(&["from_wire"]), vec![]));
        }
        assert_eq!(kernel.attachments().unwrap(), attachments(pod, uplink));
        kernel.detach_pod(pod).unwrap();
        kernel.detach_uplink(uplink).unwrap();
        kernel.detach_uplink(uplink).unwrap();
        assert_eq!((tcx("pod"), tcx("uplink")), ((vec![], vec![]), (vec![], vec![])));
        assert_eq!(bed.links(), Vec::<String>::new());
    });
}

#[test]
fn pods_and_uplinks_by_clsact() {
    in_bed(|bed| {
        let (pod, uplink) = (bed.veth("pod"), bed.veth("uplink"));
        let mut kernel = bed.kernel_by(AttachBy::Clsact);
        for _ in 0..2 {
            kernel.attach_pod(pod).unwrap();
            kernel.attach_uplink(uplink).unwrap();
            assert_eq!(all_filters(), expected_filters());
        }
        let before = filters("pod", "ingress");
        drop(kernel);
        assert_eq!(filters("pod", "ingress"), before, "filters stay without an agent");

        // A new agent knows its own by their handles, and replaces them in place.
        let mut kernel = bed.kernel_by(AttachBy::Clsact);
        assert_eq!(kernel.attachments().unwrap().len(), 3);
        assert_ne!(filters("pod", "ingress"), before);
        kernel.attach_pod(pod).unwrap();
        assert_eq!(all_filters(), expected_filters());
        kernel.detach_pod(pod).unwrap();
        kernel.detach_uplink(uplink).unwrap();
        assert_eq!(all_filters(), BTreeMap::new());
    });
}

fn all_filters() -> BTreeMap<String, Vec<String>> {
    [
        ("pod", "ingress"),
        ("pod", "egress"),
        ("uplink", "ingress"),
        ("uplink", "egress"),
    ]
    .iter()
    .map(|(interface, direction)| {
        (
            format!("{interface} {direction}"),
            filters(interface, direction).into_keys().collect::<Vec<_>>(),
        )
    })
    .filter(|(_, names)| !names.is_empty())
    .collect()
}

fn expected_filters() -> BTreeMap<String, Vec<String>> {
    [
        ("pod ingress", "from_pod"),
        ("pod egress", "to_pod"),
        ("uplink ingress", "from_wire"),
    ]
    .iter()
    .map(|(place, name)| ((*place).to_owned(), names(&[name])))
    .collect()
}

#[test]
fn the_filters_of_others_stay() {
    in_bed(|bed| {
        let pod = bed.veth("pod");
        kernel_bed::run("tc", &["qdisc", "add", "dev", "pod", "clsact"]);
        // At the very priority that ours have.
        let theirs = "filter add dev pod ingress protocol all prio 7 handle 1 bpf bytecode CODE flowid 1:1";
        let theirs: Vec<&str> = theirs
            .split(' ')
            .map(|word| if word == "CODE" { "1,6 0 0 1" } else { word })
            .collect();
        kernel_bed::run("tc", &theirs);
        let shown = || kernel_bed::run("tc", &["filter", "show", "dev", "pod", "ingress"]);
        let before = shown();
        let mut kernel = bed.kernel_by(AttachBy::Clsact);
        kernel.attach_pod(pod).unwrap();
        kernel.detach_pod(pod).unwrap();
        assert_eq!(shown(), before);
    });
}

#[test]
fn the_other_way_of_attaching_takes_the_place_of_the_first() {
    if !has_tcx() {
        return;
    }
    in_bed(|bed| {
        let pod = bed.veth("pod");
        let mut kernel = bed.kernel();
        kernel.attach_pod(pod).unwrap();
        drop(kernel);

        let mut kernel = bed.kernel_by(AttachBy::Clsact);
        assert_eq!(
            tcx("pod"),
            (names(&["from_pod"]), names(&["to_pod"])),
            "until it is attached anew"
        );
        kernel.attach_pod(pod).unwrap();
        assert_eq!(tcx("pod"), (vec![], vec![]));
        assert_eq!(
            filters("pod", "ingress").len() + filters("pod", "egress").len(),
            2
        );
        assert_eq!(kernel.attachments().unwrap().len(), 2);
        drop(kernel);

        let mut kernel = bed.kernel();
        kernel.attach_pod(pod).unwrap();
        assert_eq!(tcx("pod"), (names(&["from_pod"]), names(&["to_pod"])));
        assert_eq!(
            filters("pod", "ingress").len() + filters("pod", "egress").len(),
            0
        );
        assert_eq!(kernel.attachments().unwrap().len(), 2);
    });
}

#[test]
fn a_cgroup_gets_every_socket_hook_and_keeps_it_over_a_restart() {
    in_bed(|bed| {
        let mut kernel = bed.kernel();
        kernel.attach_cgroup(&bed.cgroup).unwrap();
        let hooks: Vec<Hook> = Hook::ALL
            .iter()
            .copied()
            .filter(|hook| hook.program().ends_with(['4', '6']))
            .collect();
        assert_eq!(hooks.len(), 8);
        assert_eq!(cgroup_links(&kernel), hooks);
        let programs =
            |bed: &Bed| -> Vec<u32> { bed.links().iter().map(|link| linked_program(bed, link)).collect() };
        let before = programs(bed);
        kernel.attach_cgroup(&bed.cgroup).unwrap();
        assert_eq!(programs(bed), before);
        drop(kernel);

        let mut kernel = bed.kernel();
        let after = programs(bed);
        assert!(
            before.iter().all(|program| !after.contains(program)),
            "{before:?} {after:?}"
        );
        kernel
            .retain_links(&Wanted {
                cgroups: [bed.cgroup.clone()].into(),
                ..Wanted::default()
            })
            .unwrap();
        assert_eq!(cgroup_links(&kernel), hooks);
        kernel.retain_links(&Wanted::default()).unwrap();
        assert_eq!(bed.links(), Vec::<String>::new());
    });
}

#[test]
fn only_what_is_wanted_is_retained() {
    for attach_by in [AttachBy::Best, AttachBy::Clsact] {
        in_bed(|bed| {
            let (one, two, uplink) = (bed.veth("one"), bed.veth("two"), bed.veth("uplink"));
            let mut kernel = bed.kernel_by(attach_by);
            kernel.attach_pod(one).unwrap();
            kernel.attach_pod(two).unwrap();
            kernel.attach_uplink(uplink).unwrap();
            kernel.attach_cgroup(&bed.cgroup).unwrap();
            let wanted = Wanted {
                pods: [two].into(),
                uplinks: [uplink].into(),
                ..Wanted::default()
            };
            kernel.retain_links(&wanted).unwrap();
            assert_eq!(kernel.attachments().unwrap(), attachments(two, uplink));
            assert_eq!(attached(attach_by, "one"), (vec![], vec![]));
        });
    }
}

#[test]
fn an_interface_that_is_gone_hinders_nothing() {
    for attach_by in [AttachBy::Best, AttachBy::Clsact] {
        in_bed(|bed| {
            let (gone, stays) = (bed.veth("gone"), bed.veth("stays"));
            let mut kernel = bed.kernel_by(attach_by);
            kernel.attach_pod(gone).unwrap();
            kernel.attach_pod(stays).unwrap();
            ip(&["link", "del", "gone"]);
            drop(kernel);
            let mut kernel = bed.kernel_by(attach_by);
            kernel.attach_pod(stays).unwrap();
            // Its index comes back with another interface.
            ip(&[
                "link",
                "add",
                "again",
                "index",
                &gone.to_string(),
                "type",
                "veth",
                "peer",
                "name",
                "again-peer",
            ]);
            kernel.attach_pod(gone).unwrap();
            assert_eq!(attached(attach_by, "again").0, names(&["from_pod"]));
            ip(&["link", "del", "again"]);
            kernel.detach_pod(gone).unwrap();
            kernel
                .retain_links(&Wanted {
                    pods: [stays].into(),
                    ..Wanted::default()
                })
                .unwrap();
            assert_eq!(kernel.attachments().unwrap().len(), 2);
            let error = format!("{:#}", kernel.attach_pod(gone).unwrap_err());
            assert!(error.contains(&gone.to_string()), "{error}");
        });
    }
}

#[test]
fn a_cgroup_that_is_gone_hinders_nothing() {
    in_bed(|bed| {
        let below = bed.cgroup.join("below");
        fs::create_dir(&below).unwrap();
        let mut kernel = bed.kernel();
        kernel.attach_cgroup(&below).unwrap();
        drop(kernel);
        fs::remove_dir(&below).unwrap();
        let mut kernel = bed.kernel();
        assert_eq!(kernel.attachments().unwrap().len(), 8);
        kernel.retain_links(&Wanted::default()).unwrap();
        assert_eq!(bed.links(), Vec::<String>::new());
        let error = format!("{:#}", kernel.attach_cgroup(&below).unwrap_err());
        assert!(
            error.starts_with(&format!("opening cgroup {}", below.display())),
            "{error}"
        );
    });
}
