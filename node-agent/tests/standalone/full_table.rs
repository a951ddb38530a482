//! A flow table without room: nothing that works stops working, and nothing opens.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use socket2::Socket;

use weir_abi::limits::idle_seconds;

use crate::address::{Address, End};
use crate::node::{Node, OTHER_PORT, PORT, SERVICE_PORT};
use crate::policy::{deny_all, network_policy, pods};
use crate::probe::{echo, expect, tcp, udp};
use crate::wait::until;

/// Entries of each of the two tables.
const ENTRIES: usize = 64;
/// The labels of their metrics, in the order in which [`Address::at`] gives the families.
const TABLES: [&str; 2] = ["map=\"flows4\"", "map=\"flows6\""];

/// A connection that is held open.
struct Connection(TcpStream);

impl Connection {
    fn open(from: &End, to: SocketAddr) -> Result<Connection> {
        let open = || -> Result<TcpStream> {
            let timeout = Duration::from_secs(10);
            let mut stream = TcpStream::connect_timeout(&to, timeout)?;
            stream.set_read_timeout(Some(timeout))?;
            let mut byte = [0];
            while byte != *b"\n" {
                stream.read_exact(&mut byte)?;
            }
            Ok(stream)
        };
        Ok(Connection(
            from.place
                .run(open)?
                .with_context(|| format!("{} → {to}", from.address.name))?,
        ))
    }

    fn reset(self) -> Result<()> {
        Ok(Socket::from(self.0).set_linger(Some(Duration::ZERO))?)
    }

    fn is_alive(&mut self) -> Result<()> {
        self.0.write_all(b"alive?")?;
        let mut echoed = [0; 6];
        self.0
            .read_exact(&mut echoed)
            .with_context(|| format!("the echo from {:?}", self.0.peer_addr()))?;
        ensure!(echoed == *b"alive?");
        Ok(())
    }
}

/// The client may open TCP and UDP to the server's port; nobody may do anything else, so that answers pass for being
/// answers only.
fn bed(test: &str, entries: &str) -> Result<(Node, End, End, End, Address)> {
    let node = Node::with(test, &["--flows", entries])?;
    let (client, other, server) = (
        node.pod("client", 1)?,
        node.pod("other", 2)?,
        node.pod("server", 3)?,
    );
    let service = node.service("service", 10, &[&server])?;
    for app in ["client", "other", "server"] {
        network_policy(&node.manifests, app, &deny_all(app))?;
    }
    let ports = json!([{ "port": PORT }, { "port": PORT, "protocol": "UDP" }]);
    let ingress = json!([{ "from": [{ "podSelector": pods("client") }], "ports": ports }]);
    let egress = json!([{ "to": [{ "podSelector": pods("server") }], "ports": ports }]);
    network_policy(
        &node.manifests,
        "in",
        &json!({ "podSelector": pods("server"), "ingress": ingress }),
    )?;
    network_policy(
        &node.manifests,
        "out",
        &json!({ "podSelector": pods("client"), "policyTypes": ["Egress"], "egress": egress }),
    )?;
    expect(&[
        tcp(&client, &server, PORT).answered(),
        tcp(&other, &server, PORT).silent(),
    ])?;
    Ok((node, client, other, server, service))
}

/// Holds twice as many connections of each family as there is room for, and some more where an entry of an older
/// connection was removed after that: those that the tables had no room for do not move into its place.
fn fill(node: &Node, client: &End, server: &End) -> Result<Vec<Connection>> {
    let mut held = Vec::new();
    let addresses = server.address.at(PORT);
    for to in addresses {
        for _ in 0..ENTRIES * 2 {
            held.push(Connection::open(client, to)?);
        }
    }
    for (to, table) in addresses.into_iter().zip(TABLES) {
        until("the table is not full", || {
            let entries = node.agent.metric("weir_map_entries", &[table])?;
            if entries >= ENTRIES as f64 {
                return Ok(Ok(()));
            }
            held.push(Connection::open(client, to)?);
            Ok(Err(format!("{table}: {entries} entries")))
        })?;
    }
    Ok(held)
}

