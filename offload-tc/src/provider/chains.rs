//! Records of more than one pass: filters of chains.
//!
//! ```text
//!   chain 0                         chain n (a recirculation id)
//!   ┌─────────────────────┐         ┌──────────────────────────┐
//!   │ record: ct, goto n ─┼────────►│ records with that id      │
//!   │ other records       │         ├──────────────────────────┤
//!   ├─────────────────────┤         │ keepers: tag n, to the TAP│
//!   │ divert: tag 0, TAP  │         └──────────────────────────┘
//!   └─────────────────────┘
//! ```
//!
//! Invariants. A filter that leads to a chain is there only while the chain's *keepers* are, which hand over what the chain does
//! not catch with its place ([`crate::misses`]). And a chain is in hardware whole or not at all: a filter that leads to one is
//! let into hardware only while every filter of that chain is there, and there is one; otherwise hardware would change a frame
//! and then leave it to software half done. What is kept from hardware for that reason is still in the kernel.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;
use offload::{HwHandle, Reject};

use super::flight::Job;
use super::{EntryKind, TcProvider, place, refusal};
use crate::action::Counts;
use crate::filter::{FilterAt, Flower, Head, Hook, flags};
use crate::lower_match::LoweredMatch;
use crate::message::{self, Add, kind};
use crate::misses::keepers;
use crate::provider::config::TcPolicy;
use crate::transport::Transport;

/// Largest number that a chain can be gone to by (`TC_ACT_EXT_VAL_MASK`).
const MAX_GOTO: u32 = (1 << 28) - 1;
/// Any protocol.
const ALL: u16 = 3;
/// The name in cookies of filters that stand for no record.
pub(super) const NOBODY: flow::FlowId = flow::FlowId(u64::MAX);
/// A filter that catches the rest in a chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keeper {
    /// The round of counters in which it was last seen, or in which it came.
    pub seen: u64,
    /// The kernel has said that it is there. Otherwise its answer was lost.
    pub sure: bool,
}

/// Filters that are moved in one round.
const MOVES: usize = 64;

impl<T: Transport> TcProvider<T> {
    /// The number of the chain for a recirculation id. A rule may need two, so `given` are those that it has got.
    pub(super) fn chain_of(&self, recirc: u32, given: &RefCell<Vec<u32>>) -> Result<u32, Reject> {
        if self.config.recirc_sharing {
            // The datapath below takes the one for the other.
            let full = Reject::TableFull { table: "chains", entries: MAX_GOTO as usize };
            return if recirc <= MAX_GOTO { Ok(recirc) } else { Err(full) };
        }
        let Some(misses) = &self.config.misses else {
            return Err(Reject::NeedsSoftware { action: flow::ActionKind::Recirc });
        };
        // Looked at only when there is no number that was never used.
        let used = OnceCell::new();
        let in_use = |n| given.borrow().contains(&n) || used.get_or_init(|| self.used_chains()).contains(&n);
        let full = Reject::TableFull { table: "chains", entries: crate::misses::MAX_CHAIN as usize };
        let n = misses.chain(recirc, &in_use).ok_or(full)?;
        given.borrow_mut().push(n);
        Ok(n)
    }

    /// Numbers of chains that filters are in or lead to, or will be when requests under way are answered.
    fn used_chains(&self) -> BTreeSet<u32> {
        let entries = self.entries.values().flat_map(|e| [Some(e.at.chain), e.goes_to]);
        let flights = self.flights.iter().flat_map(|f| match &f.job {
            Job::Install { at, kind, .. } | Job::Old { at, kind, .. } => [Some(at.chain), kind.goes_to],
            _ => [None, None],
        });
        let keepers = self.keepers.keys().map(|k| Some(k.chain));
        entries.chain(flights).chain(keepers).flatten().collect()
    }

    /// The flags of a filter: those of the policy, and not for hardware when the chain it leads to is not there whole.
    pub(super) fn flags_of(&self, l: &LoweredMatch) -> u32 {
        match l.goes_to {
            Some((chain, _)) if self.holds_back(self.hook(l.ifindex), chain) => flags::SKIP_HW,
            _ => self.config.policy.flags(),
        }
    }

