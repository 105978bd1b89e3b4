//! From actions to text.

use std::fmt::Write;

use super::attr::{self, Form, Group};
use super::format_match::tunnel_flags;
use crate::action::Action;
use crate::field::FieldId as F;
use crate::headers::{eth_type, ip_proto};
use crate::key::{Key, PacketKey};
use crate::nsh;
use crate::prereq::ether_type;
use crate::text::value::{PortName, hex, quote_name};
use crate::tunnel::options;

/// What packets the actions are for. Fields share bits, so that "set `nw_src`" is `ipv4(src=..)` for one packet and
/// `arp(sip=..)` for another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Context {
    /// Ethernet type.
    pub eth_type: u16,
    /// IP protocol.
    pub proto: u8,
}

impl Default for Context {
    /// TCP over IPv4.
    fn default() -> Self {
        Context { eth_type: eth_type::IPV4, proto: ip_proto::TCP }
    }
}

impl Context {
    /// From the key of a packet or a match.
    pub fn of<const N: usize>(key: &Key<N>) -> Self {
        Context { eth_type: ether_type(key), proto: key.get64(F::NwProto) as u8 }
    }

    fn group(self, f: F) -> Option<&'static Group> {
        let v6 = self.eth_type == eth_type::IPV6;
        let arp = matches!(self.eth_type, eth_type::ARP | eth_type::RARP);
        Some(match f {
            F::EthSrc | F::EthDst => &attr::ETH,
            f if nsh::is_field(f) => &attr::NSH,
            F::NwSrc | F::NwDst | F::NwProto if arp => &attr::ARP,
            F::ArpSha | F::ArpTha if !v6 => &attr::ARP,
            F::NdTarget | F::ArpSha | F::ArpTha => &attr::ND,
            F::Ipv6Src | F::Ipv6Dst | F::Ipv6Label => &attr::IPV6,
            F::NwProto | F::NwTos | F::NwTtl | F::NwFrag if v6 => &attr::IPV6,
            F::NwSrc | F::NwDst | F::NwProto | F::NwTos | F::NwTtl | F::NwFrag => &attr::IPV4,
            F::TpSrc | F::TpDst => match self.proto {
                ip_proto::UDP => &attr::UDP,
                ip_proto::SCTP => &attr::SCTP,
                ip_proto::ICMP => &attr::ICMP,
                ip_proto::ICMPV6 => &attr::ICMPV6,
                _ => &attr::TCP,
            },
            F::TunGbpId | F::TunGbpFlags | F::TunFlags => &attr::TUNNEL,
            F::TunErspanVer | F::TunErspanIdx | F::TunErspanDir | F::TunErspanHwid => &attr::TUNNEL,
            F::TunGtpuFlags | F::TunGtpuMsgtype => &attr::TUNNEL,
            f if options::is_word(f) => &attr::TUNNEL,
            _ if attr::TUNNEL.subs.iter().any(|s| s.field == f) => &attr::TUNNEL,
            _ => return None,
        })
    }
}

/// Fields with a tunnel's metadata that are never left out.
const TUNNEL_FIELDS: usize = 12;

/// Writes `actions` for packets of `context`; ports that `ports` knows by name. `drop` when there are none. Neighbouring
/// set-field actions on one header are written as one `set(..)`.
pub fn format_actions(actions: &[Action], context: Context, ports: PortName<'_>) -> String {
    let mut out = String::with_capacity(32);
    write_actions(&mut out, actions, context, ports);
    out
}

