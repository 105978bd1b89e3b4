//! What is shown, in order: each check goes on where the one before it has left the switch.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::machine::{E1000E, HOT_PLUGGED, ROCKER, VIRTIO, VIRTIO_SPLIT};

use serde_json::Value;

use super::bed::{BRIDGING, Bed, ROUTING, SILENCE, TERMINATION_MAC, VLAN, frame, ipv4};
use super::platform;

type Check = fn(&mut Bed) -> Result<String>;

pub const CHECKS: &[(&str, Check)] = &[
    ("devices are listed with how to bind them, and bound", devices_are_bound),
    (
        "DMA outside what is mapped is stopped by the IOMMU; memory is in huge pages when there are any",
        platform::dma_is_confined,
    ),
    ("vswitchd takes ports of the switch chip from the database", ports_come_up),
    ("its packets are in huge pages", platform::packets_are_in_huge_pages),
    ("what nobody knows is flooded by software, and interrupts say so", unknown_is_flooded),
    ("learned addresses are forwarded by the chip alone", learned_is_forwarded_by_the_chip),
    ("VLANs: access and trunk, in the chip", vlans_in_the_chip),
    ("stations are entries of the bridging table, by VLAN", stations_in_the_chip),
    ("a drop in the chip", drops_in_the_chip),
    ("copies for a group of stations, by a multicast group of the chip", copies_in_the_chip),
    (
        "a route in the chip, with addresses rewritten; one with a TTL in software, with its reason",
        routes_in_the_chip,
    ),
    ("virtio-net in the same bridge, packed and split rings", virtio_in_the_same_bridge),
    ("a rule that does not fit is forwarded by software, with its reason", software_says_why),
    ("a fatal error that PCIe reports is heard, and survived", platform::fatal_errors_are_heard),
    (
        "a device that is unplugged is given back, the others forward; plugged again it forwards",
        platform::unplugged_and_plugged_again,
    ),
    ("killed, and started again without rebooting", killed_and_restarted),
    ("ended, with nothing left in the chip", ended_and_given_back),
];

/// Type of test frames: local experimental (IEEE 802).
pub const TEST: u16 = 0x88b5;
pub const A: u8 = 0x0a;
pub const B: u8 = 0x0b;
/// Frames of a run.
const RUN: u64 = 20;
/// Runs until one is forwarded by the chip from the first frame to the last.
const TRIES: u32 = 4;

fn devices_are_bound(b: &mut Bed) -> Result<String> {
    let all = b.hoist(&["devices"])?;
    let pci = all["pci"].as_array().cloned().unwrap_or_default();
    let find = |a: &str| pci.iter().find(|d| d["address"] == a).with_context(|| format!("no {a} in {all}"));
    for (address, id) in [(ROCKER, "1b36:0006"), (VIRTIO, "1af4:1041"), (E1000E, "8086:10d3")] {
        let d = find(address)?;
        ensure!(d["id"] == id && d["iommu_group"].is_u64(), "{d}");
        ensure!(d["bind"].as_array().is_some_and(|c| c.len() >= 3), "{d}");
    }
    for address in [ROCKER, VIRTIO, HOT_PLUGGED] {
        let said = b.ours("hoist", &["bind", address])?;
        ensure!(said.contains("bound to vfio-pci"), "{said}");
    }
    // By hand, as it is told.
    by_hand(b, VIRTIO_SPLIT, "bind")?;
    let after = b.hoist(&["devices"])?;
    for address in [ROCKER, VIRTIO, VIRTIO_SPLIT, HOT_PLUGGED] {
        let d = after["pci"].as_array().and_then(|p| p.iter().find(|d| d["address"] == address));
        ensure!(d.is_some_and(|d| d["driver"] == "vfio-pci"), "{after}");
    }
    Ok(String::new())
}

