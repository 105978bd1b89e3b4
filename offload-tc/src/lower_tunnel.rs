//! Tunnels: metadata of a packet that came out of one, or is to go into one, in flower's terms.
//!
//! A tunnel's port is an interface of the kernel with "external" metadata (vxlan, geneve, gretap): a packet that comes in by it
//! has them, and the action tunnel_key gives them to one that leaves by it.
//!
//! ```text
//!   record                                              filter
//!   tun_id=42,tun_src=..,in_port(vxlan) ─► output       enc_key_id, enc_src_ip ─► tunnel_key unset, mirred
//!   in_port(p) ─► set(tun_id, tun_dst), output(vxlan)   .. ─► tunnel_key set, mirred
//! ```
//!
//! VXLAN's group policy is an option there. A record that says that there is none is not lowered: flower has no key for that.
//!
//! Geneve's options are matched in the order of their fields from the first on, and may have others behind them. That one is not there
//! is not lowered either: flower compares what is there with what is meant, and what is behind it with nothing (ADR 47).
//!
//! *Not lowered*: fields of ERSPAN and GTP-U, which no port above the kernel carries out; headers that the switch puts before a packet itself, since
//! the kernel has no action that pushes such a header and its own tunnels would take their route from the host's tables, not from
//! the bridge below.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flow::text::flags::{TUN_CSUM, TUN_DF, TUN_KEY, TUN_OAM};
use flow::tunnel::options::{self, Mapping};
use flow::{ActionKind, FieldId, PacketKey, PacketMask, PacketMatch};
use offload::{ActionCap, KeyField, Reject};

use crate::action::TunnelSet;
use crate::filter::Flower;
use crate::keys::FlowerKey;
use crate::lower_match::TABLE;
use crate::tunnel_opts::TunnelOpt;

/// Fields that are matched, and their keys.
const KEYS: [(FieldId, FlowerKey); 9] = [
    (FieldId::TunId, FlowerKey::EncKeyId),
    (FieldId::TunSrc, FlowerKey::EncIp4Src),
    (FieldId::TunDst, FlowerKey::EncIp4Dst),
    (FieldId::TunIpv6Src, FlowerKey::EncIp6Src),
    (FieldId::TunIpv6Dst, FlowerKey::EncIp6Dst),
    (FieldId::TunTos, FlowerKey::EncTos),
    (FieldId::TunTtl, FlowerKey::EncTtl),
    (FieldId::TunTpSrc, FlowerKey::EncUdpSrc),
    (FieldId::TunTpDst, FlowerKey::EncUdpDst),
];
/// Fields that can be written. The source port is the kernel's to choose.
const WRITTEN: [FieldId; 12] = [
    FieldId::TunId,
    FieldId::TunSrc,
    FieldId::TunDst,
    FieldId::TunIpv6Src,
    FieldId::TunIpv6Dst,
    FieldId::TunTos,
    FieldId::TunTtl,
    FieldId::TunTpDst,
    FieldId::TunFlags,
    FieldId::TunTpSrc,
    FieldId::TunGbpId,
    FieldId::TunGbpFlags,
];
/// VXLAN's group policy: where in the kernel's number.
const GROUP: [(FieldId, u32); 2] = [(FieldId::TunGbpId, 0), (FieldId::TunGbpFlags, 16)];
/// The datapath's bit of a tunnel's flags, flower's (TCA_FLOWER_KEY_FLAGS_TUNNEL_*, Linux 6.11).
const FLAGS: [(u16, u128); 3] = [(TUN_CSUM, 1 << 2), (TUN_DF, 1 << 3), (TUN_OAM, 1 << 4)];

/// Fields of tunnels, as capabilities have them.
pub(crate) fn key_fields() -> Vec<KeyField> {
    let flags =
        KeyField { mask: (TUN_CSUM | TUN_DF | TUN_OAM | TUN_KEY).into(), ..KeyField::any(FieldId::TunFlags) };
    let group = GROUP.iter().map(|(f, _)| KeyField::any(*f));
    let options = KeyField::any(FieldId::TunOptions);
    KEYS.iter().map(|(f, _)| KeyField::any(*f)).chain(group).chain([flags, options]).collect()
}

/// Writes of tunnels' fields, as capabilities have them.
pub(crate) fn action_caps() -> Vec<ActionCap> {
    let all = WRITTEN.into_iter().chain(options::words());
    all.map(|f| ActionCap::anywhere(ActionKind::SetField(f)).whole_field()).collect()
}