fn write_actions(out: &mut String, actions: &[Action], mut context: Context, ports: PortName<'_>) {
    if actions.is_empty() {
        out.push_str("drop");
    }
    let mut i = 0;
    while let Some(action) = actions.get(i) {
        if i > 0 {
            out.push(',');
        }
        i += 1;
        let _ = match action {
            Action::Output(p) => match ports(p.0) {
                Some(n) => write!(out, "{}", quote_name(&n)),
                None => write!(out, "{}", p.0),
            },
            Action::Controller(c) if c.reason.slow_path().is_some() => {
                write!(out, "userspace(pid=0,slow_path({}))", c.reason.slow_path().unwrap_or_default())
            }
            Action::Controller(c) => write!(
                out,
                "userspace(pid=0,controller(reason={},dont_send={},continuation={},recirc_id={},rule_cookie={},\
                 controller_id={},max_len={}))",
                c.reason as u8,
                u8::from(c.dont_send),
                u8::from(c.continuation),
                c.recirc_id,
                hex(c.cookie.into()),
                c.controller_id,
                c.max_len
            ),
            Action::SetField { field, .. } => {
                let run = run_length(&actions[i - 1..], *field, context);
                write_set(out, &actions[i - 1..i - 1 + run], context.group(*field));
                i += run - 1;
                Ok(())
            }
            Action::DecTtl => write!(out, "dec_ttl"),
            Action::PushVlan { tpid, tci } => {
                out.push_str("push_vlan(");
                if *tpid != eth_type::VLAN {
                    let _ = write!(out, "tpid=0x{tpid:04x},");
                }
                write!(out, "vid={},pcp={})", tci & 0xfff, tci >> 13)
            }
            Action::PopVlan => write!(out, "pop_vlan"),
            Action::PushMpls { eth_type, lse } => {
                context.eth_type = *eth_type;
                out.push_str("push_mpls(");
                attr::write_lse(out, *lse);
                write!(out, ",eth_type={eth_type:#x})")
            }
            Action::PopMpls { eth_type } => {
                context.eth_type = *eth_type;
                write!(out, "pop_mpls(eth_type={eth_type:#x})")
            }
            Action::AddMpls { eth_type, lse } => {
                context.eth_type = *eth_type;
                out.push_str("add_mpls(");
                attr::write_lse(out, *lse);
                write!(out, ",eth_type={eth_type:#x})")
            }
            Action::PushEth { src, dst } => write!(out, "push_eth(src={src},dst={dst})"),
            Action::PopEth => write!(out, "pop_eth"),
            Action::PushNsh(h) => {
                context.eth_type = eth_type::NSH;
                super::nsh::write_push(out, h);
                Ok(())
            }
            Action::PopNsh => write!(out, "pop_nsh()"),
            Action::Recirc(id) => write!(out, "recirc({id:#x})"),
            Action::Ct(c) => {
                super::ct::write_ct(out, c);
                Ok(())
            }
            Action::CtClear => write!(out, "ct_clear"),
            Action::LbOutput(bond) => write!(out, "lb_output({})", bond.0),
            Action::Hash { alg, basis } => write!(out, "hash({}({basis}))", alg.name()),
            Action::Meter(m) => write!(out, "meter({})", m.0),
            Action::TunnelPush(p) => {
                crate::tunnel::write_push(out, p, ports);
                Ok(())
            }
            Action::TunnelPop { port, .. } => match ports(port.0) {
                Some(n) => write!(out, "tnl_pop({})", quote_name(&n)),
                None => write!(out, "tnl_pop({})", port.0),
            },
            Action::Trunc(n) => write!(out, "trunc({n})"),
            Action::Clone(inner) => {
                out.push_str("clone(");
                write_actions(out, inner, context, ports);
                write!(out, ")")
            }
            Action::Sample(s) => {
                let percent = 100.0 * f64::from(s.probability) / f64::from(u32::MAX);
                let _ = write!(out, "sample(sample={percent:.1}%,actions(");
                write_actions(out, &s.actions, context, ports);
                write!(out, "))")
            }
            Action::Export(e) => {
                super::export::write_export(out, e, ports);
                Ok(())
            }
            Action::CheckLength(c) => {
                let _ = write!(out, "check_pkt_len(size={},gt(", c.bytes);
                write_actions(out, &c.longer, context, ports);
                out.push_str("),le(");
                write_actions(out, &c.others, context, ports);
                write!(out, "))")
            }
        };
    }
}

/// How many of the set-field actions at the start of `actions` fit one `set(..)`: same attribute, no field twice.
fn run_length(actions: &[Action], first: F, context: Context) -> usize {
    let Some(group) = context.group(first) else { return 1 };
    let mut seen = vec![first];
    for a in &actions[1..] {
        match a {
            Action::SetField { field, .. }
                if !seen.contains(field) && context.group(*field).is_some_and(|g| g.name == group.name) =>
            {
                seen.push(*field)
            }
            _ => break,
        }
    }
    seen.len()
}