    /// Whether filters that lead to a chain are to be kept from hardware.
    fn holds_back(&self, hook: Hook, chain: u32) -> bool {
        if self.config.policy != TcPolicy::None {
            return false;
        }
        let at = |prio, protocol, handle| FilterAt { hook, chain, prio, protocol, handle };
        let members = self.by_place.range(at(0, 0, 0)..=at(u16::MAX, u16::MAX, u32::MAX));
        let mut members = members.filter_map(|(_, h)| self.entries.get(h)).peekable();
        members.peek().is_none() || members.any(|e| !e.in_hw)
    }

    /// Sees to it that what the chain does not catch keeps its place, before anything leads there.
    pub(super) fn keep_places(&mut self, l: &LoweredMatch) -> Result<(), Reject> {
        let Some((chain, ct)) = l.goes_to.filter(|_| !self.config.recirc_sharing) else { return Ok(()) };
        let none = Reject::NeedsSoftware { action: flow::ActionKind::Recirc };
        let tap = self.config.misses.as_ref().and_then(|m| m.tap(l.ifindex)).ok_or(none)?;
        let hook = self.hook(l.ifindex);
        let cookie = place::cookie(self.config.owner, NOBODY);
        for (prio, handle, flower) in keepers(chain, ct, tap, cookie) {
            let at = FilterAt { hook, chain, prio, protocol: ALL, handle };
            if !self.keepers.get(&at).is_some_and(|k| k.sure) {
                self.put_keeper(at, &flower)?;
            }
        }
        Ok(())
    }

    fn put_keeper(&mut self, at: FilterAt, flower: &Flower) -> Result<(), Reject> {
        let mut request = Vec::new();
        let asked = self.ask(|w, seq| {
            message::add_filter(w, seq, &at, flower, Add::Replace);
            request = w.bytes().to_vec();
        });
        match asked {
            Ok(ack) if ack.errno == 0 => {
                self.keepers.insert(at, Keeper { seen: self.round, sure: true });
                Ok(())
            }
            Ok(ack) => Err(refusal(&ack, &request)),
            Err(e) => {
                self.keepers.insert(at, Keeper { seen: self.round, sure: false });
                Err(Reject::Device { errno: 0, attribute: String::new(), text: e.to_string() })
            }
        }
    }

    /// Puts back keepers that somebody has removed, and takes those away that nothing leads to any more.
    pub(super) fn restore_keepers(&mut self) {
        // Nothing comes to be led anywhere meanwhile; what ceases to be is gone by the next round.
        let led_to: BTreeSet<(Hook, u32)> =
            self.entries.values().filter_map(|e| Some((e.at.hook, e.goes_to?))).collect();
        let all: Vec<(FilterAt, Keeper)> = self.keepers.iter().map(|(at, k)| (*at, *k)).collect();
        for (at, k) in all {
            if !led_to.contains(&(at.hook, at.chain)) {
                if self.strays {
                    // One of them may lead there.
                    continue;
                }
                let gone = self.ask(|w, seq| message::delete_filter(w, seq, &at));
                let none = |e| matches!(Errno::from_raw(e), Errno::ENOENT | Errno::ENODEV | Errno::EINVAL);
                match gone {
                    Ok(a) if a.errno == 0 || none(a.errno) => drop(self.keepers.remove(&at)),
                    Ok(_) => {}
                    Err(_) => drop(self.keepers.insert(at, Keeper { sure: false, ..k })),
                }
            } else if k.seen != self.round || !k.sure {
                let cookie = place::cookie(self.config.owner, NOBODY);
                let misses = self.config.misses.clone();
                let of_hook = self.ports.iter().find(|(_, i)| self.hook(*i) == at.hook).map(|(_, i)| *i);
                let tap = misses.and_then(|m| m.tap(of_hook?));
                let Some(tap) = tap else { continue };
                let all = keepers(at.chain, true, tap, cookie);
                let Some((_, _, f)) = all.into_iter().find(|(p, h, _)| (*p, *h) == (at.prio, at.handle))
                else {
                    continue;
                };
                if let Hook::Ingress(i) = at.hook {
                    let _ = self.ensure_qdisc(i);
                }
                self.keepers.remove(&at);
                match self.put_keeper(at, &f) {
                    Ok(()) => self.counters.put_back += 1,
                    Err(why) => {
                        // What leads there must not stay without it.
                        tracing::warn!("{}: chain {}: {why}", self.config.name, at.chain);
                        self.give_up_chain(at.hook, at.chain, &why);
                    }
                }
            }
        }
    }

