//! Actions as the kernel's datapath has them (OVS_ACTION_ATTR_*).

use std::net::IpAddr;

use flow::tunnel::options;
use flow::{Action, ControllerAction, CtAction, FieldId, HashAlg, NatChoice, NatEnd, PacketKey, PacketMatch};

use super::KdpError;
use super::key::{self, Get, number};
use crate::wire::{NESTED, Writer};

const OUTPUT: u16 = 1;
const USERSPACE: u16 = 2;
const SET: u16 = 3;
const PUSH_VLAN: u16 = 4;
const POP_VLAN: u16 = 5;
const RECIRC: u16 = 7;
const HASH: u16 = 8;
const PUSH_MPLS: u16 = 9;
const POP_MPLS: u16 = 10;
const SET_MASKED: u16 = 11;
const CT: u16 = 12;
const TRUNC: u16 = 13;
const CT_CLEAR: u16 = 16;
const METER: u16 = 19;
const CLONE: u16 = 20;
const CHECK_PKT_LEN: u16 = 21;
/// Actions within actions at most; the kernel's own limit (OVS_COPY_ACTIONS_MAX_DEPTH).
const MAX_DEPTH: usize = 16;

/// What a packet for a controller is to bring along, for whoever receives it.
pub type Userdata<'a> = &'a dyn Fn(&ControllerAction) -> Vec<u8>;

/// Writes the action that hands packets over with `userdata`.
pub(super) fn put_hand_over(w: &mut Writer, userdata: &[u8]) {
    let n = w.nest(USERSPACE | NESTED);
    // The kernel takes the socket of the CPU, but wants one to be named.
    w.u32(1, u32::MAX);
    w.attr(2, userdata);
    w.end(n);
}

/// Writes actions for packets that match `m`.
///
/// # Errors
/// [`KdpError::Unsupported`] for what this datapath does not do.
pub(super) fn put_actions(
    w: &mut Writer,
    actions: &[Action],
    m: &PacketMatch,
    userdata: Userdata<'_>,
) -> Result<(), KdpError> {
    let mut a = Actions { m, userdata, tunnel: Vec::new() };
    a.put_all(w, actions, 0)
}

struct Actions<'a> {
    m: &'a PacketMatch,
    userdata: Userdata<'a>,
    /// Fields of the tunnel that packets are to go into, not yet given to them.
    tunnel: Vec<(FieldId, u128)>,
}

