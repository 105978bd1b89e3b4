//! Copies for mirrors.

use flow::FieldId;
use openflow::PortNo;

use super::Xlate;
use super::normal::is_reserved;
use crate::mirror::MirrorOutput;
use crate::port::Port;
use crate::vlan::VlanMode;

impl Xlate<'_> {
    /// Copies the packet, which comes in on `port`, for the mirrors that choose it so.
    pub(super) fn mirror_arrival(&mut self, port: PortNo) {
        let env = self.env;
        if env.pipeline.mirrors.is_empty() {
            return;
        }
        if let Some(p) = env.pipeline.ports.get(port) {
            self.mirror(p, env.pipeline.mirrors.choosing(port, false));
        }
    }

    /// Copies the packet, which has just left by `port`, for the mirrors that choose it so.
    pub(super) fn mirror_departure(&mut self, port: &Port) {
        let env = self.env;
        if !env.pipeline.mirrors.is_empty() {
            self.mirror(port, env.pipeline.mirrors.choosing(port.no, true));
        }
    }

    fn mirror(&mut self, port: &Port, chosen: u32) {
        let env = self.env;
        let tags = self.headers.tags.clone();
        if port.settings.vlan != VlanMode::default() {
            self.look_at_vlan();
        }
        if let Err(why) = port.settings.vlan.admits(tags.vid(0), &port.name) {
            self.wrong(|| why);
            return;
        }
        self.look_at_depth(&port.settings.vlan);
        let inner = port.settings.vlan.enter(&tags);
        let mut left = chosen & !self.mirrored;
        while left != 0 {
            let i = left.trailing_zeros();
            left &= left - 1;
            let Some(m) = env.pipeline.mirrors.get(i) else { continue };
            if let Some(v) = &m.config.select_vlans {
                self.look_at_vlan();
                if !v.has(inner.vid(0)) {
                    continue;
                }
            }
            // Before the copy is sent: that may be chosen by mirrors in its turn, and has been by these.
            self.mirrored |= m.alike;
            let outer = std::mem::replace(&mut self.snaplen, m.config.snaplen);
            self.out.credited.push(m.counters.clone());
            match m.config.output {
                MirrorOutput::Port(p) => {
                    if let Some(p) = env.pipeline.ports.get(p) {
                        self.leave_by(p, &inner);
                    }
                }
                MirrorOutput::Vlan(vlan) => {
                    self.look_at_vlan();
                    self.wc.set_exact(FieldId::EthDst);
                    if inner.vid(0) != vlan && !is_reserved(self.key.get64(FieldId::EthDst)) {
                        let moved = inner.moved_to(vlan);
                        for p in env.pipeline.ways() {
                            if p.settings.vlan.carries(&moved) && !env.pipeline.mirrors.reserve(p.no) {
                                self.leave_by(p, &moved);
                            }
                        }
                    }
                }
            }
            left &= !self.mirrored;
            self.snaplen = outer;
        }
    }

    fn look_at_vlan(&mut self) {
        self.wc.set_masked(FieldId::VlanTci, u128::MAX, 0x1fff);
        self.look_at_what_moved_up();
    }
}