    /// Takes away what leads to a chain; placement hears of it as of any entry that is gone.
    fn give_up_chain(&mut self, hook: Hook, chain: u32, why: &Reject) {
        let leading: Vec<HwHandle> = self
            .entries
            .iter()
            .filter(|(_, e)| e.at.hook == hook && e.goes_to == Some(chain) && !e.busy)
            .map(|(h, _)| *h)
            .collect();
        for h in leading {
            let Some(at) = self.entries.get(&h).map(|e| e.at) else { continue };
            let _ = self.ask(|w, seq| message::delete_filter(w, seq, &at));
            self.lose(h, why.clone());
        }
    }

    /// Moves filters that lead to chains out of hardware when the chain is not there whole, and back when it is.
    pub(super) fn settle_chains(&mut self) {
        self.unsettled = false;
        if self.config.policy != TcPolicy::None {
            return;
        }
        // Many may lead to one chain.
        let mut known: BTreeMap<(Hook, u32), bool> = BTreeMap::new();
        let mut holds_back = |hook: Hook, chain: u32| {
            *known.entry((hook, chain)).or_insert_with(|| self.holds_back(hook, chain))
        };
        let wrong: Vec<HwHandle> = self
            .entries
            .iter()
            .filter(|(_, e)| !e.busy && e.goes_to.is_some_and(|c| holds_back(e.at.hook, c) != e.held_back))
            .map(|(h, _)| *h)
            .take(MOVES)
            .collect();
        self.unsettled = wrong.len() == MOVES;
        for h in wrong {
            self.move_entry(h);
        }
    }

    /// Puts an entry's filter in again with the flags that it is to have now: the new one first, as for a replacement.
    fn move_entry(&mut self, h: HwHandle) {
        let Some(e) = self.entries.get(&h) else { return };
        let (rule, old, side) = (e.rule.rule(), e.at, e.side.other());
        let Ok(l) = self.lower(&rule) else { return };
        let Ok(at) = self.place(&l, side) else { return };
        let mut in_hw = false;
        let put =
            self.ask_for(|w, seq| message::add_filter(w, seq, &at, &l.flower, Add::NewAndTell), &mut |m| {
                if m.kind == kind::NEW_FILTER
                    && let Ok(Some(head)) = Head::read(m.body)
                {
                    in_hw = head.flower().is_ok_and(|(_, r)| r.in_hw);
                }
            });
        match put {
            Ok(a) if a.errno == 0 => {}
            Ok(_) => return,
            // It may be there all the same.
            Err(_) => return drop(self.ask(|w, seq| message::delete_filter(w, seq, &at))),
        }
        let mut told = None;
        let gone = self.ask_for(|w, seq| message::delete_filter(w, seq, &old), &mut |m| {
            if let Ok(Some(head)) = Head::read(m.body) {
                told = head.terse().ok();
            }
        });
        let gone = gone.is_ok_and(|a| a.errno == 0 || Errno::from_raw(a.errno) == Errno::ENOENT);
        if !gone {
            // The old one goes on; the new one is nobody's.
            let _ = self.ask(|w, seq| message::delete_filter(w, seq, &at));
            return;
        }
        let last = self.read_last(h, told.as_ref());
        let EntryKind { held_back, .. } = EntryKind::of(&l);
        if let Some(e) = self.entries.get_mut(&h) {
            self.by_place.remove(&old);
            self.by_place.insert(at, h);
            (e.at, e.side, e.held_back, e.in_hw, e.seen) = (at, side, held_back, in_hw, self.round);
            e.before = Counts { packets: last.packets, bytes: last.bytes };
            e.last = Counts::default();
            self.counters.moved += 1;
        }
    }
}