/// Types the commands that `hoist devices` shows for `address`, as `what` names them.
fn by_hand(b: &mut Bed, address: &str, what: &str) -> Result<()> {
    let shown = b.ours("hoist", &["devices"])?;
    let head = format!("`hoist {what} {address}`");
    let commands: Vec<_> = shown
        .lines()
        .skip_while(|l| !l.contains(&head))
        .skip(1)
        .map_while(|l| l.strip_prefix("  ").map(str::to_owned))
        .collect();
    ensure!(commands.len() >= 3, "{shown}");
    for c in commands {
        b.guest.done(&["sh", "-c", &c])?;
    }
    Ok(())
}

fn ports_come_up(b: &mut Bed) -> Result<String> {
    let began = Instant::now();
    b.start_switch()?;
    b.vsctl("add-br br0")?;
    for n in 1..=3 {
        let options = format!("type=hoist options:device={ROCKER} options:port={}", n - 1);
        b.vsctl(&format!("add-port br0 p{n} -- set interface p{n} {options} ofport_request={n}"))?;
    }
    // The form that people know.
    let options = format!("type=dpdk options:dpdk-devargs={ROCKER} options:port=3");
    b.vsctl(&format!("add-port br0 p4 -- set interface p4 {options} ofport_request=4"))?;
    b.until("the links are up", |b| {
        let up = b.vsctl("--columns=name,link_state,error find interface link_state=up")?;
        Ok((1..=4).all(|n| up.contains(&format!("p{n}"))))
    })?;
    let text = b.vsctl("--bare --columns=error list interface")?;
    ensure!(text.trim().is_empty(), "{text}");
    Ok(format!("after {:.1} s", began.elapsed().as_secs_f64()))
}

fn unknown_is_flooded(b: &mut Bed) -> Result<String> {
    b.quiet()?;
    let before = b.interrupts(1)?;
    let out = b.send("p1", &frame(B, A, None, TEST, b"to nobody"), b"to nobody", &["p2", "p3", "p4"])?;
    let at: Vec<_> = out.iter().map(|(p, _)| p.as_str()).collect();
    ensure!(at == ["p2", "p3", "p4"], "came out at {at:?}");
    let after = b.interrupts(1)?;
    ensure!(after > before, "{after} interrupts, {before} before");
    let fdb = b.appctl("fdb/show br0")?;
    ensure!(fdb.contains("02:00:00:00:00:0a"), "{fdb}");
    Ok(format!("{} MSI-X", after - before))
}

/// Sends `f` again and again until the chip forwards it, then [`RUN`] times more: all of them arrive at `to` and nowhere else, the
/// chip counts them and the processor sees none. How many the chip has forwarded in the run.
///
/// The chip does not count for the switch, so that a record in it looks idle and is taken out every now and then: a run in
/// which that happens is begun again.
fn by_the_chip(b: &mut Bed, from: (&str, u32), to: &str, f: &[u8], mark: &[u8]) -> Result<u64> {
    let mut why = String::new();
    for _ in 0..TRIES {
        b.until("the chip forwards", |b| {
            let before = b.hits()?;
            let out = b.send(from.0, f, mark, &[to])?;
            ensure!(out.iter().any(|(p, _)| p == to), "it arrives at {out:?}");
            Ok(b.hits_since(&before)? > 0)
        })?;
        b.quiet()?;
        let (hits, interrupts) = (b.hits()?, b.interrupts(from.1)?);
        for _ in 0..RUN {
            let out = b.send(from.0, f, mark, &[to])?;
            ensure!(out.len() == 1 && out[0].0 == to, "a frame of the run came out at {out:?}");
        }
        let more = b.hits_since(&hits)?;
        let woken = b.interrupts(from.1)? - interrupts;
        if more >= RUN && woken == 0 {
            return Ok(more);
        }
        why = format!("{RUN} frames, {more} hits in the chip, {woken} interrupts");
    }
    bail!("{why}")
}