/// Value and mask that the run of actions sets in (a view of) a canonical field, right-aligned to the view.
fn set_value(run: &[Action], view: F) -> Option<(u128, u128)> {
    let row = view.info();
    run.iter().find_map(|a| match a {
        Action::SetField { field, value, mask } if *field == view => Some((*value, *mask)),
        Action::SetField { field, value, mask } if *field == row.canon && !nsh::is_field(view) => {
            let shift = row.shift - row.canon.info().shift;
            Some((value >> shift & row.max(), mask >> shift & row.max()))
        }
        _ => None,
    })
}

fn write_set(out: &mut String, run: &[Action], group: Option<&Group>) {
    let Some(group) = group else {
        if let [Action::SetField { field, value, mask }] = run {
            write_single(out, *field, *value, *mask);
        }
        return;
    };
    let _ = write!(out, "set({}(", group.name);
    let mut sep = "";
    // All of a tunnel's metadata: what is zero goes without saying.
    let whole = group.name == attr::TUNNEL.name && run.len() >= TUNNEL_FIELDS;
    for sub in group.subs {
        if let Some((v, m)) = set_value(run, sub.field).filter(|(v, _)| !whole || *v != 0) {
            let _ = write!(out, "{sep}{}=", sub.name);
            attr::write_value(out, sub.field, sub.form, v, m);
            sep = ",";
        }
    }
    let gbp = attr::GBP.subs.iter().filter_map(|s| Some((s, set_value(run, s.field)?)));
    let gbp: Vec<_> = gbp.filter(|(_, (v, _))| !whole || *v != 0).collect();
    if !gbp.is_empty() {
        let _ = write!(out, "{sep}vxlan(gbp(");
        for (i, (sub, (v, m))) in gbp.iter().enumerate() {
            let _ = write!(out, "{}{}=", if i > 0 { "," } else { "" }, sub.name);
            attr::write_value(out, sub.field, sub.form, *v, *m);
        }
        out.push_str("))");
        sep = ",";
    }
    let mut key = PacketKey::ZERO;
    for a in run {
        if let Action::SetField { field, value, .. } = a
            && options::is_word(*field)
        {
            key.set(*field, *value);
        }
    }
    if options::any(&key) {
        let _ = write!(out, "{sep}geneve(");
        options::write_header(out, &options::header(&key));
        out.push(')');
        sep = ",";
    }
    for g in [&attr::ERSPAN, &attr::GTPU] {
        let written = g.subs.iter().filter_map(|s| Some((s, set_value(run, s.field)?)));
        let written: Vec<_> = written.filter(|(_, (v, _))| !whole || *v != 0).collect();
        for (i, (sub, (v, m))) in written.iter().enumerate() {
            let _ = match i {
                0 => write!(out, "{sep}{}({}=", g.name, sub.name),
                _ => write!(out, ",{}=", sub.name),
            };
            attr::write_value(out, sub.field, sub.form, *v, *m);
        }
        if !written.is_empty() {
            out.push(')');
            sep = ",";
        }
    }
    if let Some((v, m)) = set_value(run, F::TunFlags) {
        let _ = write!(out, "{sep}flags({})", tunnel_flags(v as u16, m as u16, false));
    }
    out.push_str("))");
}

/// Attributes that hold one field: VLAN tag, label stack entry, mark; any other by its name in the field table.
fn write_single(out: &mut String, field: F, value: u128, mask: u128) {
    match field {
        F::VlanTci => {
            out.push_str("set(vlan(");
            attr::write_vlan(out, value as u16 | 0x1000, mask as u16, false);
        }
        F::MplsLse0 => {
            out.push_str("set(mpls(");
            if mask == 0xffff_ffff {
                attr::write_lse(out, value as u32);
            } else {
                attr::write_lse_masked(out, value as u32, mask as u32);
            }
        }
        _ => {
            let name =
                attr::HEX_ATTRS.iter().find(|(_, f)| *f == field).map_or(field.info().name, |(n, _)| n);
            let _ = write!(out, "set({name}(");
            attr::write_value(out, field, Form::Hex, value, mask);
        }
    }
    out.push_str("))");
}
