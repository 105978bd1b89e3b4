//! Bonds: whether a packet that has come in by one is taken, and which member one leaves by.
//!
//! What goes by its connection is hashed by the datapath, not here: it goes round with a hash, and what is looked at is the bucket
//! that the hash falls into. So there are as many records as buckets, not as connections.

use bonds::bond::{Admission, BUCKETS, bucket};
use flow::{Action, FieldId, HashAlg};
use openflow::PortNo;

use super::Xlate;
use super::hash::hash_of_station;
use super::normal::is_multicast;
use crate::bundle::Bundle;
use crate::mac_table::MacKey;
use crate::recirc::Later;

impl Xlate<'_> {
    /// Whether NORMAL takes a packet that has come in on `port` in `vlan`; it may not when that is a member of a bond.
    pub(super) fn bond_admits(&mut self, port: PortNo, vlan: u16) -> bool {
        let env = self.env;
        let Some(b) = env.pipeline.bundles.of(port) else { return true };
        let multicast = is_multicast(self.key.get64(FieldId::EthDst));
        match b.view.admits(port.0, multicast) {
            Admission::Accept => true,
            Admission::Drop => {
                self.detail("bonding refused admissibility, dropping");
                false
            }
            Admission::DropIfMoved => {
                let from = MacKey { vlan, mac: self.key.get64(FieldId::EthSrc) };
                let found = env.macs.lookup(from);
                self.out.deps.macs.push((env.index, from, found));
                // A host that says that it is here now is here.
                let looped = found.is_some_and(|p| p != b.port) && !self.is_gratuitous_arp();
                if looped {
                    self.detail("SLB bond thinks this packet looped back, dropping");
                }
                !looped
            }
        }
    }

    /// Sends the packet, of `vlan`, by the member of a bond that it is to leave by.
    pub(super) fn leave_by_bond(&mut self, b: &Bundle, vlan: u16) {
        if b.view.by_connection() {
            if b.view.member_of(0).is_none() {
                return self.warn("no member of the bond is enabled, dropping");
            }
            let patch = |(m, _): &(u32, bool)| {
                self.env.pipeline.ports.get(PortNo(*m)).is_some_and(|p| p.patch.is_some())
            };
            if b.view.members.iter().all(patch) {
                // Nothing is sent by one of them that could not be by another, and a look at the hash would cost a round.
                return self.leave_by_member(b.view.member_of(0));
            }
            if let Some(number) = b.view.table {
                return self.leave_by_table(b.port, number);
            }
            self.commit_packet();
            self.emit(Action::Hash { alg: HashAlg::L4, basis: b.view.basis });
            // What the packet would still do is not done by the copy that goes round.
            let set = std::mem::take(&mut self.action_set);
            self.recirculate(0, vec![Later::Bond(b.port)]);
            self.action_set = set;
            return;
        }
        if b.view.is_fixed() {
            return self.leave_by_member(b.view.member_of(0));
        }
        self.wc.set_exact(FieldId::EthSrc);
        self.sharing.looked(true);
        let hash = hash_of_station(self.key.get64(FieldId::EthSrc), vlan, b.view.basis);
        self.out.credited.push(b.sent[bucket(hash)].clone());
        self.leave_by_member(b.view.member_of(hash));
    }

    /// Sends a packet that has come back with its hash by the member that this falls on, of the bond that `port` stands for.
    pub(super) fn leave_by_hash(&mut self, port: PortNo) {
        let env = self.env;
        let Some(b) = env.pipeline.bundles.of(port) else {
            return self.warn("the bond is gone, dropping");
        };
        self.wc.set_masked(FieldId::DpHash, u128::MAX, BUCKETS as u128 - 1);
        let hash = self.key.get64(FieldId::DpHash) as u32;
        self.out.credited.push(b.sent[bucket(hash)].clone());
        self.leave_by_member(b.view.member_of(hash));
    }

    fn leave_by_member(&mut self, member: Option<u32>) {
        match member {
            Some(m) => self.send(PortNo(m)),
            None => self.warn("no member of the bond is enabled, dropping"),
        }
    }
}