fn learned_is_forwarded_by_the_chip(b: &mut Bed) -> Result<String> {
    let out = b.send("p2", &frame(A, B, None, TEST, b"answer"), b"answer", &["p1"])?;
    ensure!(out.len() == 1 && out[0].0 == "p1", "came out at {out:?}");
    let there = by_the_chip(b, ("p1", 1), "p2", &frame(B, A, None, TEST, b"there"), b"there")?;
    let back = by_the_chip(b, ("p2", 2), "p1", &frame(A, B, None, TEST, b"back"), b"back")?;
    // What is shown was published after the last round of placement; records in the chip come and go, as it counts nothing.
    b.until("hoist flows shows a record in hardware", |b| {
        b.send("p2", &frame(A, B, None, TEST, b"again"), b"again", &["p1"])?;
        Ok(b.hoist(&["flows", "--hw"])?.as_array().is_some_and(|f| !f.is_empty()))
    })?;
    Ok(format!("{there} there and {back} back by the chip, no interrupt"))
}

fn vlans_in_the_chip(b: &mut Bed) -> Result<String> {
    b.vsctl("set port p3 tag=10 -- set port p4 trunks=10")?;
    b.quiet()?;
    const C: u8 = 0x0c;
    const D: u8 = 0x0d;
    // From both sides, so that both are learned in VLAN 10. Ports without a VLAN are trunks of all.
    let up = frame(D, C, None, TEST, b"access to trunk");
    let out = b.send("p3", &up, b"access to trunk", &["p1", "p2", "p4"])?;
    ensure!(out.len() == 3 && out.iter().all(|o| o.1[12..16] == [0x81, 0, 0, 10]), "came out at {out:x?}");
    let down = frame(C, D, Some(10), TEST, b"trunk to access");
    let out = b.send("p4", &down, b"trunk to access", &["p3"])?;
    ensure!(out.len() == 1 && out[0].0 == "p3", "came out at {out:x?}");
    ensure!(out[0].1[12..14] == TEST.to_be_bytes(), "the tag is still there: {out:x?}");
    let tagged = by_the_chip(b, ("p3", 3), "p4", &up, b"access to trunk")?;
    let untagged = by_the_chip(b, ("p4", 4), "p3", &down, b"trunk to access")?;
    // Another VLAN does not pass, and neither does a tag on an access port.
    for (from, tag) in [("p4", 20), ("p3", 20)] {
        b.quiet()?;
        b.guest.wire(from)?.send(&frame(0xff, D, Some(tag), TEST, b"other"))?;
        std::thread::sleep(SILENCE);
        let out = b.send(from, &frame(0xff, D, Some(tag), TEST, b"other"), b"other", &[])?;
        ensure!(out.is_empty(), "VLAN {tag} at {from} came out at {out:x?}");
    }
    Ok(format!("{tagged} tagged and {untagged} untagged by the chip"))
}

/// Sends `f` again and again until the entries of `table` whose key has `value` at `field` are hit; how often by then.
fn until_hit(b: &mut Bed, table: u32, key: (&str, Value), from: &str, f: &[u8]) -> Result<u64> {
    let mut hits = 0;
    b.until(&format!("table {table} is hit with {} {}", key.0, key.1), |b| {
        let before = b.hits_of(table, key.0, &key.1)?;
        b.guest.wire(from)?.send(f)?;
        std::thread::sleep(Duration::from_millis(100));
        hits = b.hits_of(table, key.0, &key.1)?;
        Ok(hits > before)
    })?;
    Ok(hits)
}

