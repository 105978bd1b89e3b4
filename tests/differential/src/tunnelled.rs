//! The comparison with tunnels: VXLAN, Geneve, and GRE or ERSPAN, in and out, over IPv4 and IPv6, through a bridge below that the reference knows
//! nothing of but where it leads. The reference writes headers and reads them by itself.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use flow::FieldId;
use flow::tunnel::TunnelKind;
use ofproto::TunnelSettings;
use ofproto::tunnel::{End, Mirroring, TunnelKey};
use openflow::flow_mod::{FlowModCommand, Instructions};
use openflow::{Action, FlowMod, PortNo};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::conversation::At;
use crate::frames::random_frame;
use crate::generate::{TABLES, pick, random_flow, random_miss_flow};
use crate::model::Model;
use crate::reference::interpret;
use crate::reference_tunnel::{Mirrored, NEXT, OWN, OWN_MAC, Wrap, canonical};
use crate::rig::{Outcome, Rig};
use crate::run::{describe, expected, hex};
use crate::setup::{Setup, TunnelPort};

/// How much to compare.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Seed of everything random.
    pub seed: u64,
    /// Frames to send in all.
    pub packets: u64,
    /// Flows in the tables, about.
    pub flows: usize,
    /// Frames between changes.
    pub per_round: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { seed: 1, packets: 20_000, flows: 24, per_round: 400 }
    }
}

/// What was compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Frames sent into each switch.
    pub packets: u64,
    /// Frames that came out, and packets to controllers.
    pub outputs: u64,
    /// Of them frames in tunnels.
    pub into_tunnels: u64,
    /// Frames that came out of tunnels and went on.
    pub out_of_tunnels: u64,
    /// Flow-mods accepted.
    pub changes: u64,
    /// Packets that the simulated NIC forwarded by itself.
    pub by_hardware: u64,
}

/// Ends of tunnels of each kind; keys and ends given or left to flows.
fn tunnels(r: &mut SmallRng) -> Vec<TunnelPort> {
    use TunnelKey::{Flow, None as NoKey, Value};
    use TunnelKind::{Erspan, Geneve, Gre, Vxlan};
    let end = |a: &str| a.parse().map_or(End::Any, End::Address);
    // Packets of GRE and of ERSPAN are told apart by which of them there is.
    let mirrors = r.random_bool(0.4);
    let all = [
        (Vxlan, End::Flow, Flow),
        (Vxlan, end("10.9.0.2"), Value(7)),
        (Vxlan, end("fc00::2"), Value(9)),
        (Geneve, end("10.9.0.3"), Flow),
        (Geneve, End::Flow, Value(0x00ff_ffff)),
    ];
    let by_gre = match mirrors {
        false => [
            (Gre, end("10.9.0.2"), Flow),
            (Gre, end("10.8.0.5"), Value(0xdead_beef)),
            (Gre, end("10.9.0.3"), NoKey),
            (Gre, end("fc00::2"), NoKey),
        ],
        true => [
            (Erspan, end("10.9.0.2"), Flow),
            (Erspan, end("10.8.0.5"), Value(9)),
            (Erspan, end("10.9.0.3"), NoKey),
            (Erspan, end("fc00::2"), Value(7)),
        ],
    };
    let port = |(i, (kind, remote, key)): (usize, &(TunnelKind, End, TunnelKey))| TunnelPort {
        no: PortNo(11 + i as u32),
        settings: TunnelSettings {
            remote: *remote,
            in_key: *key,
            out_key: *key,
            csum: *kind != Erspan && r.random_bool(0.4),
            numbered: *kind == Gre && r.random_bool(0.5),
            mirroring: Mirroring {
                version: pick(r, &[Some(1), Some(2), None]),
                index: pick(r, &[Some(0xf_1234), None]),
                dir: pick(r, &[Some(1), None]),
                hwid: pick(r, &[Some(0x2a), None]),
            },
            dont_fragment: r.random_bool(0.7),
            tos: pick(r, &[Some(0), Some(0x28), None]),
            ttl: pick(r, &[Some(64), Some(1), None]),
            ..TunnelSettings::new(*kind)
        },
    };
    all.iter().chain(&by_gre).enumerate().map(port).collect()
}

