//! Round trips of random filters, and bytes that are no messages.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use offload_tc::ack::Ack;
use offload_tc::action::{
    Ct, CtNat, MAX_ACTIONS, MirredMode, PeditCmd, PeditHeader, PeditKey, Police, Skbedit, TunnelSet,
    VlanAction,
};
use offload_tc::message::{Add, add_filter, messages, read_shared_action};
use offload_tc::tunnel_opts::{CfmMatch, LseMatch, TunnelOpt};
use offload_tc::wire::Writer;
use offload_tc::{ActionSpec, Cookie, FilterAt, Flower, Head, Hook, KEYS, TcAction, Verdict};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

fn opt() -> impl Strategy<Value = TunnelOpt> {
    prop_oneof![
        (any::<u16>(), any::<u8>(), vec(any::<[u8; 4]>(), 1..8))
            .prop_map(|(class, kind, d)| TunnelOpt::Geneve { class, kind, data: d.concat() }),
        any::<u32>().prop_map(TunnelOpt::VxlanGbp),
        (any::<u8>(), any::<u32>(), any::<u8>(), any::<u8>())
            .prop_map(|(version, index, dir, hwid)| TunnelOpt::Erspan { version, index, dir, hwid }),
        (any::<u8>(), any::<u8>()).prop_map(|(pdu_type, qfi)| TunnelOpt::Gtp { pdu_type, qfi }),
        (any::<u8>(), any::<u64>()).prop_map(|(kind, seid)| TunnelOpt::Pfcp { kind, seid }),
    ]
}

fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        any::<(u32, u32)>().prop_map(|(a, b)| (Ipv4Addr::from(a).into(), Ipv4Addr::from(b).into())),
        any::<(u128, u128)>().prop_map(|(a, b)| (Ipv6Addr::from(a).into(), Ipv6Addr::from(b).into())),
    ]
}

fn ct() -> impl Strategy<Value = ActionSpec> {
    let nat = (of(any::<bool>()), of(addresses()), of(any::<(u16, u16)>()))
        .prop_map(|(source, addresses, ports)| CtNat { source, addresses, ports });
    let mark = of((any::<u32>(), 1..u32::MAX));
    let label = of((any::<[u8; 16]>(), Just([0xf0; 16])));
    (of(any::<u16>()), any::<[bool; 3]>(), mark, label, of(nat), of(any::<u8>())).prop_map(
        |(zone, [commit, force, clear], mark, label, nat, helper)| {
            let helper = helper.map(|p| ("ftp".to_string(), 2, p));
            ActionSpec::Ct(Box::new(Ct { zone, commit, force, clear, mark, label, nat, helper }))
        },
    )
}

fn pedit() -> impl Strategy<Value = ActionSpec> {
    let header = prop_oneof![
        Just(PeditHeader::Network),
        Just(PeditHeader::Eth),
        Just(PeditHeader::Ip4),
        Just(PeditHeader::Ip6),
        Just(PeditHeader::Tcp),
        Just(PeditHeader::Udp)
    ];
    let key = (header, any::<bool>(), 0..20u32, any::<[u8; 4]>(), any::<[u8; 4]>());
    let key = key.prop_map(|(header, add, at, keep, value)| {
        let cmd = if add { PeditCmd::Add } else { PeditCmd::Set };
        PeditKey { header, cmd, offset: at * 4, keep, value }
    });
    vec(key, 1..12).prop_map(ActionSpec::Pedit)
}