fn stations_in_the_chip(b: &mut Bed) -> Result<String> {
    b.quiet()?;
    let mut out = Vec::new();
    // In no VLAN, untagged; in VLAN 10, untagged by an access port and tagged by a trunk.
    for (from, f, vlan, table, what) in [
        ("p1", frame(B, A, None, TEST, b"station"), 4095, BRIDGING, "no VLAN"),
        ("p3", frame(0x0d, 0x0c, None, TEST, b"station"), 10, BRIDGING, "access"),
        ("p4", frame(0x0c, 0x0d, Some(10), TEST, b"station"), 10, BRIDGING, "trunk"),
        ("p4", frame(0x0c, 0x0d, Some(10), TEST, b"station"), 10, VLAN, "the trunk's VLAN"),
    ] {
        let hits = until_hit(b, table, ("vlan-id", vlan.into()), from, &f)?;
        out.push(format!("{what} {hits}"));
    }
    let stations = b.guest.switch_flows(BRIDGING)?;
    let known = |mac: &str, vlan: u64| {
        let is = |f: &&Value| f["key"]["eth-dst"] == mac && f["key"]["vlan-id"] == vlan;
        stations.iter().any(|f| is(&f))
    };
    ensure!(known("02:00:00:00:00:0c", 10), "{stations:?}");
    Ok(format!("hits: {}", out.join(", ")))
}

fn routes_in_the_chip(b: &mut Bed) -> Result<String> {
    let route = |net: &str, ttl: &str| {
        format!(
            "add-flow br0 priority=150,ip,dl_dst=02:00:00:00:00:ee,nw_dst={net},\
             actions=mod_dl_src:02:00:00:00:00:ee,mod_dl_dst:02:00:00:00:00:0b,{ttl}output:2"
        )
    };
    b.ofctl(&route("10.0.0.64/26", ""))?;
    b.ofctl(&route("10.0.0.128/26", "dec_ttl,"))?;
    b.quiet()?;
    let routed = frame(0xee, A, None, 0x0800, &ipv4(70, b"routed"));
    let hits = until_hit(b, ROUTING, ("eth-type", 0x0800.into()), "p1", &routed)?;
    let terminated = until_hit(b, TERMINATION_MAC, ("eth-dst", "02:00:00:00:00:ee".into()), "p1", &routed)?;
    b.quiet()?;
    let out = b.send("p1", &routed, b"routed", &["p2"])?;
    ensure!(out.len() == 1 && out[0].0 == "p2", "came out at {out:x?}");
    ensure!(out[0].1[..12] == [2, 0, 0, 0, 0, B, 2, 0, 0, 0, 0, 0xee], "{out:x?}");
    ensure!(out[0].1[12..] == routed[12..], "more than the addresses was written: {out:x?}");
    // A network without a route is NORMAL's, which floods what is for nobody it knows.
    let elsewhere = frame(0xee, A, None, 0x0800, &ipv4(20, b"elsewhere"));
    let out = b.send("p1", &elsewhere, b"elsewhere", &["p2"])?;
    ensure!(out.iter().any(|(p, f)| p == "p2" && *f == elsewhere), "came out at {out:x?}");
    let f = frame(0xee, A, None, 0x0800, &ipv4(130, b"with ttl"));
    let mut reason = String::new();
    b.until("the reason is told", |b| {
        let out = b.send("p1", &f, b"with ttl", &["p2"])?;
        ensure!(out.len() == 1 && out[0].0 == "p2" && out[0].1[22] == 63, "came out at {out:x?}");
        reason = b.ours("hoist", &["why"])?;
        Ok(reason.contains("unicast-routing"))
    })?;
    b.ofctl("del-flows br0 dl_dst=02:00:00:00:00:ee")?;
    let why = reason.lines().find(|l| l.contains("unicast-routing")).unwrap_or_default();
    Ok(format!("{hits} routed, {terminated} for the router; \"{}\"", why.trim()))
}

