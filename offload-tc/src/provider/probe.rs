//! What a device can do, found out by asking it: filters that need one thing each are put into a chain that no packet reaches,
//! and taken out again.

use flow::{ActionKind, FieldId};
use nix::errno::Errno;

use super::{TcProvider, place};
use crate::action::{ActionSpec, Police, TcAction, Verdict, VlanAction};
use crate::capability::Missing;
use crate::filter::{FilterAt, Flower, Head, Hook};
use crate::keys::FlowerKey;
use crate::message::{self, Add};
use crate::transport::Transport;
use crate::tunnel_opts::LseMatch;

/// A chain that nothing leads to.
const NOWHERE: u32 = 0x0f0f_0f0f;

struct Probe {
    protocol: u16,
    flower: Flower,
    fields: Vec<FieldId>,
    actions: Vec<ActionKind>,
}

fn keys(protocol: u16, keys: &[(FlowerKey, u128)], fields: &[FieldId]) -> Probe {
    let mut flower = Flower::default();
    flower.set(FlowerKey::EthType, protocol.into());
    keys.iter().for_each(|(k, v)| flower.set(*k, *v));
    flower.actions = vec![TcAction::verdict(Verdict::Drop)];
    Probe { protocol, flower, fields: fields.to_vec(), actions: Vec::new() }
}

fn action(protocol: u16, spec: ActionSpec, actions: &[ActionKind]) -> Probe {
    let mut p = keys(protocol, &[], &[]);
    p.flower.actions.insert(0, TcAction::pipe(spec));
    p.actions = actions.to_vec();
    p
}

fn probes() -> Vec<Probe> {
    use FieldId::*;
    use FlowerKey as K;
    let deep = LseMatch { depth: 2, label: Some(1), ..LseMatch::default() };
    let mut stack = keys(0x8847, &[], &[MplsLse1, MplsLse2]);
    stack.flower.mpls = vec![deep];
    let qinq = [(K::VlanEthType, 0x8100), (K::CvlanId, 1), (K::CvlanEthType, 0x0800)];
    let police = ActionSpec::Police(Police::packets(1000, 10));
    let push = VlanAction::Push { proto: 0x8100, vid: 1, prio: 0 };
    vec![
        keys(0x88a8, &qinq, &[VlanTci2, VlanTpid2]),
        keys(0x0800, &[(K::IpTos, 4)], &[NwTos]),
        keys(0x0800, &[(K::IpTtl, 64)], &[NwTtl]),
        keys(0x0800, &[(K::IpProto, 6), (K::TcpFlags, 2)], &[TcpFlags]),
        keys(0x0806, &[(K::ArpSha, 1)], &[ArpSha, ArpTha]),
        keys(0x8847, &[(K::MplsLabel, 5)], &[MplsLse0, MplsLse1, MplsLse2]),
        stack,
        action(0x0800, ActionSpec::Vlan(push), &[ActionKind::PushVlan, ActionKind::PopVlan]),
        action(0x0800, police, &[ActionKind::Meter]),
        action(0x8847, ActionSpec::MplsPop { proto: 0x0800 }, &[ActionKind::PopMpls, ActionKind::PushMpls]),
    ]
}

impl<T: Transport> TcProvider<T> {
    /// Asks what an interface's filters can do; what they cannot. Notes whether any is in hardware.
    pub(super) fn probe(&mut self, ifindex: u32) -> Missing {
        let mut missing = Missing::default();
        self.hardware.remove(&ifindex);
        for (n, mut p) in (1..).zip(probes()) {
            p.flower.flags = self.config.policy.flags();
            if let Some(a) = p.flower.actions.first_mut() {
                // A probe that is left behind is found and removed like any other filter.
                a.cookie = place::cookie(self.config.owner, flow::FlowId(u64::MAX));
            }
            let (hook, chain) = (Hook::Ingress(ifindex), NOWHERE);
            let at = FilterAt { hook, chain, prio: n, protocol: p.protocol, handle: 1 };
            let answer = self.ask(|w, seq| message::add_filter(w, seq, &at, &p.flower, Add::Replace));
            match answer {
                Ok(ack) if ack.errno == 0 => {
                    let mut in_hw = false;
                    let _ = self.ask_for(|w, seq| message::get_filter(w, seq, &at), &mut |m| {
                        let told = Head::read(m.body).ok().flatten().and_then(|h| h.terse().ok());
                        in_hw = told.is_some_and(|t| t.in_hw);
                    });
                    if in_hw {
                        self.hardware.insert(ifindex);
                    }
                    let _ = self.ask(|w, seq| message::delete_filter(w, seq, &at));
                }
                Ok(ack) if is_incapable(Errno::from_raw(ack.errno)) => {
                    tracing::info!("{}: interface {ifindex}: {}", self.config.name, ack.text);
                    missing.fields.extend(&p.fields);
                    missing.actions.extend(&p.actions);
                }
                // It will be told of each rule that needs it.
                Ok(_) | Err(_) => {}
            }
        }
        missing
    }
}

/// Whether a refusal means that it can never be had, not that something else is wrong.
fn is_incapable(e: Errno) -> bool {
    matches!(e, Errno::EOPNOTSUPP | Errno::ENOENT | Errno::EINVAL)
}
