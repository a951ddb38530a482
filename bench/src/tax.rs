//! What the dataplane adds to a bare veth pair: nanoseconds a packet and a round trip, microseconds a connection.
//!
//! Client and server share one CPU in real time, so a rate is the inverse of all the CPU time that the path costs. All
//! paths stay up together and are measured in turn, once a round; what counts is the difference to the bare pair of the
//! same round. A second bare pair says how far differences can be trusted.

mod findings;
mod floor_node;
mod idle;
mod load_manifests;
mod path;
mod rounds;
mod weir_node;

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use weir_testbed::measure::Serve;
use weir_testbed::topology::{Direct, direct, tune_for_measuring};
use weir_testbed::{Place, Process, Testbed};

use crate::arguments::Options;
use crate::figure::{Figure, Goal, Unit};
use crate::floor;
use crate::load::Load;
use crate::report::{Report, progress};
use floor_node::FloorNode;
use path::{Goals, Path};
use rounds::Setting;
use weir_node::WeirNode;

pub fn run(testbed: &Testbed, options: &Options, report: &mut Report) -> Result<()> {
    let setting = Setting {
        rounds: options.rounds(),
        seconds: options.seconds(),
        cpu: options.cpu(),
    };
    let field = Field::new(testbed, &options.load(), setting.cpu)?;
    let samples = rounds::measure(&field.paths, &setting)?;
    for ((path, _), samples) in &samples {
        for (round, sample) in samples.iter().enumerate() {
            report.keep("tax", &(path, round, sample))?;
        }
    }
    let mut figures = findings::figures(&field.paths, &samples)?;
    figures.extend(field.records()?);
    report.add(
        "what a path adds to a bare veth pair",
        &findings::table(&field.paths, &samples)?,
        figures,
    )
}

/// Everything that is measured, up and running.
#[derive(Debug)]
struct Field {
    paths: Vec<Path>,
    weir: WeirNode,
    // Held for as long as the paths are used.
    _weir_of_one: WeirNode,
    _floors: [FloorNode; 2],
    _servers: Vec<Process>,
}

impl Field {
    fn new(testbed: &Testbed, load: &Load, cpu: usize) -> Result<Field> {
        progress("tax: bare veth pairs, the smallest programs");
        let pairs = [direct(testbed, "direct")?, direct(testbed, "direct2")?];
        let floors = [
            FloorNode::new(testbed, "floor", floor::PEER4)?,
            FloorNode::new(testbed, "floor6", floor::PEER6)?,
        ];
        let mut weir = WeirNode::start(testbed, "weir", load)?;
        let mut weir_of_one = WeirNode::start(
            testbed,
            "weir1",
            &Load {
                services: 0,
                backends: 0,
                ..*load
            },
        )?;
        for (name, node) in [("weir", &mut weir), ("weir1", &mut weir_of_one)] {
            node.settle(name)?;
        }
        let paths = paths(&pairs, &floors, &weir, &weir_of_one);
        let servers = [
            &pairs[0].server,
            &pairs[1].server,
            &floors[0].server,
            &floors[1].server,
        ];
        let mut running = Vec::new();
        for server in servers.into_iter().chain([&weir.server, &weir_of_one.server]) {
            tune_for_measuring(server)?;
            running.push(server.measuring_server(&Serve {
                port: path::PORT,
                cpu: Some(cpu),
            })?);
        }
        for path in &paths {
            tune_for_measuring(&path.client)?;
            path.wait_until_it_works(cpu)?;
        }
        for node in [&weir, &weir_of_one] {
            node.ensure_policy_holds(cpu)?;
        }
        Ok(Field {
            paths,
            weir,
            _weir_of_one: weir_of_one,
            _floors: floors,
            _servers: running,
        })
    }

    /// What the flow log of the loaded node made of it all: a log that loses its records costs little.
    fn records(&self) -> Result<[Figure; 2]> {
        let logged = self.weir.logged()?;
        ensure!(logged.connections > 0.0, "no connection met the policy");
        let missing = logged.connections - logged.written;
        Ok([
            Figure::new(
                "tax.connections_logged",
                logged.written,
                Unit::Records,
                Goal::None,
            ),
            Figure::new(
                "tax.connections_not_logged",
                missing,
                Unit::Records,
                Goal::AtMost(0.0),
            ),
        ])
    }
}

fn paths(pairs: &[Direct; 2], floors: &[FloorNode; 2], weir: &WeirNode, weir_of_one: &WeirNode) -> Vec<Path> {
    let [direct4, direct6] = Direct::SERVER;
    let [server4, server6] = weir_node::SERVER;
    let path = |name, base, client: &Place, to: IpAddr, goals| Path {
        name,
        base,
        client: client.clone(),
        to,
        goals,
    };
    let (v4, v6) = (path::BASE4, path::BASE6);
    vec![
        path(v4, v4, &pairs[0].client, direct4, Goals::NONE),
        path("direct2", v4, &pairs[1].client, direct4, Goals::SAME),
        path("floor", v4, &floors[0].client, floor_node::SERVER[0], Goals::NONE),
        path("weir", v4, &weir.client, server4, Goals::POD),
        path("weir-1", v4, &weir_of_one.client, server4, Goals::NONE),
        path(
            "weir-service",
            v4,
            &weir.client,
            weir_node::SERVICE,
            Goals::SERVICE,
        ),
        path(
            "weir-1-service",
            v4,
            &weir_of_one.client,
            weir_node::SERVICE,
            Goals::NONE,
        ),
        path(v6, v6, &pairs[0].client, direct6, Goals::NONE),
        path(
            "floor-v6",
            v6,
            &floors[1].client,
            floor_node::SERVER[1],
            Goals::NONE,
        ),
        path("weir-v6", v6, &weir.client, server6, Goals::POD_V6),
    ]
}

/// Index of an interface of a place.
fn ifindex(place: &Place, interface: &str) -> Result<u32> {
    place
        .run(|| nix::net::if_::if_nametoindex(interface))?
        .with_context(|| format!("{}: interface {interface}", place.netns()))
}
