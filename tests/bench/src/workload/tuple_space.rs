//! Tuple-space explosion (Csikor et al., CoNEXT 2019): three rules on three fields and a default drop. The victim sends
//! 1000 TCP flows to port 80; the attack, one packet in ten, has every combination of the first bit that differs from
//! the rules' source address, destination port and source port: 8192 of them, each a mask of its own for a cache that
//! un-wildcards bit by bit.

use std::path::Path;

use super::output::{ETH, Output, WorkloadError, frame4};
use super::random::Random;

const ADDRESS: u32 = 0x0a00_000a;
const TARGET: u32 = 0x0b00_0001;
const DST_PORT: u16 = 80;
const SRC_PORT: u16 = 12_345;

/// `v` with bit `bit` flipped, the ones above as they are and those below random.
fn first_difference(r: &mut Random, v: u32, bit: u32, random_bits: u32) -> u32 {
    v ^ 1 << bit ^ r.bits(random_bits) as u32 & ((1 << bit) - 1)
}

/// With or without the attack.
pub(super) fn tse(dir: &Path, name: &'static str, r: &mut Random, attack: bool) -> Result<(), WorkloadError> {
    let mut out = Output::create(dir, name, "plain")?;
    out.meta("flows", if attack { 9192 } else { 1000 });
    out.meta("victim", if attack { "0.9" } else { "1.0" });
    out.meta("expect_fwd", if attack { "90.00" } else { "100.00" });
    out.rule("priority=400,in_port=n0,tcp,tp_dst=80,actions=output:n1");
    out.rule("priority=300,in_port=n0,tcp,nw_src=10.0.0.10,actions=output:n1");
    out.rule("priority=200,in_port=n0,tcp,tp_src=12345,actions=output:n1");
    out.rule("priority=0,actions=drop");
    let tcp = |src, sp, dp, ident| frame4(ETH, src, TARGET, 6, sp, dp, ident);
    let mut victim: Vec<_> = (0..1000u32)
        .map(|i| {
            tcp(0x0a00_0000 + (i.wrapping_mul(2_654_435_761) & 0xff_ffff), 20_000 + i as u16, DST_PORT, i)
        })
        .collect();
    let mut attacks = Vec::with_capacity(8192);
    for i in 0..32 {
        for j in 0..16 {
            for k in 0..16 {
                let src = first_difference(r, ADDRESS, 31 - i, 31);
                let dp = first_difference(r, DST_PORT.into(), 15 - j, 15) as u16;
                let sp = first_difference(r, SRC_PORT.into(), 15 - k, 15) as u16;
                attacks.push(tcp(src, sp, dp, 0));
            }
        }
    }
    r.shuffle(&mut attacks);
    if attack {
        for a in &attacks {
            let at = r.below(10);
            for i in 0..10 {
                let frame: &Vec<u8> = if i == at { a } else { r.choice(&victim) };
                out.add(frame)?;
            }
        }
    } else {
        for _ in 0..10 {
            r.shuffle(&mut victim);
            for f in &victim {
                out.add(f)?;
            }
        }
    }
    out.finish()
}
