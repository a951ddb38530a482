//! The node's part of the network: uplinks, their MTU, as whom pods speak to the outside, routes to other nodes' pods.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use nix::net::if_::if_nametoindex;
use tracing::warn;
use weir_api::dataplane_config::NetworkMode;
use weir_api::node_dataplane::RefusedSetting;

use super::Found;
use crate::address_book::{AddressBook, NodeEntry};
use crate::network::{NetworkSettings, PortRange};
use crate::node::{addresses, masquerading};
use crate::node_settings::Network;
use crate::routes::vxlan::{self, VxlanSettings};
use crate::routes::{self, NodeNetwork, UnroutedReason};
use crate::uplinks::{smallest_mtu, uplinks};

/// In bytes, where no uplink is known.
pub(super) const DEFAULT_MTU: u32 = 1500;

/// Those that the settings name, as far as they are there; or those that are found.
pub(super) fn uplinks_of(
    network: &Network,
    node_addresses: &[IpAddr],
) -> Result<(BTreeSet<String>, Option<RefusedSetting>)> {
    if network.uplinks.is_empty() {
        return Ok((uplinks(node_addresses)?, None));
    }
    let (there, missing): (BTreeSet<String>, BTreeSet<String>) = network
        .uplinks
        .iter()
        .cloned()
        .partition(|name| if_nametoindex(name.as_str()).is_ok());
    let missing: Vec<String> = missing.into_iter().collect();
    let refused = (!missing.is_empty()).then(|| RefusedSetting {
        field: "spec.network.uplinks".to_owned(),
        message: format!("the node has no interface {}", missing.join(", ")),
    });
    Ok((there, refused))
}

/// This node as others know it by the book, or by its own object where the book does not have it yet.
pub(super) fn own_network(
    node: &str,
    node_addresses: &[IpAddr],
    pod_cidrs: &[IpNet],
    book: &AddressBook,
) -> NodeNetwork {
    let entry = book.nodes.get(node).cloned().unwrap_or_else(|| NodeEntry {
        addresses: node_addresses.to_vec(),
        pod_cidrs: Vec::new(),
    });
    NodeNetwork {
        addresses: entry.addresses.into_iter().collect(),
        pod_cidrs: entry
            .pod_cidrs
            .into_iter()
            .chain(pod_cidrs.iter().copied())
            .collect(),
    }
}

/// Of pods' interfaces.
pub(super) async fn pod_mtu(network: &Network, node_addresses: &[IpAddr], own: &NodeNetwork) -> u32 {
    if let Some(mtu) = network.mtu {
        return mtu;
    }
    let found = async {
        let (uplinks, _) = uplinks_of(network, node_addresses)?;
        smallest_mtu(&uplinks).await
    };
    let mtu = match found.await {
        Ok(mtu) => mtu.unwrap_or(DEFAULT_MTU),
        Err(error) => {
            warn!(error = format!("{error:#}"), "cannot find the MTU of the uplinks");
            DEFAULT_MTU
        }
    };
    match (network.mode, own.addresses.first()) {
        (NetworkMode::Vxlan, Some(end)) => mtu.saturating_sub(vxlan::overhead(*end)),
        (NetworkMode::Vxlan | NetworkMode::Native, _) => mtu,
    }
}

/// Pods speak to the outside by the addresses by which the cluster knows the node, where its uplinks have them.
pub(super) fn network_settings(
    network: &Network,
    uplinks: &BTreeSet<String>,
    node_addresses: &[IpAddr],
    book: &AddressBook,
) -> Result<NetworkSettings> {
    if !network.masquerade || uplinks.is_empty() {
        return Ok(NetworkSettings::default());
    }
    let there = addresses(|name| uplinks.contains(name))?;
    let known: BTreeSet<IpAddr> = node_addresses
        .iter()
        .copied()
        .filter(|address| there.contains(address))
        .collect();
    let pod_cidrs = book.nodes.values().flat_map(|node| &node.pod_cidrs);
    let cidrs = network.non_masquerade_cidrs.iter().chain(pod_cidrs);
    let mut masquerade = masquerading(&known, PortRange::default(), cidrs.copied().collect());
    let any = masquerading(&there, PortRange::default(), BTreeSet::new());
    masquerade.v4 = masquerade.v4.or(any.v4);
    masquerade.v6 = masquerade.v6.or(any.v6);
    Ok(NetworkSettings {
        masquerade: Some(masquerade),
    })
}

