//! Random actions of a version.

use openflow::extension::*;

use super::*;

fn learn(r: &mut Source) -> Learn {
    let specs = some(r, 5, |r| {
        let bits = r.random_range(1..=32);
        let value = r.random();
        let src = if value {
            LearnSource::Value(r.random::<u128>() >> (128 - u32::from(bits)))
        } else {
            LearnSource::Field(subfield(r, bits))
        };
        let dst = match r.random_range(0..if value { 2 } else { 3 }) {
            0 => LearnTarget::Match(subfield(r, bits)),
            1 => LearnTarget::Load(subfield(r, bits)),
            _ => LearnTarget::Output,
        };
        LearnSpec { bits, src, dst }
    });
    let result = r.random::<bool>().then(|| subfield(r, 1));
    let flags = r.random_range(0..4) | if result.is_some() { 4 } else { 0 };
    Learn {
        idle_timeout: r.random(),
        hard_timeout: r.random(),
        priority: r.random(),
        cookie: r.random(),
        flags: LearnFlags(flags),
        table: TableId(r.random_range(0..255)),
        fin_idle_timeout: r.random(),
        fin_hard_timeout: r.random(),
        limit: if r.random() { 0 } else { r.random() },
        result,
        specs,
    }
}

fn nat(r: &mut Source) -> Nat {
    let addresses = match r.random_range(0..3) {
        0 => None,
        1 => {
            let low: u32 = r.random_range(1..0x8000_0000);
            let high = r.random::<bool>().then(|| (low + 7).into());
            Some(NatAddresses::V4(low.into(), high))
        }
        _ => {
            let low: u128 = r.random_range(1..u128::MAX / 2);
            let high = r.random::<bool>().then(|| (low + 9).into());
            Some(NatAddresses::V6(low.into(), high))
        }
    };
    let ports = (addresses.is_some() && r.random()).then(|| {
        let low = r.random_range(1..1000);
        (low, r.random::<bool>().then_some(low + 5))
    });
    Nat { flags: NatFlags(pick(r, &[0, 1, 2, 5, 9, 18])), addresses, ports }
}

fn ct(r: &mut Source) -> Ct {
    let commit = r.random::<bool>();
    let mut actions = Vec::new();
    if commit && r.random() {
        let (value, mask) = (r.random::<u32>().into(), u128::from(u32::MAX));
        actions.push(Action::SetField { field: FieldId::CtMark, value, mask });
    }
    if r.random() {
        let mut n = nat(r);
        if !commit {
            n.flags.0 &= !3;
        }
        actions.push(Action::Nat(Box::new(n)));
    }
    // OpenFlow 1.0 and 1.1 say a set of a register by loads.
    if r.v < Version::V12 {
        actions.retain(|a| matches!(a, Action::Nat(_)));
    }
    let force = commit && r.random();
    Ct {
        flags: CtFlags(u16::from(commit) | if force { 2 } else { 0 }),
        zone: if r.random() { CtZone::Value(r.random()) } else { CtZone::Field(subfield(r, 16)) },
        table: r.random::<bool>().then(|| TableId(r.random_range(0..255))),
        alg: pick(r, &[0, 21, 69]),
        actions,
    }
}

fn encap(r: &mut Source) -> Encap {
    let properties = some(r, 2, |r| {
        if r.random() {
            EncapProperty::NshMdType(r.random())
        } else {
            EncapProperty::NshTlv { class: r.random(), kind: r.random(), data: bytes(r) }
        }
    });
    let packet_type = pick(r, &[0, 0x0001_894f, 0x0001_8847, 0x0001_8848]);
    Encap { packet_type, header_bytes: r.random(), properties }
}

pub(super) fn action(r: &mut Source) -> Action {
    nested_action(r, 0)
}

