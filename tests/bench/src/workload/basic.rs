//! Workloads without state: one rule, NORMAL, rewriting, and a new flow with every packet.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use flow::MacAddr;

use super::output::{ETH, Output, WorkloadError, flow_frame, frame4};
use super::random::Random;

/// One rule on `in_port`; `n` flows in random order. One flow needs no random numbers.
pub(super) fn p2p(
    dir: &Path,
    name: &'static str,
    r: Option<&mut Random>,
    n: u32,
) -> Result<(), WorkloadError> {
    let mut out = Output::create(dir, name, "plain")?;
    out.meta("flows", n);
    out.meta("expect_fwd", "100.00");
    out.rule("priority=100,in_port=n0,actions=output:n1");
    let mut order: Vec<u32> = (0..n).collect();
    if let Some(r) = r {
        r.shuffle(&mut order);
    }
    for i in order {
        out.add(&flow_frame(i, n))?;
    }
    out.finish()
}

/// The NORMAL action; 1000 hosts behind `n0` (learned from the traffic), 1000 behind `n1` (static entries), 10k pairs.
pub(super) fn l2normal(dir: &Path, name: &'static str, r: &mut Random) -> Result<(), WorkloadError> {
    const HOSTS: u32 = 1000;
    let mut out = Output::create(dir, name, "l2")?;
    out.meta("flows", 10_000);
    out.meta("expect_fwd", "100.00");
    out.rule("priority=0,actions=NORMAL");
    let host = |side: u8, i: u32| MacAddr([2, 0, side, 0, (i >> 8) as u8, i as u8]);
    for i in 0..HOSTS {
        out.line("fdb.txt", format!("n1 {}", host(2, i)));
    }
    let mut pairs = BTreeSet::new();
    while pairs.len() < 10_000 {
        let a = r.below(HOSTS);
        pairs.insert((a, r.below(HOSTS)));
    }
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    r.shuffle(&mut pairs);
    for (i, (a, b)) in pairs.into_iter().enumerate() {
        let eth = (host(2, b), host(1, a));
        out.add(&frame4(eth, 0x0a00_0000 + a, 0x0b00_0000 + b, 17, 1024 + a as u16, 80, i as u32))?;
    }
    out.finish()
}

/// Router-like: 64 destination prefixes, each rewrites both Ethernet addresses and decrements the TTL; 10k flows.
pub(super) fn setfield(dir: &Path, name: &'static str, r: &mut Random) -> Result<(), WorkloadError> {
    let mut out = Output::create(dir, name, "plain")?;
    out.meta("flows", 10_000);
    out.meta("expect_fwd", "100.00");
    for v in 0..64 {
        out.rule(format!(
            "priority=100,in_port=n0,ip,nw_dst=11.0.{}.0/22,actions=mod_dl_src:02:00:00:00:01:00,\
             mod_dl_dst:02:00:00:00:02:{v:02x},dec_ttl,output:n1",
            v * 4
        ));
    }
    out.rule("priority=0,actions=drop");
    let mut order: Vec<u32> = (0..10_000).collect();
    r.shuffle(&mut order);
    for i in order {
        out.add(&flow_frame(i, 10_000))?;
    }
    out.finish()
}

/// A million UDP 5-tuples, each seen once a loop. The rule copies every bit of the tuple into the Ethernet addresses, so
/// that no cache entry can cover two of them.
pub(super) fn newflows(dir: &Path, name: &'static str, r: &mut Random) -> Result<(), WorkloadError> {
    const FLOWS: usize = 1_000_000;
    let mut out = Output::create(dir, name, "plain")?;
    out.meta("flows", FLOWS);
    out.meta("expect_fwd", "100.00");
    out.rule(
        "priority=100,in_port=n0,udp,actions=\
         move:NXM_OF_IP_SRC[]->NXM_OF_ETH_SRC[0..31],move:NXM_OF_UDP_SRC[]->NXM_OF_ETH_SRC[32..47],\
         move:NXM_OF_IP_DST[]->NXM_OF_ETH_DST[0..31],move:NXM_OF_UDP_DST[]->NXM_OF_ETH_DST[32..47],output:n1",
    );
    out.rule("priority=0,actions=drop");
    let mut seen = HashSet::with_capacity(FLOWS);
    while seen.len() < FLOWS {
        let k = r.bits(72);
        if !seen.insert(k) {
            continue;
        }
        let src = 0x0a00_0000 | k as u32 & 0xff_ffff;
        let dst = 0x0b00_0000 | (k >> 24) as u32 & 0xffff;
        let (sp, dp) = (1024 + ((k >> 40) as u16 & 0x7fff), 1024 + ((k >> 56) as u16 & 0x7fff));
        out.add(&frame4(ETH, src, dst, 17, sp, dp, k as u32))?;
    }
    out.finish()
}
