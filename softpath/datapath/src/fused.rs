//! Action lists that are carried out as one: the Ethernet addresses rewritten, the TTL decremented, the packet sent.
//!
//! Whether a list is one of these is found out once, when its record comes; a packet then costs a few stores. It is for plain
//! frames ([`crate::plain`]), whose headers lie where they always do; others take the long way.

use flow::checksum::update16;
use flow::{Action, FieldId, PortId};

use crate::plain::L3;

/// Offsets of the TTL and of the header checksum.
const TTL: usize = L3 + 8;
const CHECKSUM: usize = L3 + 10;
/// Both Ethernet addresses.
const ADDRESSES: usize = 12;

/// What is done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rewrite {
    /// Bits of the destination and source address that stay, and the values of the others.
    keep: [u8; ADDRESSES],
    put: [u8; ADDRESSES],
    dec_ttl: bool,
    /// Where the packet goes.
    pub(crate) port: PortId,
}

impl Rewrite {
    /// Of a list of actions, if it is one of these.
    pub(crate) fn of(actions: &[Action]) -> Option<Box<Rewrite>> {
        let (Action::Output(port), edits) = actions.split_last()? else { return None };
        if edits.is_empty() {
            return None;
        }
        let mut r = Rewrite { keep: [0xff; ADDRESSES], put: [0; ADDRESSES], dec_ttl: false, port: *port };
        for a in edits {
            match a {
                Action::SetField { field: field @ (FieldId::EthDst | FieldId::EthSrc), value, mask } => {
                    let at = if *field == FieldId::EthDst { 0 } else { 6 };
                    let (value, mask) = (value.to_be_bytes(), mask.to_be_bytes());
                    for i in 0..6 {
                        let (v, m) = (value[10 + i], mask[10 + i]);
                        r.put[at + i] = r.put[at + i] & !m | v & m;
                        r.keep[at + i] &= !m;
                    }
                }
                // Once: a packet may have no more to give.
                Action::DecTtl if !r.dec_ttl => r.dec_ttl = true,
                _ => return None,
            }
        }
        Some(Box::new(r))
    }

    /// Rewrites a plain frame; false when its TTL is used up.
    #[inline(always)]
    pub(crate) fn apply(&self, frame: &mut [u8]) -> bool {
        let Some(h) = frame.first_chunk_mut::<{ L3 + 20 }>() else { return false };
        if self.dec_ttl {
            let ttl = h[TTL];
            if ttl < 2 {
                return false;
            }
            let word = |ttl: u8, proto: u8| u16::from_be_bytes([ttl, proto]);
            let (proto, check) = (h[TTL + 1], u16::from_be_bytes([h[CHECKSUM], h[CHECKSUM + 1]]));
            h[TTL] = ttl - 1;
            let check = update16(check, word(ttl, proto), word(ttl - 1, proto)).to_be_bytes();
            [h[CHECKSUM], h[CHECKSUM + 1]] = check;
        }
        for ((b, keep), put) in h.iter_mut().zip(&self.keep).zip(&self.put) {
            *b = *b & keep | put;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use device::BufferPool;
    use flow::frame::FrameBuilder;
    use flow::parse;

    use crate::edit::{self, Headers};

    fn set(field: FieldId, value: u128, mask: u128) -> Action {
        Action::SetField { field, value, mask }
    }

    #[test]
    fn a_fused_list_does_what_its_actions_do_one_by_one() {
        let pool = BufferPool::new(2).unwrap();
        let all = (1 << 48) - 1;
        let lists = [
            vec![Action::DecTtl],
            vec![
                set(FieldId::EthDst, 0x0200_0000_0001, all),
                set(FieldId::EthSrc, 0x0200_0000_0002, all),
                Action::DecTtl,
            ],
            vec![set(FieldId::EthSrc, 0xa000_0000_00f0, 0xf000_0000_00ff), set(FieldId::EthSrc, 0x0f, 0x0f)],
        ];
        for edits in lists {
            let list: Vec<_> = edits.iter().cloned().chain([Action::Output(PortId(3))]).collect();
            let r = Rewrite::of(&list).unwrap();
            assert_eq!(r.port, PortId(3));
            for ttl in [255u8, 64, 2, 1, 0] {
                let frame = FrameBuilder::new()
                    .ipv4([10, 0, 0, 1], [10, 9, 8, 7])
                    .ttl(ttl)
                    .udp(5, 6)
                    .pad_to(60)
                    .build();
                let p = parse(&frame, PortId(1)).unwrap();
                let headers = Headers::new(&p.key, &p.layout);
                let mut want = pool.copy_from(&frame).unwrap();
                let mut lives = true;
                for a in &edits {
                    match a {
                        Action::SetField { field, value, mask } => {
                            edit::set_field(&mut want, &headers, *field, *value, *mask)
                        }
                        _ => lives &= edit::dec_ttl(&mut want, &headers),
                    }
                }
                let mut have = pool.copy_from(&frame).unwrap();
                assert_eq!(r.apply(&mut have), lives, "ttl {ttl}");
                if lives {
                    assert_eq!(have[..], want[..], "ttl {ttl}, {edits:?}");
                }
            }
        }
    }

    #[test]
    fn other_lists_are_left_as_they_are() {
        let out = Action::Output(PortId(1));
        for list in [
            vec![],
            vec![out.clone()],
            vec![Action::DecTtl],
            vec![Action::DecTtl, Action::DecTtl, out.clone()],
            vec![out.clone(), Action::DecTtl, out.clone()],
            vec![set(FieldId::NwSrc, 1, 0xffff_ffff), out.clone()],
            vec![Action::PopVlan, out],
        ] {
            assert_eq!(Rewrite::of(&list), None, "{list:?}");
        }
    }
}
