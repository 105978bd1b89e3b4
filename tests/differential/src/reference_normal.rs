//! NORMAL and mirrors of the reference interpreter: on the tags as they are, one port after the other.

use flow::FieldId;
use ofproto::{MirrorOutput, PortSettings, PriorityTags, VlanMode, VlanSet};
use openflow::PortNo;

use crate::reference::{Flow, Interpreter};

/// A tag: type and control.
type Tags = Vec<(u16, u16)>;

const VID: u16 = 0xfff;
const PCP: u16 = 0xe000;

fn vid(tags: &Tags, i: usize) -> u16 {
    tags.get(i).map_or(0, |t| t.1 & VID)
}

fn among(set: &Option<VlanSet>, vid: u16) -> bool {
    set.as_ref().is_none_or(|s| s.has(vid))
}

/// Whether a trunk with a native VLAN carries `v`.
fn trunked(native: u16, trunks: &Option<VlanSet>, v: u16) -> bool {
    if v == native {
        return true;
    }
    v != 0 && among(trunks, v)
}

/// The packet's tags within the switch, when it may come in with `tags`.
fn enter(mode: &VlanMode, tags: &Tags) -> Option<Tags> {
    let v = vid(tags, 0);
    let (tpid, pcp) = tags.first().map_or((0x8100, 0), |t| (t.0, t.1 & PCP));
    match mode {
        VlanMode::Access { vlan } => (v == 0).then(|| vec![(tpid, pcp | 0x1000 | vlan)]),
        VlanMode::Trunk { trunks } => among(trunks, v).then(|| tags.clone()),
        VlanMode::NativeTagged { native, trunks } | VlanMode::NativeUntagged { native, trunks } => {
            if v == 0 {
                let mut inner = vec![(tpid, pcp | 0x1000 | native)];
                inner.extend(tags.iter().skip(1));
                return Some(inner);
            }
            trunked(*native, trunks, v).then(|| tags.clone())
        }
        VlanMode::Dot1qTunnel { vlan, cvlans, tpid } => among(cvlans, v).then(|| {
            let mut inner = vec![(*tpid, 0x1000 | vlan)];
            inner.extend(tags);
            inner
        }),
    }
}

fn carries(mode: &VlanMode, inner: &Tags) -> bool {
    let v = vid(inner, 0);
    match mode {
        VlanMode::Access { vlan } => v == *vlan && vid(inner, 1) == 0,
        VlanMode::Trunk { trunks } => among(trunks, v),
        VlanMode::NativeTagged { native, trunks } | VlanMode::NativeUntagged { native, trunks } => {
            trunked(*native, trunks, v)
        }
        VlanMode::Dot1qTunnel { vlan, cvlans, .. } => v == *vlan && among(cvlans, vid(inner, 1)),
    }
}

/// The tags with which a packet leaves that came with `came`, of which `known` were the packet's own first two.
fn leave(p: &PortSettings, inner: &Tags, came: &Tags) -> Tags {
    let mut out = inner.clone();
    match &p.vlan {
        VlanMode::Access { .. } => out.clear(),
        VlanMode::NativeUntagged { native, .. } if vid(inner, 0) == *native => {
            drop(out.drain(..1.min(out.len())))
        }
        VlanMode::Dot1qTunnel { .. } => drop(out.drain(..1.min(out.len()))),
        _ => {}
    }
    if p.priority_tags != PriorityTags::Never {
        let pcp = came.first().map_or(0, |t| t.1 & PCP);
        match out.first_mut() {
            Some(t) => t.1 = t.1 & !PCP | pcp,
            None if pcp != 0 => out.push((0x8100, pcp | 0x1000)),
            None => {}
        }
    }
    out
}

