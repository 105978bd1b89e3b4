//! VXLAN: what is below it, and filters of the codec alone.

use anyhow::{Context, Result, ensure};
use offload_tc::ack::Ack;
use offload_tc::action::{MirredMode, TunnelSet};
use offload_tc::message::{Add, add_filter, kind, messages};
use offload_tc::transport::Transport;
use offload_tc::wire::Writer;
use offload_tc::{ActionSpec, FilterAt, Flower, FlowerKey, Hook, Kernel, TcAction};
use std::time::Duration;

use crate::net::{filters, index, ping, sh};
use crate::switch::{Switch, ip};

/// Adds one filter as the codec writes it.
fn add(link: &mut Kernel, at: &FilterAt, f: &Flower) -> Result<()> {
    let mut w = Writer::new();
    add_filter(&mut w, 1, at, f, Add::New);
    link.send(w.bytes())?;
    let mut buf = Vec::new();
    ensure!(link.receive(&mut buf, Duration::from_secs(5))?, "no answer");
    let m = messages(&buf).next().context("no message")??;
    ensure!(m.kind == kind::ERROR, "type {}", m.kind);
    let ack = Ack::read(m.flags, m.body)?;
    ensure!(ack.errno == 0, "{} {} {}", ack.errno, ack.text, ack.attribute(w.bytes()));
    Ok(())
}

/// A stock VXLAN device in b, and one for everybody, `vx0`, here.
pub fn underlay() -> Result<()> {
    sh("ip addr add 10.9.0.1/24 dev vb")?;
    sh("ip -n b addr add 10.9.0.2/24 dev eb")?;
    sh("ip link add vx0 type vxlan external dstport 4789")?;
    sh("ip link set vx0 up")?;
    sh("ip -n b link add vxb type vxlan id 42 remote 10.9.0.1 local 10.9.0.2 dstport 4789 dev eb")?;
    sh("ip -n b link set vxb address 02:00:00:00:00:22 up")?;
    sh("ip -n b addr add 10.0.0.22/32 dev vxb")?;
    sh("ip -n b route add 10.0.0.1/32 dev vxb")?;
    sh("ip -n b neigh replace 10.0.0.1 lladdr 02:00:00:00:00:01 dev vxb")?;
    sh("ip -n a neigh replace 10.0.0.22 lladdr 02:00:00:00:00:22 dev ea")?;
    // What arrives for this host has to get past its filters for everybody: ARP of 10.9.0.0/24 is the host's own.
    sh("ip neigh replace 10.9.0.2 lladdr 02:00:00:00:00:02 dev vb")?;
    let mac = std::fs::read_to_string("/sys/class/net/vb/address")?;
    sh(&format!("ip -n b neigh replace 10.9.0.1 lladdr {} dev eb", mac.trim()))?;
    Ok(())
}

/// Takes them away.
pub fn underlay_off() -> Result<()> {
    sh("ip link del vx0")?;
    sh("ip -n b link del vxb")?;
    sh("ip addr del 10.9.0.1/24 dev vb")?;
    sh("ip -n b addr del 10.9.0.2/24 dev eb")?;
    Ok(())
}

/// Packets of a go into a VXLAN to b, where a stock VXLAN device takes them; and what comes back is taken out by a filter.
///
/// ```text
///   a 10.0.0.1 ── va ─ tunnel_key set ─► vx0 ─ UDP 4789 ─ vb 10.9.0.1 ══ eb 10.9.0.2 ─ vxb 10.0.0.22
/// ```
pub fn both_ways(_: &mut Switch) -> Result<String> {
    underlay()?;
    sh("tc qdisc add dev vx0 clsact")?;
    let mut link = Kernel::open()?;
    let at = |hook| FilterAt { hook, chain: 0, prio: 100, protocol: 0x0800, handle: 1 };
    let tunnel = |src: &str, dst: &str| TunnelSet {
        src: src.parse().ok(),
        dst: dst.parse().unwrap_or([0, 0, 0, 0].into()),
        id: Some(42),
        dst_port: 4789,
        tos: None,
        ttl: Some(64),
        no_csum: false,
        no_frag: false,
        opts: Vec::new(),
    };
    let mut there = Flower::default();
    there.set(FlowerKey::EthType, 0x0800);
    there.set(FlowerKey::Ip4Dst, ip("10.0.0.22"));
    there.actions = vec![
        TcAction::pipe(ActionSpec::TunnelSet(Box::new(tunnel("10.9.0.1", "10.9.0.2")))),
        TcAction::mirred(MirredMode::EgressRedirect, index("vx0")?),
    ];
    add(&mut link, &at(Hook::Ingress(index("va")?)), &there)?;
    let mut back = Flower::default();
    back.set(FlowerKey::EthType, 0x0800);
    back.set(FlowerKey::EncKeyId, 42);
    back.set(FlowerKey::EncIp4Src, ip("10.9.0.2"));
    back.set(FlowerKey::EncUdpDst, 4789);
    back.actions = vec![
        TcAction::pipe(ActionSpec::TunnelUnset),
        TcAction::mirred(MirredMode::EgressRedirect, index("va")?),
    ];
    add(&mut link, &at(Hook::Ingress(index("vx0")?)), &back)?;
    let got = ping("a", "10.0.0.22", 5, 20)?;
    ensure!(got == 5, "{got} of 5 answered: {:?}", filters("vx0")?);
    let told = filters("vx0")?;
    let keys = &told[0]["options"]["keys"];
    ensure!(keys["enc_key_id"] == 42 || keys["enc_key_id"] == "42", "{keys}");
    ensure!(told[0]["options"]["actions"][1]["stats"]["packets"] == 5, "{told:?}");
    sh("tc filter del dev va ingress protocol ip prio 100")?;
    underlay_off()?;
    Ok(String::new())
}
