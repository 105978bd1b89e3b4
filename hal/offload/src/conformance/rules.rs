//! Packets and rules for the conformance suite: such as a device says it can take, and random ones.

use std::sync::Arc;

use flow::{Action, ActionKind, FieldId, PacketKey, PacketMatch, PortId};

use crate::capability::{KeyField, MaskForm, OffloadCapabilities, TableCaps};
use crate::rule::{FlowId, FlowRule};
use crate::seed::Seed;

/// Fields of a key that a frame shows and that are compared after a device has forwarded it.
pub const VISIBLE: &[FieldId] = &[
    FieldId::EthDst,
    FieldId::EthSrc,
    FieldId::EthType,
    FieldId::VlanTci,
    FieldId::NwSrc,
    FieldId::NwDst,
    FieldId::Ipv6Src,
    FieldId::Ipv6Dst,
    FieldId::NwProto,
    FieldId::NwTos,
    FieldId::NwTtl,
    FieldId::TpSrc,
    FieldId::TpDst,
];

/// Fields by which the rules of the suite differ from each other.
const DISTINCT: &[FieldId] = &[
    FieldId::EthDst,
    FieldId::EthSrc,
    FieldId::NwDst,
    FieldId::NwSrc,
    FieldId::Ipv6Dst,
    FieldId::Ipv6Src,
    FieldId::TpDst,
    FieldId::TpSrc,
];

/// What a packet is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// IPv6 and TCP, otherwise IPv4 and UDP.
    pub v6_tcp: bool,
    /// With one VLAN tag.
    pub tagged: bool,
}

/// Every shape.
pub const SHAPES: [Shape; 4] = [
    Shape { v6_tcp: false, tagged: false },
    Shape { v6_tcp: true, tagged: false },
    Shape { v6_tcp: false, tagged: true },
    Shape { v6_tcp: true, tagged: true },
];

/// The `n`th packet of a shape, coming in by `port`. Packets of different `n` differ in each of their addresses and ports.
pub fn packet(shape: Shape, n: u32, port: PortId) -> PacketKey {
    let n128 = u128::from(n);
    let mut k = PacketKey::ZERO;
    k.set(FieldId::DpPort, u128::from(port.0));
    k.set(FieldId::EthDst, 0x0200_0000_0000 + n128);
    k.set(FieldId::EthSrc, 0x0600_0000_0000 + n128);
    k.set(FieldId::NwTtl, 64);
    k.set(FieldId::NwTos, 0x20);
    k.set(FieldId::TpSrc, 1024 + n128 % 30_000);
    k.set(FieldId::TpDst, 32_000 + n128 % 30_000);
    if shape.tagged {
        k.set(FieldId::VlanTci, 0x1000 | (1 + n128 % 4000));
        k.set(FieldId::VlanTpid, 0x8100);
    }
    if shape.v6_tcp {
        k.set(FieldId::EthType, 0x86dd);
        k.set(FieldId::NwProto, 6);
        k.set(FieldId::Ipv6Src, (0xfd00 << 112) + n128);
        k.set(FieldId::Ipv6Dst, (0xfd01 << 112) + n128);
        k.set(FieldId::TcpFlags, 0x10);
    } else {
        k.set(FieldId::EthType, 0x0800);
        k.set(FieldId::NwProto, 17);
        k.set(FieldId::NwSrc, 0x0a00_0000 + n128);
        k.set(FieldId::NwDst, 0x0a80_0000 + n128);
    }
    k
}

/// What must be matched for `field` to mean anything.
fn prerequisites(field: FieldId) -> &'static [FieldId] {
    match field {
        FieldId::TpSrc | FieldId::TpDst => &[FieldId::EthType, FieldId::NwProto],
        FieldId::NwSrc | FieldId::NwDst | FieldId::Ipv6Src | FieldId::Ipv6Dst => &[FieldId::EthType],
        FieldId::NwProto | FieldId::NwTos | FieldId::NwTtl | FieldId::NwFrag => &[FieldId::EthType],
        _ => &[],
    }
}

/// A rule made of parts.
pub fn rule(id: u64, matches: PacketMatch, actions: Vec<Action>) -> FlowRule {
    FlowRule { id: FlowId(id), matches, actions: actions.into(), provenance: Arc::new([]) }
}

/// A kind of rules that a device takes.
#[derive(Clone, Debug)]
pub struct Template {
    /// Shape of the packets.
    pub shape: Shape,
    /// Fields matched, with their masks.
    pub fields: Vec<(FieldId, u128)>,
}

impl Template {
    /// The match of the `n`th packet of the template.
    pub fn matches(&self, n: u32, port: PortId) -> PacketMatch {
        let k = packet(self.shape, n, port);
        let mut m = PacketMatch::ANY;
        for (f, mask) in &self.fields {
            m.set_masked(*f, k.get(*f), *mask);
        }
        m
    }
}

/// A template for each table by which the device takes a rule that sends to a port; at least one, or the device cannot be
/// tested.
pub fn templates(caps: &OffloadCapabilities) -> Vec<Template> {
    let mut out: Vec<Template> = Vec::new();
    for id in &caps.entry {
        let Some(t) = caps.table(*id) else {
            continue;
        };
        if let Some(found) = SHAPES.iter().find_map(|s| template(caps, t, *s)) {
            out.push(found);
        }
    }
    out
}

