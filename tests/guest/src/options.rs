//! Geneve's options through the kernel's own datapath and through TC above it: b sends one that a rule matches, and counts those that
//! come with the one that a rule writes.
//!
//! ```text
//!   a 10.2.0.1 ── va ─ br0 ─ gn, option 0x1234 ─► vb 10.0.0.254 ══ eb 10.0.0.2 ─ gnb 10.2.0.2, counted by tc
//!                       └──── gn, option 0xb ◄──────────────────────────────── tunnel_key set by tc
//! ```

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::daemon::{Daemon, wait};
use crate::net::{by_tc, packets, ping, sh};
use crate::switch::Switch;
use crate::system::{behind_tunnel, kernels};

/// The far end's device, with options by its own TC.
fn far_end(option: &str) -> Result<()> {
    sh(&format!(
        "tc -n b filter replace dev gnb egress protocol all prio 1 handle 1 flower action tunnel_key set \
         src_ip 10.0.0.2 dst_ip 10.0.0.254 id 42 dst_port 6081 geneve_opts 0102:80:{option} pass"
    ))?;
    Ok(())
}

/// Packets that came to b with the option that is to be written.
fn came_with_it() -> Result<u64> {
    let text = sh("tc -n b -s -j filter show dev gnb ingress")?;
    let all: Value = serde_json::from_str(&text)?;
    Ok(packets(all.as_array().into_iter().flatten()))
}

/// See the module's text.
pub fn through_tunnels(s: &mut Switch) -> Result<String> {
    let made =
        &["link add gnb type geneve external dstport 6081", "link set gnb address 02:00:00:00:00:42 up"];
    behind_tunnel(s, "systemopt", ("gn", "geneve"), "gnb", made, "10.2.0", both_ways)
}

fn both_ways(d: &Daemon) -> Result<String> {
    sh("tc -n b qdisc add dev gnb clsact")?;
    far_end("0000000b")?;
    sh("tc -n b filter add dev gnb ingress protocol ip prio 1 flower enc_key_id 42 \
        geneve_opts 0102:80:00001234/ffff:ff:ffffffff action pass")?;
    d.ofctl("del-flows", "")?;
    d.ofctl("add-tlv-map", "{class=0x102,type=0x80,len=4}->tun_metadata0")?;
    d.ofctl("add-flow", "in_port=1,actions=set_field:0x1234->tun_metadata0,output:2")?;
    d.ofctl("add-flow", "in_port=2,tun_metadata0=0xb/0xff,actions=output:1")?;
    wait("the tunnel answers", || Ok(ping("a", "10.2.0.2", 1, 50)? == 1)).with_context(|| {
        let (flows, why) = (kernels().unwrap_or_default(), d.appctl("hoist/why").unwrap_or_default());
        format!("{flows}{why}")
    })?;
    let before = came_with_it()?;
    let got = ping("a", "10.2.0.2", 10, 50)?;
    let with = came_with_it()? - before;
    ensure!(got == 10 && with == 10, "{got} of 10 answered, {with} came with the option");
    let flows = kernels()?;
    ensure!(flows.contains("class=0x102,type=0x80,len=4,0xb/0xff"), "{flows}");
    ensure!(flows.contains("class=0x102,type=0x80,len=4,0x1234"), "{flows}");
    // The same by TC.
    d.vsctl("set Open_vSwitch . other_config:hw-offload=true other_config:tc-policy=skip_hw")?;
    let before = came_with_it()?;
    let got = ping("a", "10.2.0.2", 40, 20)?;
    let with = came_with_it()? - before;
    let (there, back) = (by_tc("va", "geneve")?, by_tc("genev_sys_6081", "geneve")?);
    let why = || d.appctl("hoist/why").unwrap_or_default();
    ensure!(got == 40 && with == 40, "{got} of 40 answered, {with} came with the option: {}", why());
    ensure!((5..=40).contains(&there) && (5..=40).contains(&back), "{there}, {back} by TC: {}", why());
    // With another option it is another packet, whoever forwards.
    far_end("0000000c")?;
    let got = ping("a", "10.2.0.2", 3, 50)?;
    ensure!(got == 0, "{got} of 3 came through a rule that wants another option");
    far_end("0000010b")?;
    let got = ping("a", "10.2.0.2", 3, 50)?;
    ensure!(got == 3, "{got} of 3 came through whose other bits do not matter");
    Ok(format!("{there} and {back} of 40 by TC"))
}