struct Run {
    r: SmallRng,
    model: Model,
    setup: Setup,
    rigs: [(&'static str, Rig); 2],
    report: Report,
    serial: u16,
}

/// Compares the switches on random tables and frames, in tunnels and out of them.
///
/// # Errors
/// The first difference, with what led to it.
pub fn run(o: &Options) -> Result<Report> {
    // Every other seed does without what vectors do faster.
    flow::checksum::set_vectors(o.seed.is_multiple_of(2));
    let mut r = SmallRng::seed_from_u64(o.seed ^ 0x7c4e);
    let setup = Setup::with_tunnels(tunnels(&mut r));
    let soft = Rig::software(o.seed, &setup).context("the software switch")?;
    let hard = Rig::with_nic(o.seed, &setup, nic::Config::profile("default")?).context("with a NIC")?;
    let mut run = Run {
        r,
        model: Model::default(),
        setup,
        rigs: [("software alone", soft), ("software and NIC", hard)],
        report: Report::default(),
        serial: 1,
    };
    for table in 0..TABLES {
        let fm = random_miss_flow(&mut run.r, table);
        run.apply(fm)?;
    }
    while run.report.packets < o.packets {
        run.round(o).with_context(|| format!("seed {}, after {} packets", o.seed, run.report.packets))?;
    }
    Ok(run.report)
}

impl Run {
    fn port(&mut self) -> PortNo {
        let t = self.r.random_range(0..self.setup.tunnels.len());
        if self.r.random_bool(0.3) { PortNo(self.r.random_range(1..3)) } else { self.setup.tunnels[t].no }
    }

    /// Makes a flow one of ports and tunnels that are there, and has it say what tunnels are told by flows.
    fn adapt(&mut self, i: &mut Instructions) {
        for list in [&mut i.apply, &mut i.write] {
            let mut all = Vec::new();
            for a in list.drain(..) {
                match a {
                    Action::Output { port: PortNo(1..=4), max_len } => {
                        if self.r.random_bool(0.5) {
                            let value = pick(&mut self.r, &[7u128, 9, 0x12_3456, 0xdead_beef, 0]);
                            all.push(set(FieldId::TunId, value));
                        }
                        if self.r.random_bool(0.2) {
                            all.push(set(FieldId::TunErspanVer, pick(&mut self.r, &[1, 2, 2, 3])));
                            all.push(set(FieldId::TunErspanIdx, 0x2_0001));
                            all.push(set(FieldId::TunErspanHwid, pick(&mut self.r, &[0x15, 0])));
                        }
                        match self.r.random_range(0..6) {
                            0..3 => {
                                let to = pick(&mut self.r, &[0x0a09_0002u128, 0x0a09_0003, 0x0a08_0005]);
                                all.push(set(FieldId::TunDst, to));
                                all.push(set(FieldId::TunIpv6Dst, 0));
                            }
                            3 => {
                                let to = NEXT[3].0.parse().map_or(0, |a: std::net::Ipv6Addr| a.into());
                                all.push(set(FieldId::TunDst, 0));
                                all.push(set(FieldId::TunIpv6Dst, to));
                            }
                            _ => {}
                        }
                        all.push(Action::Output { port: self.port(), max_len });
                    }
                    Action::PushMpls(_) | Action::DecMplsTtl => {}
                    Action::SetField { field: FieldId::MplsLabel, .. } => {}
                    a => all.push(a),
                }
            }
            *list = all;
        }
    }

    fn apply(&mut self, mut fm: FlowMod) -> Result<()> {
        self.adapt(&mut fm.instructions);
        let said = self.rigs.each_mut().map(|(_, rig)| rig.apply(std::slice::from_ref(&fm)));
        if said[0] != said[1] {
            bail!("one switch says {:?}, the other {:?} to {fm:?}", said[0], said[1]);
        }
        if said[0].is_ok() {
            self.model.apply(&fm);
            self.report.changes += 1;
        }
        Ok(())
    }

    fn change(&mut self, flows: usize) -> FlowMod {
        // What nothing else matches stays.
        let random: Vec<_> = self.model.flows.iter().filter(|f| f.priority > 1).collect();
        if random.is_empty() || self.r.random_bool(if random.len() < flows { 0.7 } else { 0.35 }) {
            self.serial = self.serial % 60_000 + 1;
            let mut fm = random_flow(&mut self.r, self.serial);
            if self.r.random_bool(0.4) {
                fm.matches.set(FieldId::InPort, self.port().0.into());
            }
            if self.r.random_bool(0.3) {
                let mask = pick(&mut self.r, &[u64::MAX, 0xff]);
                let id = pick(&mut self.r, &[7u64, 9, 0x12_3456, 0xdead_beef, 0]) & mask;
                fm.matches.set_masked(FieldId::TunId, id.into(), mask.into());
            }
            if self.r.random_bool(0.15) {
                fm.matches.set(FieldId::TunErspanVer, self.r.random_range(0..3));
                if self.r.random_bool(0.5) {
                    fm.matches.set_masked(FieldId::TunErspanIdx, 1, 3);
                }
            }
            if self.r.random_bool(0.1) {
                fm.matches.set_masked(FieldId::TunSrc, 0x0a09_0000, 0xffff_0000);
            }
            return fm;
        }
        let f = random[self.r.random_range(0..random.len())];
        FlowMod {
            table: openflow::TableId(f.table),
            priority: f.priority,
            cookie: f.cookie,
            matches: f.matches,
            ..FlowMod::new(FlowModCommand::DeleteStrict)
        }
    }

    fn round(&mut self, o: &Options) -> Result<()> {
        let changes = if self.serial == 1 { o.flows } else { self.r.random_range(1..=o.flows / 4 + 1) };
        for _ in 0..changes {
            let fm = self.change(o.flows);
            self.apply(fm)?;
        }
        self.settle()?;
        let favourites: Vec<At> = (0..24).map(|_| self.frame()).collect();
        let mut sent = 0;
        while sent < o.per_round {
            let burst: Vec<At> = (0..self.r.random_range(1..=8))
                .map(|_| match self.r.random_bool(0.7) {
                    true => favourites[self.r.random_range(0..favourites.len())].clone(),
                    false => self.frame(),
                })
                .collect();
            sent += burst.len();
            self.send(&burst)?;
            if self.r.random_bool(0.1) {
                self.settle()?;
            }
        }
        self.settle()?;
        let want = self.model.counts();
        for (who, rig) in &self.rigs {
            let got = rig.counts();
            if got != want {
                let rows = want.iter().filter(|(k, v)| got.get(*k) != Some(*v));
                let rows: String =
                    rows.map(|(k, v)| format!("{k:?}: want {v:?} got {:?}\n", got.get(k))).collect();
                bail!("{who}: counters differ from the reference (packets, bytes)\n{rows}");
            }
        }
        self.report.by_hardware = self.rigs[1].1.forwarded_by_device();
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        for (who, rig) in &mut self.rigs {
            rig.settle().context(*who)?;
        }
        Ok(())
    }

    fn frame(&mut self) -> At {
        let r = &mut self.r;
        let (_, inner) = random_frame(r);
        match r.random_range(0..10) {
            0..4 => (r.random_range(1..3), inner),
            4 => (r.random_range(3..5), inner),
            _ => (Setup::BELOW, wrapped(r, &inner)),
        }
    }

    fn send(&mut self, burst: &[At]) -> Result<()> {
        let mut want = Outcome::default();
        for (port, frame) in burst {
            let v = interpret(&self.model.flows, &self.setup, *port, frame);
            self.model.count(&v);
            let is_out = *port == Setup::BELOW && !v.hits.is_empty();
            self.report.out_of_tunnels += u64::from(is_out);
            if !self.setup.is_below(*port) || is_out {
                self.report.into_tunnels += v.out.iter().filter(|o| o.0 == Setup::BELOW).count() as u64;
            }
            let e = expected(&v);
            want.out.extend(e.out);
            want.punts.extend(e.punts);
        }
        let want = plain(want);
        self.report.packets += burst.len() as u64;
        self.report.outputs += (want.out.len() + want.punts.len()) as u64;
        for (who, rig) in &mut self.rigs {
            for (port, frame) in burst {
                rig.send(*port, frame)?;
            }
            rig.pump();
            let got = plain(rig.collect());
            if got == want {
                continue;
            }
            let mut text = format!("{who} differs from the reference\n");
            for (port, frame) in burst {
                text += &format!("in  {port}: {}\n", hex(frame));
                text += &rig.explain(*port, frame);
                for i in interpret(&self.model.flows, &self.setup, *port, frame).hits {
                    let f = &self.model.flows[i];
                    text += &format!("hit table {} priority {} {:?}\n", f.table, f.priority, f.matches);
                    text += &format!("    {:?}\n", f.instructions);
                }
            }
            text += &describe("want", &want);
            text += &describe("got ", &got);
            text += &format!("{:?}\n", self.setup.tunnels);
            bail!("{text}");
        }
        Ok(())
    }
}

fn set(field: FieldId, value: u128) -> Action {
    Action::SetField { field, value, mask: field.info().max() }
}

/// Frames below as far as they are defined.
fn plain(mut o: Outcome) -> Outcome {
    for (port, frame) in &mut o.out {
        if *port == Setup::BELOW {
            *frame = canonical(std::mem::take(frame));
        }
    }
    o.sorted()
}

/// A frame behind some tunnel's headers, mostly good ones for this host.
fn wrapped(r: &mut SmallRng, inner: &[u8]) -> Vec<u8> {
    let kind = pick(r, &[TunnelKind::Vxlan, TunnelKind::Geneve, TunnelKind::Gre, TunnelKind::Erspan]);
    let v6 = r.random_bool(0.25);
    let any = |a: &str| a.parse().unwrap_or(IpAddr::V4(0.into()));
    // Each from where it is known to be: what comes in a tunnel says so.
    let (src, src_mac) = NEXT[if v6 { 3 } else { r.random_range(0..3) }];
    let dst = if r.random_bool(0.95) {
        OWN[usize::from(v6)]
    } else if v6 {
        "fc00::7"
    } else {
        "10.9.0.7"
    };
    let id = pick(r, &[7u32, 9, 0x12_3456, 0x00ff_ffff, 0xdead_beef, 0]);
    let mut options = Vec::new();
    if kind == TunnelKind::Geneve && r.random_bool(0.4) {
        let critical = if r.random_bool(0.2) { 0x80 } else { 0 };
        options.extend([0xff, 1, critical | 5, 1, 1, 2, 3, 4]);
        if r.random_bool(0.3) {
            options.extend([0, 9, 1, 0]);
        }
    }
    let wrap = Wrap {
        kind,
        macs: (if r.random_bool(0.95) { OWN_MAC } else { [2, 0xbb, 0, 0, 0, 2] }, src_mac),
        src: any(src),
        dst: any(dst),
        tos: pick(r, &[0, 0x28, 1, 2, 3]),
        ttl: pick(r, &[1, 64, 255]),
        dont_fragment: r.random_bool(0.5),
        csum: r.random_bool(0.5),
        id: (kind != TunnelKind::Gre || r.random_bool(0.7)).then_some(id),
        oam: r.random_bool(0.1),
        source_port: r.random_range(1024..=u16::MAX),
        options,
        mirrored: Some(pick(
            r,
            &[Mirrored::V1(5), Mirrored::V1(0xf_0002), Mirrored::V2(1, 0x15), Mirrored::V2(0, 0)],
        )),
        numbered: r.random_bool(0.3),
    };
    let mut f = wrap.around(inner);
    match r.random_range(0..12) {
        0 => {
            let at = r.random_range(0..f.len().min(80));
            f[at] ^= 1 << r.random_range(0..8);
        }
        1 => f.truncate(r.random_range(14..=f.len())),
        2 => f.extend([0; 9]),
        _ => {}
    }
    f
}
