//! `multipath` and `bundle`: choosing a link or a port by a hash (ovs-actions(7)).

use flow::FieldId;
use openflow::PortNo;
use openflow::extension::{Bundle, Multipath};
use openflow::port::PortState;

use super::hash::{Fields, mix};
use super::{Xlate, act::shift_up};

impl Xlate<'_> {
    pub(super) fn multipath(&mut self, m: &Multipath) {
        let Some(fields) = Fields::from_number(m.fields) else { return };
        let hash = self.hash_of(fields, m.basis.into());
        let n = u32::from(m.max_link) + 1;
        let link = match m.algorithm {
            0 => hash % n,
            1 if n == 1 => 0,
            1 => hash / (u32::MAX / n + 1),
            2 => (0..n).max_by_key(|l| (mix(hash.into(), (*l).into()) >> 32, n - l)).unwrap_or(0),
            _ => iterated(hash, n, m.arg),
        };
        let link = link & 0xffff;
        self.set_field(m.dst.field, shift_up(link.into(), &m.dst), m.dst.mask());
        self.tell(m.dst);
    }

    pub(super) fn bundle(&mut self, b: &Bundle, max_len: u16) {
        let env = self.env;
        let live = |p: &&PortNo| {
            let port = env.pipeline.ports.get(**p);
            port.is_some_and(|p| p.state.has(PortState::LIVE) && p.forwards())
        };
        let port = match b.algorithm {
            0 => b.members.iter().find(live).copied(),
            _ => {
                let fields = Fields::from_number(b.fields);
                let hash = fields.map_or(0, |f| self.hash_of(f, b.basis.into()));
                let score = |i: usize| mix(hash.into(), i as u64);
                let members = b.members.iter().enumerate().filter(|(_, p)| live(p));
                members.max_by_key(|(i, _)| score(*i)).map(|(_, p)| *p)
            }
        };
        match (b.dst, port) {
            (Some(dst), p) => {
                // No port is OFPP_NONE, of 16 bits here as in OpenFlow 1.0.
                let number = p.map_or(0xffff, |p| p.0);
                let field = dst.field;
                self.set_field(field, shift_up(number.into(), &dst) & field.info().max(), dst.mask());
                self.tell(dst);
            }
            (None, Some(p)) => self.output_action(p, max_len),
            (None, None) => self.detail("no live member"),
        }
        if b.fields > 6 {
            self.wc.set_exact(FieldId::EthSrc);
            self.sharing.looked(true);
        }
    }
}

/// A number below `n` from a hash, such that few change when `n` does: the hash is hashed until it is small enough.
fn iterated(mut hash: u32, n: u32, arg: u32) -> u32 {
    let space = arg.max(n).next_power_of_two();
    for _ in 0..4096 {
        let link = hash & (space - 1);
        if link < n {
            return link;
        }
        hash = (mix(hash.into(), 3) >> 32) as u32;
    }
    0
}
