//! Established connections: 10k of them, half TCP and half UDP; both directions arrive on `n0`.

use std::path::Path;

use flow::frame::FrameBuilder;

use super::output::{ETH, Output, WorkloadError, flow_tuple};
use super::random::Random;

const RULES: [&str; 6] = [
    "table=0,priority=100,ip,actions=ct(table=1,zone=5)",
    "table=0,priority=0,actions=drop",
    "table=1,priority=100,ct_state=+trk+inv,ip,actions=drop",
    "table=1,priority=90,ct_state=+trk+est,ip,actions=output:n1",
    "table=1,priority=80,ct_state=+trk+new,ip,nw_src=10.0.0.0/8,actions=ct(commit,zone=5),output:n1",
    "table=1,priority=0,actions=drop",
];

const SYN: u16 = 0x02;
const ACK: u16 = 0x10;

/// `prime.pcap` sets the connections up, in three phases, so that an answer never shares a burst with its request.
pub(super) fn ct(dir: &Path, name: &'static str, r: &mut Random) -> Result<(), WorkloadError> {
    const CONNECTIONS: u32 = 10_000;
    let mut out = Output::create(dir, name, "ct")?;
    out.meta("flows", 2 * CONNECTIONS);
    out.meta("expect_fwd", "100.00");
    RULES.into_iter().for_each(|rule| out.rule(rule));
    let base = |src: u32, dst: u32| FrameBuilder::new().eth(ETH.0, ETH.1).ipv4(src, dst);
    let mut phases = [const { Vec::new() }; 3];
    let mut data = Vec::new();
    for i in 0..CONNECTIONS {
        let (s, d, sp, dp) = flow_tuple(i, CONNECTIONS);
        let (iss, irs) = (r.bits(31) as u32, r.bits(31) as u32);
        if i & 1 == 1 {
            let there = |flags, seq, ack| base(s, d).tcp(sp, dp).tcp_flags(flags).tcp_seq(seq, ack).build();
            let back = |flags, seq, ack| base(d, s).tcp(dp, sp).tcp_flags(flags).tcp_seq(seq, ack).build();
            phases[0].push(there(SYN, iss, 0));
            phases[1].push(back(SYN | ACK, irs, iss + 1));
            phases[2].push(there(ACK, iss + 1, irs + 1));
            data.push(there(ACK, iss + 1, irs + 1));
            data.push(back(ACK, irs + 1, iss + 1));
        } else {
            let there = base(s, d).udp(sp, dp).payload(&[0; 18]).build();
            let back = base(d, s).udp(dp, sp).payload(&[0; 18]).build();
            phases[0].push(there.clone());
            phases[1].push(back.clone());
            data.push(there);
            data.push(back);
        }
    }
    for f in phases.iter().flatten() {
        out.prime(f)?;
    }
    r.shuffle(&mut data);
    for f in &data {
        out.add(f)?;
    }
    out.finish()
}