/// Takes the fields of the tunnel that packets came by as keys, and clears them in `left`. Whether there is a tunnel; `may_be` when
/// the port is the end of one.
///
/// # Errors
/// [`Reject::Value`] for a key that does not fit 32 bits, an option that must not be there, no group.
pub(crate) fn lower_tunnel(
    m: &PacketMatch,
    may_be: bool,
    left: &mut PacketMask,
    f: &mut Flower,
) -> Result<bool, Reject> {
    let group = GROUP.iter().map(|(f, _)| *f);
    let mut fields = KEYS.iter().map(|(f, _)| *f).chain(group).chain([FieldId::TunFlags]);
    let none = fields.clone().all(|f| m.get(f).0 == 0) && !options::any(m.key());
    if none && !(may_be && (fields.any(|f| m.get(f).1 != 0) || options::any(m.mask()))) {
        // A packet without a tunnel has nothing but zeros there.
        options::clear(left);
        return Ok(false);
    }
    for (field, key) in KEYS {
        let (value, mask) = m.get(field);
        if mask & value > key.row().max {
            return Err(Reject::Value { table: TABLE, field, value });
        }
        // Of the family that the packet does not have there is nothing to say.
        let other_family = value == 0
            && matches!(field, FieldId::TunSrc | FieldId::TunDst | FieldId::TunIpv6Src | FieldId::TunIpv6Dst);
        if mask & key.row().max != 0 && !other_family {
            f.set_masked(key, value, mask & key.row().max);
        }
        left.set(field, 0);
    }
    let (mut group, mut bits) = (0u32, 0u32);
    for (field, shift) in GROUP {
        let (value, mask) = m.get(field);
        group |= ((value & mask) as u32) << shift;
        bits |= (mask as u32) << shift;
        left.set(field, 0);
    }
    if bits != 0 && group == 0 {
        return Err(Reject::Value { table: TABLE, field: FieldId::TunGbpId, value: 0 });
    }
    if bits != 0 {
        f.enc_opts = Some((vec![TunnelOpt::VxlanGbp(group)], vec![TunnelOpt::VxlanGbp(bits)]));
    }
    lower_options(m, f)?;
    options::clear(left);
    let (value, mask) = m.get(FieldId::TunFlags);
    if mask & u128::from(TUN_KEY) != 0 && value & u128::from(TUN_KEY) == 0 && mask & value != 0 {
        return Err(Reject::Value { table: TABLE, field: FieldId::TunFlags, value });
    }
    // That there is a key is said by matching it.
    let of =
        |v: u128| FLAGS.iter().filter(|(ours, _)| v & u128::from(*ours) != 0).map(|(_, b)| b).sum::<u128>();
    if of(mask) != 0 {
        f.set_masked(FlowerKey::EncFlags, of(value & mask), of(mask));
    }
    left.set(FieldId::TunFlags, 0);
    Ok(true)
}

/// Takes Geneve's options that are matched as keys.
fn lower_options(m: &PacketMatch, f: &mut Flower) -> Result<(), Reject> {
    let (mut values, mut masks) = (Vec::new(), Vec::new());
    for field in m.mask().fields() {
        let Some(o) = field.option().and_then(options::mapping) else { continue };
        if !options::is_there(m.key(), o.index) || f.enc_opts.is_some() {
            return Err(Reject::Value { table: TABLE, field, value: 0 });
        }
        values.push(option(&o, options::bytes(m.key(), o.index)));
        let data = options::bytes(m.mask(), o.index);
        masks.push(TunnelOpt::Geneve { class: u16::MAX, kind: u8::MAX, data });
    }
    if !values.is_empty() {
        f.enc_opts = Some((values, masks));
    }
    Ok(())
}

fn option(o: &Mapping, data: Vec<u8>) -> TunnelOpt {
    TunnelOpt::Geneve { class: o.class, kind: o.kind, data }
}

/// Whether a field is one of a tunnel's.
pub(crate) fn is_tunnel(f: FieldId) -> bool {
    WRITTEN.contains(&f) || options::is_word(f)
}

/// A tunnel's metadata as writes make them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    src: [u128; 2],
    dst: [u128; 2],
    id: u128,
    tos: u8,
    ttl: u8,
    tp_dst: u16,
    flags: u16,
    group: u32,
    /// The words for options.
    options: PacketKey,
    /// Whether something was written since they were last given to a packet.
    pub changed: bool,
}

