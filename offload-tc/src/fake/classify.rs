//! Packets through the fake kernel's filters: chains, keys, actions.

use flow::{FieldId, PacketKey};

use super::headers::rewrite;
use super::{Outcome, State};
use crate::action::{ActionSpec, MirredMode, Police, TcAction, Verdict, VlanAction};
use crate::filter::{FilterAt, Hook};
use crate::keys::{FLAG_FIRST_FRAGMENT, FLAG_IS_FRAGMENT, FlowerKey};
use crate::misses::to_flower;

/// Chains that one packet goes through at most, as the kernel has it.
const MAX_CHAINS: usize = 4;
const PRESENT: u128 = 0x1000;

impl State {
    pub(super) fn classify(&mut self, ifindex: u32, key: &PacketKey, len_bytes: u32) -> Outcome {
        let (mut key, mut chain) = (*key, 0);
        key.set(FieldId::DpPort, 0);
        let mut out = Vec::new();
        // As software counts at ingress: without the Ethernet header and the tag that was put aside.
        let aside = if tags(&key) > 0 { 18 } else { 14 };
        let len_bytes = len_bytes.saturating_sub(aside);
        let mut hit = false;
        let block = self.links.get(&ifindex).and_then(|l| l.block);
        let hook = block.map_or(Hook::Ingress(ifindex), Hook::Block);
        for _ in 0..MAX_CHAINS {
            let first = FilterAt { hook, chain, prio: 0, protocol: 0, handle: 0 };
            let last = FilterAt { prio: u16::MAX, protocol: u16::MAX, handle: u32::MAX, ..first };
            let found = self.filters.range(first..=last).find(|(at, f)| {
                f.kind == "flower"
                    && (at.protocol == 3 || at.protocol == protocol(&key))
                    && f.flower.mpls.is_empty()
                    && f.flower.keys.iter().all(|k| value(&key, k.key).is_some_and(|v| v & k.mask == k.value))
            });
            let Some((at, f)) = found.map(|(at, f)| (*at, f.clone())) else {
                return hit.then_some(out);
            };
            hit = true;
            match self.run(&at, &f.flower.actions, &mut key, len_bytes, &mut out) {
                Verdict::Goto(c) => chain = c,
                // Passed on to the host.
                Verdict::Pass | Verdict::Pipe | Verdict::Unspec => return None,
                _ => return Some(out),
            }
        }
        Some(out)
    }

    fn policer_is_closed(&self, index: u32) -> bool {
        let shared = self.shared.get(&(super::POLICE.to_owned(), index));
        shared.is_some_and(|s| s.action.spec == ActionSpec::Police(Police::closed()))
    }

    fn run(
        &mut self,
        at: &FilterAt,
        actions: &[TcAction],
        key: &mut PacketKey,
        len_bytes: u32,
        out: &mut Vec<(u32, PacketKey)>,
    ) -> Verdict {
        let now = self.now;
        for (i, a) in actions.iter().enumerate() {
            if let Some(f) = self.filters.get_mut(at) {
                f.used = Some(now);
                if let Some(c) = f.counts.get_mut(i) {
                    (c.packets, c.bytes) = (c.packets + 1, c.bytes + u64::from(len_bytes));
                }
            }
            if let Some(s) = self.shared.get_mut(&(a.spec.kind().to_owned(), a.index)) {
                let c = &mut s.counts;
                (c.packets, c.bytes) = (c.packets + 1, c.bytes + u64::from(len_bytes));
            }
            match &a.spec {
                ActionSpec::Mirred {
                    mode: MirredMode::EgressRedirect | MirredMode::EgressMirror,
                    ifindex,
                } if self.links.contains_key(ifindex) => {
                    out.push((*ifindex, *key));
                }
                ActionSpec::Vlan(v) => vlan(v, key),
                ActionSpec::Pedit(keys) => rewrite(keys, key),
                ActionSpec::Ct(c) => {
                    key.set(FieldId::CtState, if c.clear { 0 } else { self.ct_state.into() });
                    key.set(FieldId::CtZone, c.zone.unwrap_or(0).into());
                }
                // Everything conforms to a rate, and nothing to a policer of which there is only the number.
                ActionSpec::Police(_) if self.policer_is_closed(a.index) => return Verdict::Drop,
                ActionSpec::Police(p) => match p.conform {
                    Some(Verdict::Pipe) | None => continue,
                    Some(v) => return v,
                },
                _ => {}
            }
            if a.verdict != Verdict::Pipe {
                return a.verdict;
            }
        }
        Verdict::Pipe
    }
}

fn tags(k: &PacketKey) -> usize {
    let there = |f| usize::from(k.get(f) & PRESENT != 0);
    there(FieldId::VlanTci) + there(FieldId::VlanTci2)
}

/// The type that filters' protocols are compared with.
fn protocol(k: &PacketKey) -> u16 {
    if tags(k) == 0 { k.get(FieldId::EthType) as u16 } else { k.get(FieldId::VlanTpid) as u16 }
}

