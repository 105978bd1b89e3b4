//! What exporters want of a translation: which flow of NetFlow its packets are of, and where they go.

use std::net::Ipv4Addr;

use exporters::netflow::{DROPPED, FLOODED, FlowKey, SEVERAL};
use flow::FieldId;

use super::Xlate;
use crate::exports::NetflowOf;

/// Where packets go by two things that are done to them, one after the other.
pub(super) fn joined(before: u16, now: u16) -> u16 {
    match (before, now) {
        (FLOODED, _) | (_, FLOODED) => FLOODED,
        (before, DROPPED) => before,
        (DROPPED, now) => now,
        _ => SEVERAL,
    }
}

/// What tells flows of NetFlow apart, and how much of each field.
const TOLD_APART: [(FieldId, u128); 6] = [
    (FieldId::NwSrc, u128::MAX),
    (FieldId::NwDst, u128::MAX),
    (FieldId::NwProto, u128::MAX),
    (FieldId::NwTos, 0xfc),
    (FieldId::TpSrc, u128::MAX),
    (FieldId::TpDst, u128::MAX),
];

impl Xlate<'_> {
    /// The packet, as it came in, is of a flow of NetFlow, if its bridge has that. What comes back from the datapath was counted
    /// when it came in.
    pub(super) fn count_for_netflow(&mut self, is_new: bool) {
        let settings = &self.env.pipeline.settings;
        let wanted = settings.netflow.is_some() && (is_new || self.stock());
        if !wanted || self.orig.get64(FieldId::EthType) != 0x0800 {
            return;
        }
        for (f, mask) in TOLD_APART {
            self.wc.set_masked(f, u128::MAX, mask);
        }
        if !is_new {
            return;
        }
        let get = |f| self.orig.get64(f);
        let later = get(FieldId::NwFrag) & u64::from(flow::parse::FRAG_LATER) != 0;
        let port = |f| if later { 0 } else { get(f) as u16 };
        self.out.netflow = Some(Box::new(NetflowOf {
            bridge: self.env.index,
            key: FlowKey {
                in_port: self.in_port.0 as u16,
                src: Ipv4Addr::from(get(FieldId::NwSrc) as u32),
                dst: Ipv4Addr::from(get(FieldId::NwDst) as u32),
                tos: get(FieldId::NwTos) as u8 & 0xfc,
                protocol: get(FieldId::NwProto) as u8,
                src_port: port(FieldId::TpSrc),
                dst_port: port(FieldId::TpDst),
            },
            output: self.leaves_by,
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_to_two_ports_goes_to_several_and_a_flood_stays_one() {
        assert_eq!(joined(DROPPED, DROPPED), DROPPED);
        assert_eq!(joined(DROPPED, 2), 2);
        assert_eq!(joined(2, DROPPED), 2);
        assert_eq!(joined(2, 3), SEVERAL);
        assert_eq!(joined(SEVERAL, FLOODED), FLOODED);
        assert_eq!(joined(FLOODED, DROPPED), FLOODED);
    }
}