fn drops_in_the_chip(b: &mut Bed) -> Result<String> {
    b.ofctl("add-flow br0 priority=100,in_port=1,dl_src=02:00:00:00:00:66,actions=drop")?;
    b.quiet()?;
    let f = frame(B, 0x66, None, TEST, b"unwanted");
    b.until("the chip drops", |b| {
        let before = b.hits()?;
        b.guest.wire("p1")?.send(&f)?;
        std::thread::sleep(Duration::from_millis(100));
        Ok(b.hits_since(&before)? > 0)
    })?;
    let before = b.hits()?;
    for _ in 0..RUN {
        b.guest.wire("p1")?.send(&f)?;
    }
    b.until("the chip counts the drops", |b| Ok(b.hits_since(&before)? >= RUN))?;
    std::thread::sleep(SILENCE);
    for p in ["p2", "p3", "p4"] {
        let came =
            b.guest.wire(p)?.receive_that(Duration::ZERO, &|x| x.windows(8).any(|w| w == b"unwanted"))?;
        ensure!(came.is_none(), "it came out at {p}");
    }
    Ok(String::new())
}

fn copies_in_the_chip(b: &mut Bed) -> Result<String> {
    /// Kind of a group that copies to a group of stations (OF-DPA).
    const L2_MULTICAST: u8 = 3;
    b.ofctl("add-flow br0 priority=110,in_port=1,dl_dst=01:00:5e:01:02:03,actions=output:2,output:3")?;
    b.quiet()?;
    let mut f = frame(0, A, None, TEST, b"to a group");
    f[..6].copy_from_slice(&[1, 0, 0x5e, 1, 2, 3]);
    let mut groups = 0;
    b.until("the chip copies", |b| {
        let before = b.hits()?;
        let out = b.send("p1", &f, b"to a group", &["p2", "p3"])?;
        let at: Vec<_> = out.iter().map(|(p, _)| p.as_str()).collect();
        ensure!(at == ["p2", "p3"] && out.iter().all(|(_, x)| *x == f), "came out at {out:x?}");
        groups = b.guest.switch_groups(L2_MULTICAST)?.len();
        Ok(b.hits_since(&before)? > 0 && groups > 0)
    })?;
    b.ofctl("del-flows br0 dl_dst=01:00:5e:01:02:03")?;
    Ok(format!("{groups} group"))
}

fn virtio_in_the_same_bridge(b: &mut Bed) -> Result<String> {
    let mut woken = Vec::new();
    for (port, of, address, station) in [("v", 5, VIRTIO, 0x1a), ("w", 6, VIRTIO_SPLIT, 0x1b)] {
        let options = format!("type=dpdk options:dpdk-devargs={address} ofport_request={of}");
        b.vsctl(&format!("add-port br0 {port} -- set interface {port} {options}"))?;
        let error = b.vsctl(&format!("get interface {port} error"))?;
        ensure!(error.trim() == "[]", "{error}");
        b.quiet()?;
        // Both stations are learned, then frames of every length up to the longest go both ways.
        let hello = frame(A, station, None, TEST, b"hello");
        let out = b.send(port, &hello, b"hello", &["p1"])?;
        ensure!(out.iter().any(|(p, _)| p == "p1"), "{port} to p1 came out at {out:?}");
        let before = b.interrupts_of(address, 1)?;
        for n in 0..RUN as usize {
            let mark = format!("frame {n} of {port}");
            let mut body = mark.clone().into_bytes();
            body.resize(46 + n * 1454 / (RUN as usize - 1), n as u8);
            for (from, to, f) in [
                (port, "p1", frame(A, station, None, TEST, &body)),
                ("p1", port, frame(station, A, None, TEST, &body)),
            ] {
                let out = b.send(from, &f, mark.as_bytes(), &[to])?;
                ensure!(out.len() == 1 && out[0].0 == to && out[0].1 == f, "{from} to {to}: {n}: {out:?}");
            }
        }
        woken.push(b.interrupts_of(address, 1)? - before);
        ensure!(woken.iter().all(|n| *n > 0), "no interrupt came");
    }
    // A record between the chip and something else is software's, and says so.
    let why = b.ours("hoist", &["why"])?;
    ensure!(
        why.contains("egress") || why.contains("not on the device") || why.contains("no tables"),
        "{why}"
    );
    let devices = b.ours("hoist", &["devices"])?;
    for address in [VIRTIO, VIRTIO_SPLIT] {
        ensure!(devices.contains(&format!("device {address} ({address}): up")), "{devices}");
    }
    Ok(format!("{} MSI-X of the packed, {} of the split for {RUN} frames each", woken[0], woken[1]))
}