/// What a packet has for a key; `None` when it does not have the header.
fn value(k: &PacketKey, key: FlowerKey) -> Option<u128> {
    use FlowerKey as K;
    let (t, n) = (k.get(FieldId::EthType), tags(k));
    let (v4, v6, arp) = (t == 0x0800, t == 0x86dd, t == 0x0806);
    let proto = k.get(FieldId::NwProto);
    let when = |is: bool, f: FieldId| is.then(|| k.get(f));
    let l4 = |p: u128, f| when((v4 || v6) && proto == p, f);
    let tci = |f, shift: u32, mask: u128| k.get(f) >> shift & mask;
    match key {
        K::EthDst => Some(k.get(FieldId::EthDst)),
        K::EthSrc => Some(k.get(FieldId::EthSrc)),
        K::EthType => Some(protocol(k).into()),
        K::VlanId => (n > 0).then(|| tci(FieldId::VlanTci, 0, 0xfff)),
        K::VlanPrio => (n > 0).then(|| tci(FieldId::VlanTci, 13, 7)),
        K::VlanEthType => (n > 0).then(|| if n == 2 { k.get(FieldId::VlanTpid2) } else { t }),
        K::CvlanId => (n > 1).then(|| tci(FieldId::VlanTci2, 0, 0xfff)),
        K::CvlanPrio => (n > 1).then(|| tci(FieldId::VlanTci2, 13, 7)),
        K::CvlanEthType => when(n > 1, FieldId::EthType),
        K::IpProto => when(v4 || v6, FieldId::NwProto),
        K::Ip4Src => when(v4, FieldId::NwSrc),
        K::Ip4Dst => when(v4, FieldId::NwDst),
        K::Ip6Src => when(v6, FieldId::Ipv6Src),
        K::Ip6Dst => when(v6, FieldId::Ipv6Dst),
        K::IpTos => when(v4 || v6, FieldId::NwTos),
        K::IpTtl => when(v4 || v6, FieldId::NwTtl),
        K::TcpSrc => l4(6, FieldId::TpSrc),
        K::TcpDst => l4(6, FieldId::TpDst),
        K::UdpSrc => l4(17, FieldId::TpSrc),
        K::UdpDst => l4(17, FieldId::TpDst),
        K::SctpSrc => l4(132, FieldId::TpSrc),
        K::SctpDst => l4(132, FieldId::TpDst),
        K::Icmp4Type => l4(1, FieldId::TpSrc),
        K::Icmp4Code => l4(1, FieldId::TpDst),
        K::Icmp6Type => l4(58, FieldId::TpSrc),
        K::Icmp6Code => l4(58, FieldId::TpDst),
        K::TcpFlags => l4(6, FieldId::TcpFlags),
        K::ArpSip => when(arp, FieldId::NwSrc),
        K::ArpTip => when(arp, FieldId::NwDst),
        K::ArpOp => when(arp, FieldId::NwProto),
        K::ArpSha => when(arp, FieldId::ArpSha),
        K::ArpTha => when(arp, FieldId::ArpTha),
        K::CtState => Some(to_flower(k.get(FieldId::CtState) as u16).into()),
        K::CtZone => Some(k.get(FieldId::CtZone)),
        K::CtMark => Some(k.get(FieldId::CtMark)),
        K::CtLabel => Some(k.get(FieldId::CtLabel)),
        K::Flags => {
            let frag = k.get(FieldId::NwFrag);
            Some(match frag & 3 {
                0 => 0,
                1 => FLAG_IS_FRAGMENT | FLAG_FIRST_FRAGMENT,
                _ => FLAG_IS_FRAGMENT,
            })
        }
        _ => None,
    }
}

fn vlan(v: &VlanAction, k: &mut PacketKey) {
    use FieldId::{VlanTci, VlanTci2, VlanTpid, VlanTpid2};
    match v {
        VlanAction::Pop => {
            for (to, from) in [(VlanTci, VlanTci2), (VlanTpid, VlanTpid2)] {
                k.set(to, k.get(from));
                k.set(from, 0);
            }
        }
        VlanAction::Push { proto, vid, prio } => {
            for (to, from) in [(VlanTci2, VlanTci), (VlanTpid2, VlanTpid)] {
                k.set(to, k.get(from));
            }
            k.set(VlanTpid, (*proto).into());
            k.set(VlanTci, PRESENT | u128::from(*vid) | u128::from(*prio) << 13);
        }
        VlanAction::Modify { proto, vid, prio } => {
            let old = k.get(VlanTci);
            let prio = prio.map_or(old & 0xe000, |p| u128::from(p) << 13);
            k.set(VlanTpid, (*proto).into());
            k.set(VlanTci, PRESENT | u128::from(*vid) | prio);
        }
        VlanAction::PopEth | VlanAction::PushEth { .. } => {}
    }
}