fn spec() -> impl Strategy<Value = ActionSpec> {
    let byte = || of(any::<u8>());
    prop_oneof![
        Just(ActionSpec::Gact),
        (0..4usize, any::<u32>()).prop_map(|(m, ifindex)| {
            use MirredMode::{EgressMirror, EgressRedirect, IngressMirror, IngressRedirect};
            let mode = [EgressMirror, EgressRedirect, IngressMirror, IngressRedirect][m];
            ActionSpec::Mirred { mode, ifindex }
        }),
        prop_oneof![
            Just(VlanAction::Pop),
            Just(VlanAction::PopEth),
            any::<([u8; 6], [u8; 6])>().prop_map(|(dst, src)| VlanAction::PushEth { dst, src }),
            any::<(u16, u16, u8)>().prop_map(|(proto, vid, prio)| VlanAction::Push { proto, vid, prio }),
            (any::<(u16, u16)>(), of(any::<u8>())).prop_map(|((proto, vid), prio)| VlanAction::Modify {
                proto,
                vid,
                prio
            }),
        ]
        .prop_map(ActionSpec::Vlan),
        pedit(),
        any::<u32>().prop_map(ActionSpec::Csum),
        Just(ActionSpec::TunnelUnset),
        (addresses(), of(any::<u32>()), any::<u16>(), any::<[bool; 2]>(), vec(opt(), 0..4), of(1u8..))
            .prop_map(|((src, dst), id, dst_port, [no_csum, no_frag], opts, tos)| {
                let src = Some(src);
                let t = TunnelSet { src, dst, id, dst_port, tos, ttl: tos, no_csum, no_frag, opts };
                ActionSpec::TunnelSet(Box::new(t))
            }),
        ct(),
        (1..1u64 << 40, 1..1u64 << 20).prop_map(|(r, b)| ActionSpec::Police(Police::bytes(r, b))),
        (1..1u64 << 30, 1..1u64 << 20).prop_map(|(r, b)| ActionSpec::Police(Police::packets(r, b))),
        (of(any::<u32>()), of(any::<u16>()), of(any::<(u32, u32)>()), of(any::<u16>())).prop_map(
            |(priority, queue, mark, ptype)| ActionSpec::Skbedit(Skbedit { priority, queue, mark, ptype })
        ),
        any::<u16>().prop_map(|proto| ActionSpec::MplsPop { proto }),
        Just(ActionSpec::MplsDecTtl),
        (any::<(u16, u32)>(), byte(), byte(), byte())
            .prop_map(|((proto, label), tc, ttl, bos)| ActionSpec::MplsPush { proto, label, tc, ttl, bos }),
        (of(any::<u32>()), byte(), byte(), byte()).prop_map(|(label, tc, ttl, bos)| ActionSpec::MplsModify {
            label,
            tc,
            ttl,
            bos
        }),
        (any::<(u32, u32)>(), of(any::<u32>())).prop_map(|((rate, group), trunc)| ActionSpec::Sample {
            rate,
            group,
            trunc
        }),
    ]
}

fn action() -> impl Strategy<Value = TcAction> {
    let verdict = prop_oneof![
        Just(Verdict::Pipe),
        Just(Verdict::Drop),
        Just(Verdict::Pass),
        Just(Verdict::Stolen),
        Just(Verdict::Trap),
        (0..1u32 << 28).prop_map(Verdict::Goto),
        (0..1u32 << 28).prop_map(Verdict::Jump),
    ];
    let cookie = of(vec(any::<u8>(), 1..=16).prop_map(|b| Cookie::new(&b).unwrap()));
    (spec(), verdict, any::<u32>(), cookie, of(1u8..4), 0..8u32).prop_map(
        |(spec, verdict, index, cookie, hw_stats, flags)| TcAction {
            spec,
            verdict,
            index,
            cookie,
            hw_stats,
            flags,
        },
    )
}