impl Actions<'_> {
    fn put_all(&mut self, w: &mut Writer, actions: &[Action], depth: usize) -> Result<(), KdpError> {
        if depth > MAX_DEPTH {
            return Err(KdpError::Unsupported("actions nested so deeply"));
        }
        actions.iter().try_for_each(|a| self.put(w, a, depth))
    }

    fn put(&mut self, w: &mut Writer, a: &Action, depth: usize) -> Result<(), KdpError> {
        match a {
            Action::Output(port) => {
                self.put_tunnel(w);
                w.u32(OUTPUT, port.0);
            }
            Action::Controller(c) => {
                put_hand_over(w, &(self.userdata)(c));
            }
            Action::SetField { field, value, mask } => return self.set(w, *field, *value, *mask),
            Action::PushVlan { tpid, tci } => {
                w.attr(PUSH_VLAN, &[tpid.to_be_bytes(), (tci | 0x1000).to_be_bytes()].concat());
            }
            Action::PopVlan => w.attr(POP_VLAN, &[]),
            Action::PushMpls { eth_type, lse } => {
                w.attr(PUSH_MPLS, &[&lse.to_be_bytes()[..], &eth_type.to_be_bytes(), &[0, 0]].concat());
            }
            Action::PopMpls { eth_type } => w.attr(POP_MPLS, &eth_type.to_be_bytes()),
            Action::Recirc(id) => w.u32(RECIRC, *id),
            Action::Hash { alg: HashAlg::L4, basis } => {
                w.attr(HASH, &[0u32.to_ne_bytes(), basis.to_ne_bytes()].concat());
            }
            Action::Ct(c) => return put_ct(w, c),
            Action::CtClear => w.attr(CT_CLEAR, &[]),
            Action::Meter(id) => w.u32(METER, id.0),
            Action::Trunc(n) => w.u32(TRUNC, *n),
            Action::Clone(inner) => {
                let n = w.nest(CLONE | NESTED);
                let before = self.tunnel.clone();
                self.put_all(w, inner, depth + 1)?;
                self.tunnel = before;
                w.end(n);
            }
            Action::CheckLength(c) => {
                let n = w.nest(CHECK_PKT_LEN | NESTED);
                w.u16(1, c.bytes);
                for (kind, list) in [(2, &c.longer), (3, &c.others)] {
                    let inner = w.nest(kind | NESTED);
                    let before = self.tunnel.clone();
                    self.put_all(w, list, depth + 1)?;
                    self.tunnel = before;
                    w.end(inner);
                }
                w.end(n);
            }
            Action::LbOutput(_) => return Err(KdpError::Unsupported("lb_output")),
            Action::DecTtl => return Err(KdpError::Unsupported("decrement of a TTL that is not matched")),
            _ => return Err(KdpError::Unsupported("such action")),
        }
        Ok(())
    }

    fn put_tunnel(&mut self, w: &mut Writer) {
        if self.tunnel.is_empty() {
            return;
        }
        let written = std::mem::take(&mut self.tunnel);
        let get = |f| written.iter().rev().find(|(g, _)| *g == f).map_or(0, |(_, v)| *v);
        let mut with = PacketKey::ZERO;
        written.iter().filter(|(f, _)| options::is_word(*f)).for_each(|(f, v)| with.set(*f, *v));
        let raw = options::header(&with);
        let n = w.nest(SET | NESTED);
        key::put_tunnel(w, &get, (!raw.is_empty()).then_some(&raw), false);
        w.end(n);
    }

    fn set(&mut self, w: &mut Writer, field: FieldId, value: u128, mask: u128) -> Result<(), KdpError> {
        use FieldId::*;
        let whole = |f: FieldId| mask == f.info().max();
        match field {
            TunId | TunSrc | TunDst | TunIpv6Src | TunIpv6Dst | TunTos | TunTtl | TunTpSrc | TunTpDst
            | TunFlags | TunGbpId | TunGbpFlags
                if whole(field) =>
            {
                self.tunnel.push((field, value));
                return Ok(());
            }
            f if options::is_word(f) && whole(f) => {
                self.tunnel.push((f, value));
                return Ok(());
            }
            VlanTci if mask & 0xefff == 0xefff && value & 0x1000 | !mask & 0x1000 != 0 => {
                let tpid = match self.m.get(VlanTpid).0 {
                    0 => 0x8100u16,
                    t => t as u16,
                };
                w.attr(POP_VLAN, &[]);
                w.attr(PUSH_VLAN, &[tpid.to_be_bytes(), (value as u16 | 0x1000).to_be_bytes()].concat());
                return Ok(());
            }
            _ => {}
        }
        let v = |f: FieldId| if f == field { value & mask } else { 0 };
        let bits = |f: FieldId| if f == field { mask } else { 0 };
        let both = |make: &dyn Fn(Get<'_>) -> Vec<u8>| [make(&v), make(&bits)].concat();
        let eth_type = self.m.get(EthType).0;
        let is_v6 = eth_type == 0x86dd;
        if matches!(field, NwSrc | NwDst) && eth_type != 0x0800
            || matches!(field, NwTos | NwTtl) && !is_v6 && eth_type != 0x0800
        {
            // Those of ARP, say, which the kernel does not write.
            return Err(KdpError::Unsupported("write to this header"));
        }
        let ip = |g: Get<'_>| if is_v6 { key::ipv6(g, 0) } else { key::ipv4(g, 0) };
        let ip_number = if is_v6 { number::IPV6 } else { number::IPV4 };
        let (attr, body) = match field {
            EthSrc | EthDst => (number::ETHERNET, both(&key::ethernet)),
            NwSrc | NwDst if !is_v6 => (number::IPV4, both(&ip)),
            Ipv6Src | Ipv6Dst | Ipv6Label => (number::IPV6, both(&|g| key::ipv6(g, 0))),
            NwTos | NwTtl => (ip_number, both(&ip)),
            TpSrc | TpDst => {
                let attr = match self.m.get(NwProto).0 {
                    6 => number::TCP,
                    17 => number::UDP,
                    132 => number::SCTP,
                    _ => return Err(KdpError::Unsupported("write to this header's ports")),
                };
                (attr, both(&key::ports))
            }
            PktMark => (number::SKB_MARK, both(&|g| (g(PktMark) as u32).to_ne_bytes().to_vec())),
            MplsLse0 => (number::MPLS, both(&|g| (g(MplsLse0) as u32).to_be_bytes().to_vec())),
            _ => return Err(KdpError::Unsupported("write to this field")),
        };
        let n = w.nest(SET_MASKED | NESTED);
        w.attr(attr, &body);
        w.end(n);
        Ok(())
    }
}

fn put_ct(w: &mut Writer, c: &CtAction) -> Result<(), KdpError> {
    let n = w.nest(CT | NESTED);
    if c.commit {
        // OVS_CT_ATTR_FORCE_COMMIT, OVS_CT_ATTR_COMMIT.
        w.attr(if c.force { 7 } else { 1 }, &[]);
    }
    // Zone 0 is what there is without naming one, also in kernels without zones.
    if c.zone != 0 {
        w.u16(2, c.zone);
    }
    if c.mark.1 != 0 {
        w.attr(3, &[c.mark.0.to_ne_bytes(), c.mark.1.to_ne_bytes()].concat());
    }
    if c.label.1 != 0 {
        w.attr(4, &[c.label.0.to_ne_bytes(), c.label.1.to_ne_bytes()].concat());
    }
    if let Some(h) = c.helper {
        w.text(5, h.name());
    }
    if let Some(nat) = &c.nat {
        let inner = w.nest(6 | NESTED);
        if let Some(r) = nat {
            w.attr(if r.end == NatEnd::Src { 1 } else { 2 }, &[]);
            if let Some((min, max)) = r.addresses {
                for (attr, a) in [(3, min), (4, max)] {
                    match a {
                        IpAddr::V4(a) => w.attr(attr, &a.octets()),
                        IpAddr::V6(a) => w.attr(attr, &a.octets()),
                    }
                }
            }
            if let Some((min, max)) = r.ports {
                w.u16(5, min);
                w.u16(6, max);
            }
            if r.persistent {
                w.attr(7, &[]);
            }
            match r.choice {
                NatChoice::Any => {}
                NatChoice::Hash => w.attr(8, &[]),
                NatChoice::Random => w.attr(9, &[]),
            }
        }
        w.end(inner);
    }
    w.end(n);
    Ok(())
}