fn template(caps: &OffloadCapabilities, t: &TableCaps, shape: Shape) -> Option<Template> {
    let port = caps.ports.first()?;
    let k = packet(shape, 1, *port);
    let takes = |fields: Vec<(FieldId, u128)>| {
        let tpl = Template { shape, fields };
        let r = rule(1, tpl.matches(1, *port), vec![Action::Output(*caps.ports.get(1)?)]);
        let fits = caps.placements(&r).ok()?.iter().any(|p| p.path == [t.id]);
        let differs = tpl.fields.iter().any(|(f, m)| DISTINCT.contains(f) && m & 0xffff == 0xffff);
        (fits && differs).then_some(tpl)
    };
    let mask = |k: &KeyField| (k.field, k.mask);
    for d in DISTINCT.iter().filter(|d| k.get(**d) != 0) {
        let fields = t.key.iter().filter(|f| {
            f.required || f.field == *d || prerequisites(*d).contains(&f.field) || f.field == FieldId::DpPort
        });
        if let Some(found) = takes(fields.map(mask).collect()) {
            return Some(found);
        }
    }
    takes(t.key.iter().map(mask).collect())
}

/// A random rule that `key` matches, and whose actions make sense for it. It may or may not fit the device.
pub fn random_rule(
    seed: &mut Seed,
    caps: &OffloadCapabilities,
    id: u64,
    key: &PacketKey,
    shape: Shape,
) -> FlowRule {
    // About one table's fields, so that a good part of the rules fits, and now and then others.
    let t = seed.pick(&caps.tables).clone();
    let mut m = PacketMatch::ANY;
    if seed.percent(97) {
        m.set(FieldId::DpPort, key.get(FieldId::DpPort));
    }
    for k in &t.key {
        if k.field == FieldId::DpPort || !(k.required || seed.percent(35)) {
            continue;
        }
        // Mostly fields that the packet has; a key may have many that go with other packets.
        let has = |(f, values): &(FieldId, &[u128])| values.contains(&key.get(*f));
        if !k.needs.iter().all(has) && !seed.percent(5) {
            continue;
        }
        let bits = k.field.info().bits;
        let mask = match (k.form, seed.below(20)) {
            (_, 0) => u128::from(seed.next_u64()) << 64 | u128::from(seed.next_u64()),
            (MaskForm::Prefix, _) => {
                let n = 1 + seed.below(u64::from(bits)) as u32;
                (u128::MAX << (u32::from(bits) - n)) & k.mask
            }
            (MaskForm::OneOf(masks), 1..) => *seed.pick(masks),
            (MaskForm::Any, 1..=6) => k.mask & u128::from(seed.next_u64()),
            _ => k.mask,
        };
        m.set_masked(k.field, key.get(k.field), mask);
        for p in prerequisites(k.field).iter().chain(k.needs.iter().map(|(f, _)| f)) {
            m.set(*p, key.get(*p));
        }
    }
    if seed.percent(5) {
        let f = *seed.pick(&[FieldId::PktMark, FieldId::TcpFlags, FieldId::RecircId, FieldId::NwTtl]);
        m.set(f, key.get(f));
    }
    rule(id, m, random_actions(seed, caps, &t, shape))
}

fn random_actions(seed: &mut Seed, caps: &OffloadCapabilities, t: &TableCaps, shape: Shape) -> Vec<Action> {
    let mut tags = u32::from(shape.tagged);
    let mut out = Vec::new();
    for _ in 0..seed.below(5) {
        let kind = if seed.percent(90) && !t.actions.is_empty() {
            seed.pick(&t.actions).kind
        } else {
            *seed.pick(&[ActionKind::DecTtl, ActionKind::PushVlan, ActionKind::Output, ActionKind::PopVlan])
        };
        match kind {
            ActionKind::SetField(f) => out.extend(set_field(seed, t, f, shape, tags > 0)),
            ActionKind::DecTtl if !out.contains(&Action::DecTtl) => out.push(Action::DecTtl),
            ActionKind::PushVlan if tags == 0 => {
                tags += 1;
                out.push(Action::PushVlan { tpid: 0x8100, tci: 0x1000 | seed.below(4095) as u16 });
            }
            ActionKind::PopVlan if tags > 0 => {
                tags -= 1;
                out.push(Action::PopVlan);
            }
            ActionKind::Output => out.push(Action::Output(random_port(seed, caps))),
            _ => {}
        }
    }
    if seed.percent(90) {
        out.push(Action::Output(random_port(seed, caps)));
    }
    out
}

fn random_port(seed: &mut Seed, caps: &OffloadCapabilities) -> PortId {
    if seed.percent(3) { PortId(0x00ff_ffff) } else { *seed.pick(&caps.ports) }
}

fn set_field(seed: &mut Seed, t: &TableCaps, f: FieldId, shape: Shape, tagged: bool) -> Option<Action> {
    let there = match f {
        FieldId::EthDst | FieldId::EthSrc | FieldId::NwTos | FieldId::TpSrc | FieldId::TpDst => true,
        FieldId::VlanTci => tagged,
        FieldId::NwSrc | FieldId::NwDst => !shape.v6_tcp,
        FieldId::Ipv6Src | FieldId::Ipv6Dst => shape.v6_tcp,
        _ => false,
    };
    let offered = t.action(ActionKind::SetField(f)).map_or(f.info().max(), |c| c.bits);
    let form = t.action(ActionKind::SetField(f)).map_or(MaskForm::Any, |c| c.form);
    let mut mask = match form {
        MaskForm::OneOf(masks) if seed.percent(70) => *seed.pick(masks),
        _ if seed.percent(70) => offered,
        _ => offered & u128::from(seed.next_u64()),
    };
    let mut value = u128::from(seed.next_u64()) << 32 & f.info().max() | u128::from(seed.next_u64() >> 32);
    if f == FieldId::VlanTci {
        // The present bit stays: a tag is removed by popping it.
        value |= 0x1000;
    }
    if f == FieldId::EthDst || f == FieldId::EthSrc {
        value &= !(1 << 40);
    }
    mask &= f.info().max();
    (there && mask != 0).then_some(Action::SetField { field: f, value: value & mask, mask })
}
