//! NORMAL: the packet is switched as a learning bridge does (IEEE 802.1D 7.7 and 7.8, 802.1Q 8.6), each VLAN apart.
//!
//! ```text
//!  tags as they came ─► may it come in here? ─► inner form ─► learn, look up ─► for each port out:
//!                                                                  tags it leaves with ─► commit, output ─► tags back
//! ```
//!
//! Both addresses are always looked at, and VLAN id and presence of the outermost tag; its priority only where it is moved
//! to another tag.

use flow::{FieldId, MacAddr};
use offload::Origin;
use openflow::PortNo;
use openflow::port::PortConfig;

use super::Xlate;
use crate::mac_table::MacKey;
use crate::port::Port;
use crate::record::Learned;
use crate::trace::StepKind;
use crate::vlan::{Tags, VlanMode};

const BROADCAST: u64 = 0xffff_ffff_ffff;

impl Xlate<'_> {
    pub(super) fn normal(&mut self, in_port: PortNo) {
        let alone = self.begin_normal();
        for f in [FieldId::EthSrc, FieldId::EthDst] {
            self.wc.set_exact(f);
        }
        self.wc.set_masked(FieldId::VlanTci, u128::MAX, 0x1fff);
        let env = self.env;
        // A controller may be where a packet comes from: no port, so all VLANs may come in and nothing is learned.
        let none = in_port == PortNo::CONTROLLER || in_port == PortNo::ANY;
        let port = env.pipeline.ports.get(in_port);
        if port.is_none() && !none {
            self.wrong(|| format!("received packet on unknown port {in_port}"));
            self.warn("no input bundle, dropping");
            return;
        }
        self.settle_outer_tag();
        if matches!(self.key.get64(FieldId::EthType), 0x8100 | 0x88a8) && self.headers.tags.len() == 0 {
            self.warn("partial VLAN tag, dropping");
            return;
        }
        if let Some(p) = port
            && env.pipeline.mirrors.reserve(p.no)
        {
            self.wrong(|| {
                let name = &p.name;
                format!(
                    "dropping packet received on port {name}, which is reserved exclusively for mirroring"
                )
            });
            self.warn("input port is mirror output port, dropping");
            return;
        }
        let tags = self.headers.tags.clone();
        let inner = match port {
            None => tags,
            Some(p) => {
                if let Err(why) = p.settings.vlan.admits(tags.vid(0), &p.name) {
                    self.wrong(|| why);
                    self.warn("disallowed VLAN VID for this input port, dropping");
                    return;
                }
                self.look_at_depth(&p.settings.vlan);
                p.settings.vlan.enter(&tags)
            }
        };
        let (src, dst) = (self.key.get64(FieldId::EthSrc), self.key.get64(FieldId::EthDst));
        let settings = &env.pipeline.settings;
        if port.is_some() && !settings.forward_bpdu && is_reserved(dst) {
            self.detail("packet has reserved destination MAC, dropping");
            return;
        }
        let vlan = inner.vid(0);
        let bundle = env.pipeline.bundles.stand_in(in_port);
        if !self.bond_admits(in_port, vlan) {
            return;
        }
        let floods = settings.flood_vlans.as_ref().is_some_and(|v| v.has(vlan));
        let gratuitous_arp = self.is_gratuitous_arp();
        if let Some(p) = port
            && !is_multicast(src)
            && !floods
        {
            let key = MacKey { vlan, mac: src };
            if self.record && env.macs.lookup(key) != Some(bundle) {
                let bond = env.pipeline.bundles.of(p.no).map(|b| &b.name);
                let (mac, name) = (MacAddr::from_u64(src), bond.unwrap_or(&p.name));
                let text = format!("-> learned that {mac} is on port {name} in VLAN {vlan}");
                self.step(|| StepKind::Learned(text));
            }
            self.out.deps.learns.push(Learned { bridge: env.index, key, port: bundle, gratuitous_arp });
        }
        if let Some(s) = &settings.snooping
            && self.snooped(s, bundle, &inner)
        {
            return;
        }
        let to = MacKey { vlan, mac: dst };
        let found = if floods || is_multicast(dst) { None } else { env.macs.lookup(to) };
        if !floods && !is_multicast(dst) {
            self.out.deps.macs.push((env.index, to, found));
        }
        match found {
            Some(p) if p == bundle => self.detail("learned port is input port, dropping"),
            Some(p) if env.pipeline.mirrors.reserve(p) => {
                self.warn("learned port is a mirror port, dropping");
            }
            Some(p) => match env.pipeline.ports.get(p) {
                Some(p) => {
                    self.detail("forwarding to learned port");
                    // What goes by a hash depends on more than where it goes.
                    let fixed = env.pipeline.bundles.of(p.no).is_none_or(|b| b.view.is_fixed());
                    if fixed {
                        self.out.provenance.push(Origin::LearnedMac { vlan, mac: MacAddr::from_u64(dst).0 });
                    }
                    self.leave_by(p, &inner);
                    if alone && fixed {
                        self.sharing.was_bridged(vlan, &self.wc);
                    }
                }
                None => self.warn("learned port is unknown, dropping"),
            },
            None => {
                self.detail("no learned MAC for destination, flooding");
                self.flood_vlan(bundle, &inner);
            }
        }
    }

    /// Sends the packet to every port of its VLAN but `in_port`; to bonds once.
    pub(super) fn flood_vlan(&mut self, in_port: PortNo, inner: &Tags) {
        let env = self.env;
        let to = |p: &&Port| p.no != in_port && !env.pipeline.mirrors.reserve(p.no);
        for p in env.pipeline.ways().filter(to) {
            if p.settings.vlan.looks_at_second(inner) {
                self.look_at_tags_below(inner);
            }
            if p.settings.vlan.carries(inner) && !p.config.has(PortConfig::NO_FLOOD) {
                self.leave_by(p, inner);
            }
        }
        self.exporting.leaves_by = exporters::netflow::FLOODED;
    }

    /// What is below the outermost tag of the inner form was looked at.
    fn look_at_tags_below(&mut self, inner: &Tags) {
        match inner.get(1).and_then(|t| t.source.tag()) {
            Some(0) => self.wc.set_masked(FieldId::VlanTci, u128::MAX, 0x1fff),
            Some(_) => self.wc.set_masked(FieldId::VlanTci2, u128::MAX, 0x1fff),
            // There is no second tag, and that is what was seen.
            None => self.wc.set_masked(FieldId::VlanTci2, u128::MAX, 0x1000),
        }
    }

    /// Sends the packet out of a port with the tags it has there; the packet is then as it was.
    pub(super) fn leave_by(&mut self, port: &Port, inner: &Tags) {
        self.look_at_depth(&port.settings.vlan);
        let came = self.headers.tags.clone();
        // A copy of a copy is still of the packet whose rules kept its first tag, or took it off.
        let first_kept = self.first_tag_kept.unwrap_or_else(|| came.have_first());
        let leaving = port.settings.vlan.leave(inner);
        let (tags, looked) = leaving.written(port.settings.priority_tags, &came, first_kept);
        for i in looked {
            self.look_at_tag(i);
        }
        self.show_other_tags(tags);
        let outer = self.first_tag_kept.replace(first_kept);
        match self.env.pipeline.bundles.of(port.no) {
            Some(b) => self.leave_by_bond(b, inner.vid(0)),
            None => self.send(port.no),
        }
        self.first_tag_kept = outer;
        self.show_other_tags(came);
    }

    /// Whether there is a second tag was looked at, where a port takes all of them off.
    pub(super) fn look_at_depth(&mut self, mode: &VlanMode) {
        if matches!(mode, VlanMode::Access { .. }) {
            self.wc.set_masked(FieldId::VlanTci2, u128::MAX, 0x1000);
        }
    }

    /// Puts other tags in the place of those that the packet has by now.
    fn show_other_tags(&mut self, tags: Tags) {
        self.headers.tags = tags;
        self.headers.tags_changed = true;
        self.show_tags();
    }

    /// Whether this is how a host says that it has come here (RFC 5227 3); says so of each bit that it looks at.
    pub(super) fn is_gratuitous_arp(&mut self) -> bool {
        const REQUEST: u64 = 1;
        const REPLY: u64 = 2;
        if self.key.get64(FieldId::EthType) != 0x0806 || self.key.get64(FieldId::EthDst) != BROADCAST {
            return false;
        }
        self.wc.set_exact(FieldId::NwProto);
        match self.key.get64(FieldId::NwProto) {
            REPLY => true,
            REQUEST => {
                self.wc.set_exact(FieldId::NwSrc);
                self.wc.set_exact(FieldId::NwDst);
                self.key.get64(FieldId::NwSrc) == self.key.get64(FieldId::NwDst)
            }
            _ => false,
        }
    }
}

pub(super) fn is_multicast(mac: u64) -> bool {
    mac >> 40 & 1 != 0
}

/// Addresses of frames that are for the next bridge and not forwarded: those of IEEE 802.1D table 7-10, and those of protocols
/// of Extreme and Cisco that do the same job.
pub(super) fn is_reserved(mac: u64) -> bool {
    mac & !0xf == 0x0180_c200_0000
        || mac & !0x7 == 0x0100_0ccc_ccc0
        || matches!(
            mac,
            0x00e0_2b00_0000
                | 0x00e0_2b00_0004
                | 0x00e0_2b00_0006
                | 0x0100_0c00_0000
                | 0x0100_0ccc_cccc
                | 0x0100_0ccc_cccd
                | 0x0100_0ccd_cdcd
        )
}