impl Wanted {
    /// Takes in a write of a whole field.
    ///
    /// # Errors
    /// [`Reject::SetMask`] for a part of a field, [`Reject::Action`] for a value that tunnels of the kernel do not have.
    pub(crate) fn write(&mut self, field: FieldId, value: u128, mask: u128) -> Result<(), Reject> {
        let whole = field.info().max();
        if mask != whole {
            return Err(Reject::SetMask { table: TABLE, field, wanted: mask, offered: whole });
        }
        match field {
            FieldId::TunSrc => self.src[0] = value,
            FieldId::TunIpv6Src => self.src[1] = value,
            FieldId::TunDst => self.dst[0] = value,
            FieldId::TunIpv6Dst => self.dst[1] = value,
            FieldId::TunId if u32::try_from(value).is_ok() => self.id = value,
            FieldId::TunTos => self.tos = value as u8,
            FieldId::TunTtl => self.ttl = value as u8,
            FieldId::TunTpDst => self.tp_dst = value as u16,
            FieldId::TunTpSrc if value == 0 => {}
            FieldId::TunGbpId => self.group = self.group & !0xffff | value as u32,
            FieldId::TunGbpFlags => self.group = self.group & 0xffff | (value as u32) << 16,
            f if options::is_word(f) => self.options.set(f, value),
            FieldId::TunFlags if value & !u128::from(TUN_CSUM | TUN_DF | TUN_KEY) == 0 => {
                self.flags = value as u16;
            }
            _ => return Err(Reject::Action { table: TABLE, action: ActionKind::SetField(field) }),
        }
        self.changed = true;
        Ok(())
    }

    fn options(&self) -> Vec<TunnelOpt> {
        let there = options::mappings().filter(|o| options::is_there(&self.options, o.index));
        there.map(|o| option(&o, options::bytes(&self.options, o.index))).collect()
    }