fn nested_action(r: &mut Source, depth: u32) -> Action {
    match r.random_range(0..52) {
        0 => Action::Output { port: port(r), max_len: r.random() },
        1 => Action::Group(GroupId(r.random())),
        2 => Action::SetQueue(QueueNo(r.random())),
        3 if r.v > Version::V10 => Action::SetNwTtl(r.random()),
        4 => Action::DecNwTtl { controllers: some(r, 5, |r| r.random()) },
        5 => Action::SetMplsTtl(r.random()),
        6 => Action::DecMplsTtl,
        7 if r.v > Version::V10 => Action::CopyTtlOut,
        8 if r.v > Version::V10 => Action::CopyTtlIn,
        9 if r.v > Version::V10 => Action::PushVlan(pick(r, &[0x8100, 0x88a8])),
        10 if r.v > Version::V10 => Action::PopVlan,
        10 => Action::StripVlan,
        11 => Action::PushMpls(pick(r, &[0x8847, 0x8848])),
        12 => Action::PopMpls(r.random()),
        13 if r.v >= Version::V13 => Action::PushPbb(0x88e7),
        14 if r.v >= Version::V13 => Action::PopPbb,
        15 | 16 if r.v >= Version::V12 => {
            let s = subfield(r, 1);
            let max = s.field.info().max();
            if s.field == FieldId::InPort {
                return Action::SetField { field: s.field, value: port(r).0.into(), mask: max };
            }
            let whole = r.v < Version::V15 || r.random();
            let mask = if whole { max } else { (r.random::<u128>() & max) | 1 };
            Action::SetField { field: s.field, value: r.random::<u128>() & mask, mask }
        }
        17 if r.v < Version::V15 => {
            let bits = r.random_range(1..=32);
            let dst = subfield(r, bits);
            Action::RegLoad { dst, value: r.random::<u64>() >> (64 - bits) }
        }
        18 => {
            let bits = r.random_range(1..=32);
            Action::RegMove { src: any_subfield(r, bits), dst: any_subfield(r, bits) }
        }
        19 => {
            let bits = r.random_range(1..=32);
            Action::OutputReg { src: subfield(r, bits), max_len: r.random() }
        }
        20 => Action::Resubmit {
            port: port(r),
            table: r.random::<bool>().then(|| TableId(r.random_range(0..255))),
            with_ct: r.random(),
        },
        21 => Action::Controller {
            max_len: r.random(),
            controller_id: r.random(),
            reason: r.random_range(0..3),
            userdata: if r.random() { Vec::new() } else { bytes(r) },
            pause: r.random(),
            meter: r.random::<bool>().then(|| MeterNo(r.random())),
        },
        22 if r.v < Version::V12 => {
            let wide = r.random();
            Action::SetTunnel { id: if wide { r.random() } else { r.random::<u32>().into() }, wide }
        }
        23 => Action::PopQueue,
        24 => Action::OutputTrunc { port: port(r), max_len: r.random_range(14..9000) },
        25 if r.v <= Version::V11 => {
            let push = r.v == Version::V10;
            Action::SetVlanVid { vid: r.random_range(0..4096), push }
        }
        26 if r.v <= Version::V11 => {
            let push = r.v == Version::V10;
            Action::SetVlanPcp { pcp: r.random_range(0..8), push }
        }
        27 if r.v <= Version::V11 => {
            use FieldId::*;
            let field = pick(r, &[EthSrc, EthDst, NwSrc, NwDst, IpDscp, TpSrc, TpDst, MplsLabel, MplsTc]);
            Action::SetLegacy { field, value: r.random::<u64>() & field.info().max() as u64 }
        }
        28 if r.v == Version::V10 => Action::Enqueue { port: PortNo(9), queue: QueueNo(r.random()) },
        29 => {
            let bits = r.random_range(1..=32);
            Action::StackPush(any_subfield(r, bits))
        }
        30 => {
            let bits = r.random_range(1..=32);
            Action::StackPop(any_subfield(r, bits))
        }
        31 => Action::Learn(Box::new(learn(r))),
        32 => Action::Bundle(Box::new(Bundle {
            fields: r.random_range(0..7),
            basis: r.random(),
            algorithm: r.random_range(0..2),
            members: some(r, 5, port),
            dst: r.random::<bool>().then(|| subfield(r, 16)),
        })),
        33 => Action::Multipath(Box::new(Multipath {
            fields: r.random_range(0..7),
            basis: r.random(),
            algorithm: r.random_range(0..4),
            max_link: r.random(),
            arg: r.random(),
            dst: subfield(r, 16),
        })),
        34 => Action::Conjunction { id: r.random(), clause: r.random_range(0..3), n_clauses: 3 },
        35 => Action::FinTimeout { idle: r.random(), hard: r.random() },
        36 => Action::Sample(Box::new(Sample {
            probability: r.random_range(1..=u16::MAX),
            collector_set: r.random(),
            domain: r.random(),
            point: r.random(),
            port: pick(r, &[PortNo(1), PortNo::ANY]),
            direction: r.random_range(0..3),
        })),
        37 | 38 if depth < 3 => Action::Ct(Box::new(ct(r))),
        39 | 40 if depth < 3 => Action::Clone(some(r, 3, |r| nested_action(r, depth + 1))),
        41 => Action::CtClear,
        42 => Action::CheckPktLarger(Box::new(CheckPktLarger { bytes: r.random(), dst: subfield(r, 1) })),
        43 if r.v >= Version::V13 => Action::Encap(Box::new(encap(r))),
        44 if r.v >= Version::V13 => Action::Decap { packet_type: r.random() },
        45 if r.v >= Version::V13 => Action::DecNshTtl,
        46 => Action::DeleteField(subfield(r, 1).field),
        47 => Action::DebugRecirc,
        48 => Action::DebugSlow,
        49 => Action::Exit,
        _ => {
            // Ten bytes of header: a note of six and then multiples of eight is not padded.
            let n = 6 + 8 * r.random_range(0..4);
            Action::Note((0..n).map(|_| r.random()).collect())
        }
    }
}

/// Where a pipeline paused.
pub fn continuation(r: &mut Source) -> Continuation {
    let mut rest = Vec::new();
    for _ in 0..r.random_range(0..4) {
        if r.random() {
            rest.push(Remainder::Origin { table: TableId(r.random()), cookie: r.random() });
        }
        rest.push(Remainder::Actions(actions(r)));
    }
    Continuation {
        bridge: r.random(),
        stack: some(r, 3, |r| some(r, 16, |r| r.random())),
        mirrors: r.random(),
        tracked: r.random(),
        rest,
        action_set: actions(r),
    }
}