#[test]
fn a_full_table_breaks_nothing_and_opens_nothing() -> Result<()> {
    let (node, client, other, server, service) = bed("full", &ENTRIES.to_string())?;
    // Before it is full: with an entry, and through a Service by packet, which cannot do without.
    let mut early = Vec::new();
    for to in [server.address.at(PORT), service.at(SERVICE_PORT)].concat() {
        early.push(Connection::open(&client, to)?);
    }
    let mut held = fill(&node, &client, &server)?;
    for _ in 0..2 {
        for connection in early.iter_mut().chain(&mut held) {
            connection.is_alive()?;
        }
    }
    expect(&[
        tcp(&client, &server, PORT).answered(),
        udp(&client, &server, PORT).answered(),
        // By socket a Service is no more than its backend.
        tcp(&client, &service, SERVICE_PORT).by_socket().answered(),
        udp(&client, &service, SERVICE_PORT).by_socket().answered(),
        tcp(&client, &service, SERVICE_PORT).answered(),
        udp(&client, &service, SERVICE_PORT).answered(),
        // Nothing that is denied, in either direction.
        tcp(&other, &server, PORT).silent(),
        udp(&other, &server, PORT).silent(),
        tcp(&server, &client, PORT).silent(),
        udp(&server, &client, PORT).silent(),
        tcp(&client, &server, OTHER_PORT).silent(),
        udp(&client, &server, OTHER_PORT).silent(),
        tcp(&server, &client, OTHER_PORT).silent(),
        echo(&client, &server).silent(),
        echo(&other, &server).silent(),
        tcp(&other, &node.outside, PORT).silent(),
        udp(&node.outside, &server, PORT).silent(),
    ])?;
    assert_eq!(node.packets("flow-table-full")?, 0);
    strays_do_not_pass(&node, &server, &other)?;

    // Relief.
    held.into_iter().try_for_each(Connection::reset)?;
    for connection in &mut early {
        connection.is_alive()?;
    }
    expect(&[
        tcp(&client, &service, SERVICE_PORT).answered(),
        udp(&client, &service, SERVICE_PORT).answered(),
    ])?;
    // What is opened from here on has an entry again: of its packets no more than the first is judged.
    let mut fresh = Connection::open(&client, server.address.at(PORT)[0])?;
    let established = node.packets("established")?;
    for _ in 0..20 {
        fresh.is_alive()?;
    }
    ensure!(node.packets("established")? >= established + 40);
    node.end()
}

/// The last packets of connections that had no entry find room again and say nothing of being the last: they must not
/// be taken for connections that live.
#[test]
fn the_last_words_of_closed_connections_do_not_fill_the_table() -> Result<()> {
    let (node, client, _, server, _) = bed("full-last-words", &ENTRIES.to_string())?;
    drop(fill(&node, &client, &server)?);
    // The idle time of an opening connection, and a round of removing.
    let limit = Duration::from_secs(u64::from(idle_seconds::TCP_OPENING) * 11 / 10 + 10);
    let start = Instant::now();
    for map in TABLES {
        while node.agent.metric("weir_map_entries", &[map])? > 8.0 {
            ensure!(
                start.elapsed() < limit,
                "{map}: {} entries",
                node.agent.metric("weir_map_entries", &[map])?
            );
            sleep(Duration::from_millis(500));
        }
    }
    node.end()
}

/// Datagrams between ends neither of which may open anything to the other.
fn strays_do_not_pass(node: &Node, server: &End, other: &End) -> Result<()> {
    let (at_other, at_server) = (other.place.arrivals()?, server.place.arrivals()?);
    let isolated = node.packets("isolated")? as f64;
    for (from, to) in [(server, other), (other, server)] {
        for to in to.address.at(PORT) {
            let send = || -> std::io::Result<()> {
                let any: SocketAddr = (if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })
                    .parse()
                    .expect("an address");
                let socket = UdpSocket::bind(any)?;
                (0..20).try_for_each(|_| socket.send_to(b"stray", to).map(drop))
            };
            from.place.run(send)??;
        }
    }
    node.wait_for_metric("weir_packets_total", &["reason=\"isolated\""], |packets| {
        packets >= isolated + 80.0
    })?;
    assert_eq!(
        (other.place.arrivals()?.udp, server.place.arrivals()?.udp),
        (at_other.udp, at_server.udp)
    );
    Ok(())
}