    /// The action that gives them to a packet; `None` when there is no other end.
    pub(crate) fn action(&self) -> Option<TunnelSet> {
        let v4 = |a: u128| IpAddr::from(Ipv4Addr::from(a as u32));
        let v6 = |a: u128| IpAddr::from(Ipv6Addr::from(a));
        let (src, dst) = match self.dst {
            [0, 0] => return None,
            [0, dst] => (self.src[1], v6(dst)),
            [dst, _] => (self.src[0], v4(dst)),
        };
        // The kernel wants both ends; the unspecified address is any.
        let src = Some(if dst.is_ipv4() { v4(src) } else { v6(src) });
        // A key that was written is meant whether the flag was or not.
        let keyed = self.flags & TUN_KEY != 0 || self.id != 0;
        Some(TunnelSet {
            src,
            dst,
            id: keyed.then_some(self.id as u32),
            dst_port: self.tp_dst,
            tos: (self.tos != 0).then_some(self.tos),
            ttl: (self.ttl != 0).then_some(self.ttl),
            no_csum: self.flags & TUN_CSUM == 0,
            no_frag: self.flags & TUN_DF != 0,
            opts: if self.group == 0 { self.options() } else { vec![TunnelOpt::VxlanGbp(self.group)] },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_free_only_where_there_is_no_tunnel() {
        let mut m = PacketMatch::ANY;
        m.set(FieldId::TunId, 0);
        m.set(FieldId::TunSrc, 0);
        m.set(FieldId::TunIpv6Src, 0);
        let mut f = Flower::default();
        assert_eq!(lower_tunnel(&m, false, &mut m.mask().clone(), &mut f), Ok(false));
        assert!(f.keys.is_empty());
        m.set(FieldId::TunDst, 0x0a00_0001);
        assert_eq!(lower_tunnel(&m, false, &mut m.mask().clone(), &mut f), Ok(true));
        assert_eq!(f.get(FlowerKey::EncKeyId), Some((0, u32::MAX.into())), "network 0 is one of many");
        assert_eq!(f.get(FlowerKey::EncIp4Dst).map(|k| k.0), Some(0x0a00_0001));
        assert_eq!(f.get(FlowerKey::EncIp6Src), None);
    }

    #[test]
    fn a_group_is_an_option_of_the_tunnel() {
        let mut m = PacketMatch::ANY;
        m.set(FieldId::TunDst, 0x0a00_0001);
        m.set(FieldId::TunGbpId, 512);
        m.set(FieldId::TunGbpFlags, 8);
        let mut f = Flower::default();
        let mut left = *m.mask();
        assert_eq!(lower_tunnel(&m, false, &mut left, &mut f), Ok(true));
        let told = (vec![TunnelOpt::VxlanGbp(8 << 16 | 512)], vec![TunnelOpt::VxlanGbp(0x00ff_ffff)]);
        assert_eq!(f.enc_opts, Some(told));
        assert!(left.is_zero(), "{left:?}");
        m.set(FieldId::TunGbpId, 0);
        m.set(FieldId::TunGbpFlags, 0);
        assert!(matches!(lower_tunnel(&m, false, &mut m.mask().clone(), &mut f), Err(Reject::Value { .. })));
        let mut w = Wanted::default();
        for (f, v) in [(FieldId::TunDst, 1), (FieldId::TunGbpId, 7), (FieldId::TunTpSrc, 0)] {
            w.write(f, v, f.info().max()).unwrap();
        }
        assert_eq!(w.action().unwrap().opts, [TunnelOpt::VxlanGbp(7)]);
        assert!(w.write(FieldId::TunTpSrc, 5, 0xffff).is_err(), "the kernel chooses it");
    }

    #[test]
    fn options_are_keys_in_the_order_of_their_fields_and_absent_ones_are_refused() {
        let all = [(3, 0x102, 0x80, 4), (9, 0x103, 1, 8)];
        let all = all.map(|(index, class, kind, bytes)| Mapping { index, class, kind, bytes });
        all.iter().for_each(|m| options::map(*m).unwrap());
        let mut m = PacketMatch::ANY;
        m.set(FieldId::TunDst, 0x0a00_0001);
        options::require(&mut m, 9, &[1, 2, 3, 4, 5, 6, 7, 8], &[0xff, 0, 0, 0, 0, 0, 0, 0xf0]);
        options::require(&mut m, 3, &[0xab; 4], &[0xff; 4]);
        let (mut f, mut left) = (Flower::default(), *m.mask());
        assert_eq!(lower_tunnel(&m, true, &mut left, &mut f), Ok(true));
        assert!(left.is_zero(), "{left:?}");
        let geneve = |class, kind, data: &[u8]| TunnelOpt::Geneve { class, kind, data: data.to_vec() };
        let values = vec![geneve(0x102, 0x80, &[0xab; 4]), geneve(0x103, 1, &[1, 0, 0, 0, 0, 0, 0, 0])];
        let any = (0xffff, 0xff);
        let masks =
            vec![geneve(any.0, any.1, &[0xff; 4]), geneve(any.0, any.1, &[0xff, 0, 0, 0, 0, 0, 0, 0xf0])];
        assert_eq!(f.enc_opts, Some((values, masks)));
        let mut none = PacketMatch::ANY;
        none.set(FieldId::TunDst, 0x0a00_0001);
        options::require_absent(&mut none, 3);
        let field = FieldId::TunMetadata3;
        assert_eq!(
            lower_tunnel(&none, true, &mut left, &mut Flower::default()),
            Err(Reject::Value { table: TABLE, field, value: 0 })
        );
        // No tunnel at the port: no options either.
        let mut plain = PacketMatch::ANY;
        options::require_absent(&mut plain, 3);
        let (mut f, mut left) = (Flower::default(), *plain.mask());
        assert_eq!(lower_tunnel(&plain, false, &mut left, &mut f), Ok(false));
        assert!(left.is_zero() && f.enc_opts.is_none());
        assert!(lower_tunnel(&plain, true, &mut left, &mut f).is_err(), "it may have come with one");
        let mut w = Wanted::default();
        w.write(FieldId::TunDst, 1, FieldId::TunDst.info().max()).unwrap();
        let mut with = PacketKey::ZERO;
        with.set(FieldId::TunMetadata9, 0x0102_0304_0506_0708);
        for f in options::words() {
            w.write(f, with.get(f), f.info().max()).unwrap();
        }
        assert_eq!(w.action().unwrap().opts, [geneve(0x103, 1, &[1, 2, 3, 4, 5, 6, 7, 8])]);
        all.into_iter().for_each(options::unmap);
    }

    #[test]
    fn metadata_are_put_together_from_writes() {
        let mut w = Wanted::default();
        assert!(w.action().is_none(), "there is nowhere to go");
        for (f, v) in [(FieldId::TunId, 42), (FieldId::TunDst, 0x0a09_0002), (FieldId::TunTtl, 64)] {
            w.write(f, v, f.info().max()).unwrap();
        }
        w.write(FieldId::TunFlags, (TUN_DF | TUN_KEY).into(), 0xffff).unwrap();
        let t = w.action().unwrap();
        assert_eq!((t.id, t.dst, t.ttl), (Some(42), "10.9.0.2".parse().unwrap(), Some(64)));
        assert!(t.no_csum && t.no_frag && t.src == Some("0.0.0.0".parse().unwrap()));
        assert!(w.write(FieldId::TunId, 1 << 40, u64::MAX.into()).is_err());
        assert!(w.write(FieldId::TunId, 1, 1).is_err());
        assert!(w.write(FieldId::TunFlags, TUN_OAM.into(), 0xffff).is_err());
    }
}