fn software_says_why(b: &mut Bed) -> Result<String> {
    b.ofctl("add-flow br0 priority=200,in_port=1,ip,nw_dst=10.0.0.9,actions=output:2")?;
    b.quiet()?;
    let f = frame(0x99, A, None, 0x0800, &ipv4(9, b"by address"));
    let mut reason = String::new();
    b.until("the reason is told", |b| {
        let out = b.send("p1", &f, b"by address", &["p2"])?;
        ensure!(out.len() == 1 && out[0].0 == "p2", "came out at {out:x?}");
        let all = b.hoist(&["why"])?;
        reason = all.to_string();
        Ok(reason.contains("acl-policy") && reason.contains("nw_dst"))
    })?;
    let before = b.interrupts(1)?;
    for _ in 0..RUN {
        let out = b.send("p1", &f, b"by address", &["p2"])?;
        ensure!(out.len() == 1 && out[0].0 == "p2", "came out at {out:x?}");
    }
    let woken = b.interrupts(1)? - before;
    ensure!(woken > 0, "software forwards and no interrupt came");
    let text = b.ours("hoist", &["why"])?;
    let line = text.lines().find(|l| l.contains("nw_dst") && l.contains("acl-policy"));
    Ok(format!("{woken} MSI-X for {RUN} frames; \"{}\"", line.unwrap_or(&reason).trim()))
}

fn killed_and_restarted(b: &mut Bed) -> Result<String> {
    b.kill_switch()?;
    let began = Instant::now();
    b.start_switch()?;
    b.until("the links are up again", |b| {
        let up = b.vsctl("--columns=name find interface link_state=up")?;
        Ok((1..=4).all(|n| up.contains(&format!("p{n}"))))
    })?;
    b.quiet()?;
    let there = frame(B, A, None, TEST, b"after the crash");
    b.until("frames pass again", |b| {
        let out = b.send("p1", &there, b"after the crash", &[])?;
        std::thread::sleep(Duration::from_millis(200));
        Ok(!out.is_empty())
    })?;
    let took = began.elapsed();
    let out = b.send("p2", &frame(A, B, None, TEST, b"answer"), b"answer", &["p1"])?;
    ensure!(out.iter().any(|(p, _)| p == "p1"), "came out at {out:x?}");
    let n = by_the_chip(b, ("p1", 1), "p2", &there, b"after the crash")?;
    for port in ["v", "w"] {
        let mut came = false;
        b.until("virtio-net passes frames again", |b| {
            let out = b.send(port, &frame(A, 0x1c, None, TEST, b"again"), b"again", &[])?;
            std::thread::sleep(Duration::from_millis(100));
            came |= out.iter().any(|(p, _)| p == "p1");
            Ok(came)
        })?;
    }
    Ok(format!("forwards again after {:.1} s, {n} by the chip", took.as_secs_f64()))
}

fn ended_and_given_back(b: &mut Bed) -> Result<String> {
    let status = b.stop_switch()?;
    ensure!(status == 0, "status {status}");
    let left = b.guest.switch_flows(super::bed::ACL)?;
    ensure!(left.is_empty(), "{} flows are left", left.len());
    for address in [ROCKER, VIRTIO, HOT_PLUGGED] {
        let said = b.ours("hoist", &["unbind", address])?;
        ensure!(said.contains("given back"), "{said}");
    }
    by_hand(b, VIRTIO_SPLIT, "unbind")?;
    let all = b.hoist(&["devices"])?;
    let bound = all["pci"].as_array().map(|p| p.iter().filter(|d| d["driver"] == "vfio-pci").count());
    ensure!(bound == Some(0), "{all}");
    Ok(String::new())
}
