//! Where packets go: ports, real and reserved, and NORMAL.

use flow::{Action, FieldId};
use offload::Origin;
use openflow::PortNo;

use super::Xlate;
use crate::mac_table::MacKey;

impl Xlate<'_> {
    /// Executes an output action.
    pub(super) fn output_action(&mut self, port: PortNo, max_len: u16) {
        let in_port = PortNo(self.key.get64(FieldId::InPort) as u32);
        match port {
            PortNo::IN_PORT => self.send(in_port),
            PortNo::TABLE => self.resubmit(PortNo::IN_PORT, 0),
            PortNo::NORMAL => self.normal(in_port),
            PortNo::FLOOD | PortNo::ALL => self.flood(in_port),
            PortNo::CONTROLLER => {
                let reason = self.controller_reason();
                self.controller(reason, max_len);
            }
            PortNo::ANY | PortNo::UNSET => self.note("no port"),
            p if p == in_port => self.note("skipping output to input port"),
            p => self.send(p),
        }
    }

    /// Sends at most `max_len` bytes of the packet to a port.
    pub(super) fn output_cut(&mut self, port: PortNo, max_len: u32) {
        let in_port = PortNo(self.key.get64(FieldId::InPort) as u32);
        match port {
            PortNo::IN_PORT => self.send_cut(in_port, Some(max_len)),
            p if p == in_port => self.note("skipping output to input port"),
            p => self.send_cut(p, Some(max_len)),
        }
    }

    /// Sends the packet to a real port.
    fn send(&mut self, port: PortNo) {
        self.send_cut(port, None);
    }

    fn send_cut(&mut self, port: PortNo, max_len: Option<u32>) {
        let Some(p) = self.env.pipeline.ports.get(port) else {
            self.note("no such port");
            return;
        };
        if !p.forwards() {
            self.note("the port does not forward");
            return;
        }
        let dp = p.dp;
        self.commit();
        if let Some(n) = max_len {
            self.emit(Action::Trunc(n));
        }
        self.emit(Action::Output(dp));
    }

    /// Sends the packet to every port but `in_port`.
    fn flood(&mut self, in_port: PortNo) {
        let env = self.env;
        for p in env.pipeline.ports.iter().filter(|p| p.no != in_port && p.forwards()) {
            self.commit();
            self.emit(Action::Output(p.dp));
        }
    }

    /// Switches the packet as a learning bridge does (IEEE 802.1D 7.7 and 7.8), each VLAN apart.
    fn normal(&mut self, in_port: PortNo) {
        const VID: u128 = 0x0fff;
        const VID_AND_PRESENT: u128 = 0x1fff;
        for f in [FieldId::EthSrc, FieldId::EthDst] {
            self.wc.set_exact(f);
        }
        self.wc.set_masked(FieldId::VlanTci, u128::MAX, VID_AND_PRESENT);
        let (src, dst) = (self.key.get64(FieldId::EthSrc), self.key.get64(FieldId::EthDst));
        let vlan = (self.key.get(FieldId::VlanTci) & VID) as u16;
        if self.env.pipeline.ports.get(in_port).is_none() && !self.packet_out {
            self.note("the input port does not exist");
            return;
        }
        if is_reserved(dst) {
            self.note("reserved destination address, dropping");
            return;
        }
        let from = MacKey { vlan, mac: src };
        if !is_multicast(src) && !self.packet_out {
            self.out.deps.learns.push((from, in_port));
        }
        if is_multicast(dst) {
            self.note("multicast, flooding");
            self.flood(in_port);
            return;
        }
        let to = MacKey { vlan, mac: dst };
        let found = self.env.macs.lookup(to);
        self.out.deps.macs.push((to, found));
        match found {
            Some(p) if p == in_port => self.note("learned port is input port, dropping"),
            Some(p) => {
                self.note("forwarding to learned port");
                self.out.provenance.push(Origin::LearnedMac { vlan, mac: mac_bytes(dst) });
                self.send(p);
            }
            None => {
                self.note("no learned MAC for destination, flooding");
                self.flood(in_port);
            }
        }
    }
}

fn is_multicast(mac: u64) -> bool {
    mac >> 40 & 1 != 0
}

/// 01:80:c2:00:00:00 to 0f: not forwarded by a bridge (IEEE 802.1D table 7-10).
fn is_reserved(mac: u64) -> bool {
    mac & !0xf == 0x0180_c200_0000
}

fn mac_bytes(mac: u64) -> [u8; 6] {
    let [_, _, a, b, c, d, e, f] = mac.to_be_bytes();
    [a, b, c, d, e, f]
}
