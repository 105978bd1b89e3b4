//! VXLAN (RFC 7348): 10k inner flows in 16 networks, out through a tunnel port or in from the underlay.

use std::net::Ipv4Addr;
use std::path::Path;

use flow::MacAddr;
use flow::frame::FrameBuilder;

use super::output::{Output, WorkloadError, flow_frame};
use super::random::Random;

/// Tunnel ends, in the range for benchmarks (RFC 2544).
const LOCAL: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const REMOTE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const LOCAL_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa1]);
const REMOTE_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa2]);
const VXLAN_PORT: u16 = 4789;
const FLOWS: u32 = 10_000;
const NETWORKS: u32 = 16;
const FIRST_VNI: u32 = 1000;

fn create(dir: &Path, name: &'static str, topo: &str) -> Result<Output, WorkloadError> {
    let mut out = Output::create(dir, name, topo)?;
    out.meta("flows", FLOWS);
    out.meta("tun", "vxlan");
    out.meta("expect_fwd", "100.00");
    out.meta("vtep_local", LOCAL);
    out.meta("vtep_remote", REMOTE);
    out.meta("vtep_plen", 24);
    out.meta("vtep_local_mac", LOCAL_MAC);
    out.meta("vtep_remote_mac", REMOTE_MAC);
    Ok(out)
}

fn shuffled(r: &mut Random) -> Vec<u32> {
    let mut order: Vec<u32> = (0..FLOWS).collect();
    r.shuffle(&mut order);
    order
}

/// `n0` on `br0`, the network chosen by destination prefix, out through `tun0` and `brphy`.
pub(super) fn vxlan_encap(dir: &Path, name: &'static str, r: &mut Random) -> Result<(), WorkloadError> {
    let mut out = create(dir, name, "encap")?;
    for v in 0..NETWORKS {
        out.rule(format!(
            "priority=100,in_port=n0,ip,nw_dst=11.0.{}.0/20,actions=set_field:{}->tun_id,output:tun0",
            v * 16,
            FIRST_VNI + v
        ));
    }
    out.rule("priority=0,actions=drop");
    out.line("phy.flows", "priority=100,in_port=LOCAL,actions=output:n1");
    for i in shuffled(r) {
        out.add(&flow_frame(i, FLOWS))?;
    }
    out.finish()
}

/// `n0` on `brphy`, decapsulated, rules on the tunnel key on `br0`.
pub(super) fn vxlan_decap(dir: &Path, name: &'static str, r: &mut Random) -> Result<(), WorkloadError> {
    let mut out = create(dir, name, "decap")?;
    for v in 0..NETWORKS {
        out.rule(format!("priority=100,in_port=tun0,tun_id={},ip,actions=output:n1", FIRST_VNI + v));
    }
    out.rule("priority=0,actions=drop");
    out.line("phy.flows", format!("priority=100,in_port=n0,ip,nw_dst={LOCAL},actions=LOCAL"));
    for i in shuffled(r) {
        let mut vxlan = vec![8, 0, 0, 0];
        vxlan.extend_from_slice(&((FIRST_VNI + i % NETWORKS) << 8).to_be_bytes());
        vxlan.extend_from_slice(&flow_frame(i, FLOWS));
        let entropy = 49_152 + (i * 7919 % 16_384) as u16;
        let mut f = FrameBuilder::new()
            .eth(LOCAL_MAC, REMOTE_MAC)
            .ipv4(REMOTE, LOCAL)
            .ident(i as u16)
            .udp(entropy, VXLAN_PORT)
            .payload(&vxlan)
            .build();
        // VXLAN's outer UDP checksum is zero (RFC 7348 4.1).
        f[40..42].fill(0);
        out.add(&f)?;
    }
    out.finish()
}
