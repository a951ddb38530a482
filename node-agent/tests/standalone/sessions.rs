//! Connections that are long, idle, half closed, or made again.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use weir_testbed::Place;
use weir_testbed::traffic::{HalfClose, HalfCloseReport, Outcome};

use crate::address::End;
use crate::node::{LATE, Node, PORT, SERVICE_PORT};
use crate::policy::{allow_ingress, deny_all, network_policy};
use crate::probe::{expect, tcp};

const TIMEOUT: Duration = Duration::from_secs(8);

/// A client may open connections to a server, and neither may do anything else.
struct Bed {
    node: Node,
    client: End,
    server: End,
}

impl Bed {
    fn new(test: &str) -> Result<Bed> {
        let node = Node::start(test)?;
        let (client, server) = (node.pod("client", 1)?, node.pod("server", 2)?);
        for app in ["client", "server"] {
            network_policy(&node.manifests, &format!("{app}-closed"), &deny_all(app))?;
        }
        network_policy(&node.manifests, "in", &allow_ingress("server", "client"))?;
        network_policy(
            &node.manifests,
            "out",
            &crate::policy::allow_egress("client", "server"),
        )?;
        expect(&[
            tcp(&client, &server, PORT).answered(),
            tcp(&server, &client, PORT).silent(),
        ])?;
        Ok(Bed { node, client, server })
    }
}

#[test]
fn a_connection_closed_in_one_direction_goes_on_in_the_other() -> Result<()> {
    let Bed { node, client, server } = Bed::new("sessions-half")?;
    let service = node.service("service", 10, &[])?;
    node.endpoints("service", LATE, &[&server])?;
    expect(&[(tcp(&client, &service, SERVICE_PORT), Outcome::TimedOut)])?;
    for to in [server.address.at(LATE), service.at(SERVICE_PORT)].concat() {
        let request = HalfClose::to(to);
        let by_packet = client.place.run(|| weir_testbed::traffic::half_close(&request))?;
        for report in [client.place.half_close(&request)?, by_packet] {
            let expected = HalfCloseReport {
                outcome: Outcome::Answered,
                sent: 100_000,
                received: 100_000,
                millis: report.millis,
            };
            assert_eq!(report, expected, "{to}");
        }
    }
    node.end()
}

/// Longer than the agent's round of removing idle flows.
#[test]
fn an_idle_connection_stays() -> Result<()> {
    let Bed { node, client, server } = Bed::new("sessions-idle")?;
    let service = node.service("service", 10, &[&server])?;
    expect(&[tcp(&client, &service, SERVICE_PORT).answered()])?;
    let mut streams = Vec::new();
    let mut sockets = Vec::new();
    for to in [server.address.at(PORT), service.at(SERVICE_PORT)].concat() {
        let mut stream = client.place.run(|| connect(None, to))??;
        exchange(&mut stream, "before")?;
        streams.push(stream);
        let socket = client.place.run(|| udp_to(to))??;
        datagram(&socket, "before")?;
        sockets.push(socket);
    }
    sleep(Duration::from_secs(7));
    for stream in &mut streams {
        exchange(stream, "after")?;
    }
    for socket in &sockets {
        datagram(socket, "after")?;
    }
    node.end()
}

/// The same addresses and ports, again and again: after a reset, after a close from both ends, and after a client
/// that vanished without a word.
#[test]
fn a_source_port_is_used_again() -> Result<()> {
    let Bed { node, client, server } = Bed::new("sessions-reuse")?;
    let service = node.service("service", 10, &[&server])?;
    expect(&[tcp(&client, &service, SERVICE_PORT).answered()])?;
    for (port, to) in (45_000..).zip([server.address.at(PORT), service.at(SERVICE_PORT)].concat()) {
        let index = usize::from(to.is_ipv6());
        let from = Some(SocketAddr::new(client.address.ips[index], port));
        let again = || -> Result<TcpStream> {
            let mut stream = client.place.run(|| connect(from, to))??;
            exchange(&mut stream, "again")?;
            Ok(stream)
        };
        for _ in 0..3 {
            close_by_reset(again()?)?;
        }
        for _ in 0..3 {
            close_by_the_other_end(again()?)?;
        }
        let stream = again()?;
        vanish(&client.place, to, stream)?;
        // The server has the old connection still, and is to be told otherwise first.
        close_by_reset(again()?)?;
    }
    node.end()
}

/// From a port that another connection of the same ends had before.
fn connect(from: Option<SocketAddr>, to: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if let Some(from) = from {
        socket
            .bind(&from.into())
            .with_context(|| format!("bind to {from}"))?;
    }
    socket
        .connect_timeout(&to.into(), TIMEOUT)
        .with_context(|| format!("connect to {to}"))?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte).context("the greeting")?;
    }
    Ok(stream)
}

fn exchange(stream: &mut TcpStream, text: &str) -> Result<()> {
    stream.write_all(text.as_bytes())?;
    let mut echoed = vec![0; text.len()];
    stream
        .read_exact(&mut echoed)
        .with_context(|| format!("the echo of {text:?} from {:?}", stream.peer_addr()))?;
    ensure!(echoed == text.as_bytes(), "{text:?} came back as {echoed:?}");
    Ok(())
}

fn udp_to(to: SocketAddr) -> Result<UdpSocket> {
    let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse()?;
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    Ok(socket)
}

fn datagram(socket: &UdpSocket, text: &str) -> Result<()> {
    socket.send(text.as_bytes())?;
    let mut answer = [0; 1024];
    let length = socket
        .recv(&mut answer)
        .with_context(|| format!("the echo of {text:?}"))?;
    ensure!(
        answer[..length].ends_with(text.as_bytes()),
        "{text:?} did not come back"
    );
    Ok(())
}

fn close_by_reset(stream: TcpStream) -> Result<()> {
    Ok(Socket::from(stream).set_linger(Some(Duration::ZERO))?)
}

/// Closed from both ends, and no memory of it here: a closed connection's end that is told to wait for none.
fn close_by_the_other_end(mut stream: TcpStream) -> Result<()> {
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).context("the other end's close")?;
    ensure!(rest.is_empty());
    // TIME_WAIT is left after a second where timestamps tell the connections apart (tcp_tw_reuse, ip-sysctl).
    drop(stream);
    sleep(Duration::from_millis(1100));
    Ok(())
}

/// What the client's kernel has to say about the close goes nowhere.
fn vanish(client: &Place, to: SocketAddr, stream: TcpStream) -> Result<()> {
    let hole = format!("{}/{}", to.ip(), if to.is_ipv4() { 32 } else { 128 });
    client.ip(&format!("route add blackhole {hole}"))?;
    let start = Instant::now();
    close_by_reset(stream)?;
    client.ip(&format!("route del blackhole {hole}"))?;
    ensure!(start.elapsed() < TIMEOUT);
    Ok(())
}