/// The ways to other nodes' pods, as they were last made.
#[derive(Debug, Default)]
pub(super) struct Ways {
    made: Option<Inputs>,
    found: Found,
}

#[derive(Debug, Clone, PartialEq)]
struct Inputs {
    network: Network,
    own: NodeNetwork,
    uplinks: BTreeSet<String>,
    nodes: BTreeMap<String, NodeEntry>,
}

impl Ways {
    /// Makes routes, or a tunnel, to the pods of other nodes, as the settings want them; with `mend`, also where
    /// nothing has changed. Policy does not wait for them: what goes wrong is told.
    pub(super) async fn make(
        &mut self,
        network: &Network,
        node: &str,
        own: &NodeNetwork,
        uplinks: &BTreeSet<String>,
        book: &AddressBook,
        mend: bool,
    ) -> &Found {
        let inputs = Inputs {
            network: network.clone(),
            own: own.clone(),
            uplinks: uplinks.clone(),
            nodes: book.nodes.clone(),
        };
        if !mend && self.made.as_ref() == Some(&inputs) {
            return &self.found;
        }
        self.found = Found::default();
        let result = match network.mode {
            NetworkMode::Native => route(&inputs, node, &mut self.found).await,
            NetworkMode::Vxlan => tunnel(&inputs, node, &mut self.found).await,
        };
        self.made = result.is_ok().then_some(inputs);
        if let Err(error) = result {
            let field = match network.mode {
                NetworkMode::Native => "spec.network.nativeRoutes",
                NetworkMode::Vxlan => "spec.network.mode",
            };
            self.found.refused.push(RefusedSetting {
                field: field.to_owned(),
                message: format!("{error:#}"),
            });
        }
        &self.found
    }
}

/// Where programs belong beside the uplinks.
pub(super) fn tunnel_interface(network: &Network) -> Option<String> {
    let is_there = network.mode == NetworkMode::Vxlan && if_nametoindex(vxlan::INTERFACE).is_ok();
    is_there.then(|| vxlan::INTERFACE.to_owned())
}

async fn route(inputs: &Inputs, node: &str, found: &mut Found) -> Result<()> {
    let nodes = if inputs.network.native_routes {
        others(inputs, node)
    } else {
        BTreeMap::new()
    };
    let routed = routes::reconcile(&inputs.own, &nodes)
        .await
        .context("routing to other nodes' pods")?;
    // After the routes, so that no packet finds no way.
    routes::remove_vxlan().await.context("removing the tunnel")?;
    for unrouted in &routed.unrouted {
        // Where nodes are no neighbours, the network between them may know the way.
        let is_wrong = unrouted.reason != UnroutedReason::NotOnLink;
        tell(found, &unrouted.to_string(), is_wrong);
    }
    Ok(())
}

async fn tunnel(inputs: &Inputs, node: &str, found: &mut Found) -> Result<()> {
    let mtu = smallest_mtu(&inputs.uplinks).await?.unwrap_or(DEFAULT_MTU);
    let others = others(inputs, node);
    let wanted = vxlan::wanted(node, &inputs.own, &others, VxlanSettings::default(), mtu)
        .context("the node has no address yet that a tunnel could begin at")?;
    for unreached in &wanted.unreached {
        tell(found, &unreached.to_string(), true);
    }
    routes::reconcile_vxlan(&wanted)
        .await
        .context("making the tunnel to other nodes")?;
    Ok(())
}

fn others(inputs: &Inputs, node: &str) -> BTreeMap<String, NodeNetwork> {
    let others = inputs.nodes.iter().filter(|(name, _)| *name != node);
    others
        .map(|(name, entry)| {
            let network = NodeNetwork {
                addresses: entry.addresses.iter().copied().collect(),
                pod_cidrs: entry.pod_cidrs.iter().copied().collect(),
            };
            (name.clone(), network)
        })
        .collect()
}

fn tell(found: &mut Found, text: &str, is_wrong: bool) {
    if is_wrong {
        found.sentences.push(text.to_owned());
    }
    found.problems.add("Node", "Unrouted", text, is_wrong);
}