impl<F: Flow> Interpreter<'_, F> {
    fn settings(&self, port: PortNo) -> Option<&PortSettings> {
        self.setup.wire(port).and_then(|w| self.setup.ports.get(w as usize - 1))
    }

    fn is_reserved_for_mirrors(&self, port: PortNo) -> bool {
        self.setup.mirrors.iter().any(|m| m.output == MirrorOutput::Port(port))
    }

    /// Whether the packet ends within its first tag.
    pub(crate) fn has_half_a_tag(&self) -> bool {
        matches!(self.key.get64(FieldId::EthType), 0x8100 | 0x88a8) && self.tags.is_empty()
    }

    pub(crate) fn normal(&mut self, from: PortNo) {
        let Some(p) = self.settings(from).cloned() else { return };
        if self.has_half_a_tag() || self.is_reserved_for_mirrors(from) {
            return;
        }
        let Some(inner) = enter(&p.vlan, &self.tags) else { return };
        for port in self.setup.in_order().filter(|p| *p != from) {
            let carried = self.settings(port).is_some_and(|p| carries(&p.vlan, &inner));
            if carried && !self.is_reserved_for_mirrors(port) {
                self.leave_by(port, &inner);
            }
        }
    }

    /// Sends the packet out of a port with the tags it has there.
    fn leave_by(&mut self, port: PortNo, inner: &Tags) {
        let Some(p) = self.settings(port).cloned() else { return };
        let mut tags = leave(&p, inner, &self.tags);
        // The packet's own second tag is left alone, whatever it is.
        let own = self.own_tags_below();
        let n = tags.len() - own.min(tags.len());
        let mut i = 0;
        tags.retain(|t| {
            i += 1;
            i > n || t.1 & VID != 0 || t.1 & PCP != 0 || p.priority_tags == PriorityTags::Always
        });
        let (frame, key, came) = (self.frame.clone(), self.key, self.tags.clone());
        let mut taken_off = 0;
        if tags != self.tags {
            // Tags below those that change stay on the wire, with bits that the key does not have.
            let same = tags.iter().rev().zip(self.tags.iter().rev()).take_while(|(a, b)| a == b).count();
            taken_off = self.tags.len() - same;
            while self.tags.len() > same {
                self.frame.pop_vlan();
                self.tags.remove(0);
            }
            for (tpid, tci) in tags[..tags.len() - same].iter().rev() {
                self.frame.push_vlan(*tpid);
                self.frame.set_tci(tci & !0x1000, !0x1000);
                self.tags.insert(0, (*tpid, *tci));
            }
            self.show_tags();
        }
        let before = self.verdict.out.len();
        self.send_to(port);
        (self.frame, self.key, self.tags) = (frame, key, came);
        if self.verdict.out.len() > before {
            self.frame.put_back(taken_off);
        }
    }

    /// How many of the innermost tags are the packet's own, below its outermost one.
    fn own_tags_below(&self) -> usize {
        usize::from(self.own_tags == 2)
    }

    /// Copies the packet for mirrors that choose it at `port`.
    pub(crate) fn mirror(&mut self, port: PortNo, leaving: bool) {
        let Some(p) = self.settings(port).cloned() else { return };
        let Some(inner) = enter(&p.vlan, &self.tags) else { return };
        for i in 0..self.setup.mirrors.len() {
            let m = self.setup.mirrors[i].clone();
            let ports = if leaving { &m.select_dst } else { &m.select_src };
            let chosen = m.select_all || ports.contains(&port);
            if !chosen || self.mirrored.contains(&m.output_key()) || !among(&m.select_vlans, vid(&inner, 0)) {
                continue;
            }
            self.mirrored.push(m.output_key());
            let was = std::mem::replace(&mut self.snaplen, m.snaplen);
            match m.output {
                MirrorOutput::Port(out) => self.leave_by(out, &inner),
                MirrorOutput::Vlan(v) if v != vid(&inner, 0) => {
                    let (tpid, pcp) = inner.first().map_or((0x8100, 0), |t| (t.0, t.1 & PCP));
                    let mut moved = vec![(tpid, pcp | 0x1000 | v)];
                    moved.extend(inner.iter().skip(1));
                    for out in self.setup.in_order() {
                        let carried = self.settings(out).is_some_and(|p| carries(&p.vlan, &moved));
                        if carried && !self.is_reserved_for_mirrors(out) {
                            self.leave_by(out, &moved);
                        }
                    }
                }
                MirrorOutput::Vlan(_) => {}
            }
            self.snaplen = was;
        }
    }
}

/// Names an output, so that mirrors with the same one are known.
trait OutputKey {
    fn output_key(&self) -> u64;
}

impl OutputKey for ofproto::Mirror {
    fn output_key(&self) -> u64 {
        match self.output {
            MirrorOutput::Port(p) => p.0.into(),
            MirrorOutput::Vlan(v) => 1 << 40 | u64::from(v),
        }
    }
}