fn flower() -> impl Strategy<Value = Flower> {
    let keys = vec((0..KEYS.len(), any::<u128>(), any::<u128>()), 0..12);
    let lse = (1..8u8, of(any::<u8>()), of(any::<u32>())).prop_map(|(depth, ttl, label)| LseMatch {
        depth,
        ttl,
        label,
        bos: None,
        tc: None,
    });
    let opts = of((vec(opt(), 1..4), vec(opt(), 1..4)));
    let cfm = of(any::<u8>()).prop_map(|l| l.map(|l| CfmMatch { level: Some(l), opcode: None }));
    (keys, opts, vec(lse, 0..4), cfm, 0..32u32, vec(action(), 1..6)).prop_map(
        |(keys, enc_opts, mpls, cfm, flags, actions)| {
            let flags = flags & offload_tc::filter::flags::WRITTEN;
            let mut f = Flower { enc_opts, mpls, cfm, flags, actions, ..Flower::default() };
            for (i, v, mask) in keys {
                let row = &KEYS[i];
                match mask & row.max {
                    0 => {}
                    mask if row.mask_attr.is_some() => f.set_masked(row.id, v, mask),
                    _ => f.set(row.id, v & row.max),
                }
            }
            f
        },
    )
}

fn place() -> impl Strategy<Value = FilterAt> {
    let hook = prop_oneof![
        (1..1000u32).prop_map(Hook::Ingress),
        (1..1000u32).prop_map(Hook::Egress),
        (1..1000u32).prop_map(Hook::Block)
    ];
    (hook, any::<(u32, u16, u16)>(), 1..u32::MAX)
        .prop_map(|(hook, (chain, prio, protocol), handle)| FilterAt { hook, chain, prio, protocol, handle })
}

/// Whatever reads bytes from the kernel.
fn read_all(b: &[u8]) {
    for m in messages(b).flatten() {
        if let Ok(Some(h)) = Head::read(m.body) {
            let _ = (h.flower(), h.terse(), h.kind());
        }
        let _ = (Ack::read(m.flags, m.body), Ack::read_done(m.flags, m.body), read_shared_action(m.body));
    }
    let _ = Ack { offset: Some(b.len() as u32 / 2), ..Ack::default() }.attribute(b);
    let _ = Flower::get_options(b);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_filter_comes_back_as_it_was_written(at in place(), f in flower()) {
        let mut w = Writer::new();
        add_filter(&mut w, 1, &at, &f, Add::New);
        let m = messages(w.bytes()).next().unwrap().unwrap();
        let h = Head::read(m.body).unwrap().unwrap();
        let (back, report) = h.flower().unwrap();
        prop_assert_eq!(h.at, at);
        prop_assert_eq!(&back, &f);
        prop_assert!(report.unknown.is_empty());
        // A policer's is that of whoever shares it.
        let own = f.actions.iter().find(|a| !matches!(a.spec, ActionSpec::Police(_))).unwrap_or(&f.actions[0]);
        prop_assert_eq!(h.terse().unwrap().cookie, own.cookie);
    }

    #[test]
    fn a_message_that_was_cut_off_is_an_error_or_less_of_it(f in flower(), cut in any::<prop::sample::Index>()) {
        let mut w = Writer::new();
        f.put(&mut w);
        let b = &w.bytes()[..cut.index(w.len())];
        if let Ok((less, _)) = Flower::get_options(b) {
            prop_assert!(less.keys.len() <= f.keys.len() && less.actions.len() <= f.actions.len());
        }
    }

    #[test]
    fn bytes_that_were_changed_never_panic(at in place(), f in flower(), flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..20)) {
        let mut w = Writer::new();
        add_filter(&mut w, 1, &at, &f, Add::New);
        let mut b = w.bytes().to_vec();
        for (i, v) in flips {
            let i = i.index(b.len());
            b[i] = v;
        }
        read_all(&b);
        read_all(&b[16..]);
    }

    #[test]
    fn random_bytes_never_panic(b in vec(any::<u8>(), 0..400)) {
        read_all(&b);
    }
}

#[test]
fn more_actions_than_the_kernel_knows_are_refused() {
    let f = Flower { actions: vec![TcAction::verdict(Verdict::Pipe); MAX_ACTIONS + 1], ..Flower::default() };
    let mut w = Writer::new();
    f.put(&mut w);
    assert!(Flower::get_options(w.bytes()).is_err());
}
