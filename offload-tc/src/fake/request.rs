//! What the fake kernel does with requests.

use nix::errno::Errno;

use super::{FakeFilter, Link, Shared, State};
use crate::action::{self, ActionSpec, Counts, TcAction, act_flags};
use crate::filter::{FilterAt, Flower, Head, Hook, flags};
use crate::keys::FlowerKey;
use crate::links::LinkInfo;
use crate::message::{Message, flag, kind, read_shared_action};
use crate::wire::{NLMSG_HEADER, Writer, attrs, find, read_text, read_u32, word};

/// A refusal: error number, words, offset of what is meant.
struct Refused(Errno, &'static str);

type Done = Result<(), Refused>;

/// Filters in one datagram of a dump.
const PER_DATAGRAM: usize = 32;

impl State {
    pub(super) fn request(&mut self, m: &Message<'_>) {
        let meddle = self.faults.meddle;
        if self.seed.percent(meddle) {
            let n = self.filters.len() as u64;
            let at = self.seed.below(n) as usize;
            if let Some(at) = self.filters.keys().nth(at).copied() {
                self.filters.remove(&at);
            }
        }
        if m.kind == kind::GET_FILTER && m.flags & flag::DUMP == flag::DUMP {
            return self.dump(m);
        }
        if m.kind == kind::GET_LINK {
            return self.dump_links(m);
        }
        self.prune_shared();
        if m.kind == kind::GET_ACTION && m.flags & flag::DUMP == flag::DUMP {
            return self.dump_actions(m);
        }
        let done = self.change(m);
        let (errno, text) = match &done {
            Ok(()) => (0, ""),
            Err(Refused(e, text)) => (*e as i32, *text),
        };
        if m.flags & flag::ACK != 0 || errno != 0 {
            self.acknowledge(m, errno, text);
        }
    }

    fn change(&mut self, m: &Message<'_>) -> Done {
        let changes = !matches!(m.kind, kind::GET_FILTER | kind::GET_ACTION);
        let refuse = self.faults.refuse;
        if changes && let Some((errno, text)) = self.refusals.pop_front() {
            return Err(Refused(Errno::from_raw(errno), text));
        }
        if changes && self.seed.percent(refuse) {
            let errno = *self.seed.pick(&[Errno::ENOMEM, Errno::EOPNOTSUPP, Errno::ENOSPC, Errno::EINVAL]);
            return Err(Refused(errno, "the driver has had enough"));
        }
        let bad = |_| Refused(Errno::EINVAL, "malformed");
        match m.kind {
            kind::NEW_LINK | kind::DEL_LINK => self.link(m),
            kind::NEW_QDISC | kind::DEL_QDISC => self.qdisc(m),
            kind::NEW_FILTER | kind::DEL_FILTER | kind::GET_FILTER => {
                let head = Head::read(m.body).map_err(bad)?;
                let head = head.ok_or(Refused(Errno::EINVAL, "Parent Qdisc doesn't exists"))?;
                self.hook_is_there(head.at.hook)?;
                match m.kind {
                    kind::NEW_FILTER => self.new_filter(m, &head),
                    kind::DEL_FILTER => self.delete_filter(m, &head.at),
                    _ => self.get_filter(m, &head.at),
                }
            }
            kind::NEW_ACTION => {
                let (a, _) = read_shared_action(m.body).map_err(bad)?;
                let key = (a.spec.kind().to_owned(), a.index);
                match self.shared.get_mut(&key) {
                    Some(_) if m.flags & flag::EXCL != 0 => return Err(Refused(Errno::EEXIST, "")),
                    Some(s) => (s.action, s.made) = (a, true),
                    None => {
                        let new = Shared { action: a, counts: Counts::default(), drops: 0, made: true };
                        self.shared.insert(key, new);
                    }
                }
                Ok(())
            }
            kind::DEL_ACTION | kind::GET_ACTION => self.shared_action(m),
            _ => Err(Refused(Errno::EOPNOTSUPP, "")),
        }
    }

    fn hook_is_there(&self, hook: Hook) -> Done {
        match hook {
            Hook::Ingress(i) | Hook::Egress(i) => match self.links.get(&i) {
                None => Err(Refused(Errno::ENODEV, "Cannot find specified device")),
                Some(l) if !l.clsact => Err(Refused(Errno::EINVAL, "Parent Qdisc doesn't exists")),
                Some(_) => Ok(()),
            },
            Hook::Block(b) if self.links.values().any(|l| l.block == Some(b)) => Ok(()),
            Hook::Block(_) => Err(Refused(Errno::EINVAL, "Block of given index was not found")),
        }
    }

    /// An interface is made or removed by its name.
    fn link(&mut self, m: &Message<'_>) -> Done {
        let bad = |_| Refused(Errno::EINVAL, "malformed");
        let info = LinkInfo::read(m.body).map_err(bad)?;
        let there = self.links.values().find(|l| l.info.name == info.name).map(|l| l.info.index);
        match (m.kind == kind::NEW_LINK, there) {
            (true, Some(_)) => Err(Refused(Errno::EEXIST, "")),
            (true, None) => {
                let index = self.links.keys().next_back().map_or(1, |n| n + 1);
                let info = LinkInfo { index, ..info };
                self.links.insert(index, Link { info, ..Link::default() });
                Ok(())
            }
            (false, Some(index)) => {
                self.links.remove(&index);
                Ok(())
            }
            (false, None) => Err(Refused(Errno::ENODEV, "")),
        }
    }

    fn qdisc(&mut self, m: &Message<'_>) -> Done {
        let ifindex = word("tcmsg", m.body, 1).map_err(|_| Refused(Errno::EINVAL, "malformed"))?;
        let block = m.body.get(20..).and_then(|b| find(b, 13).ok().flatten());
        let link = self.links.get_mut(&ifindex).ok_or(Refused(Errno::ENODEV, ""))?;
        if m.kind == kind::DEL_QDISC {
            if !std::mem::take(&mut link.clsact) {
                return Err(Refused(Errno::ENOENT, "Cannot find specified qdisc on specified device"));
            }
            let block = link.block.take();
            let shared = block.is_some_and(|b| self.links.values().any(|l| l.block == Some(b)));
            let gone = |at: &FilterAt| match at.hook {
                Hook::Ingress(i) | Hook::Egress(i) => i == ifindex,
                Hook::Block(b) => block == Some(b) && !shared,
            };
            self.filters.retain(|at, _| !gone(at));
            return Ok(());
        }
        if link.clsact {
            return Err(Refused(Errno::EEXIST, "Exclusivity flag on, cannot modify"));
        }
        link.clsact = true;
        link.block = block.and_then(|b| read_u32("block", b).ok());
        Ok(())
    }

    fn new_filter(&mut self, m: &Message<'_>, head: &Head<'_>) -> Done {
        let at = head.at;
        let (f, _) = head.flower().map_err(|_| Refused(Errno::EINVAL, "malformed"))?;
        if !head.is_flower() {
            return Err(Refused(Errno::ENOENT, "TC classifier not found"));
        }
        // All of a priority have one.
        let first = self.filters.range(range_of(&at)).next();
        if first.is_some_and(|(a, _)| a.protocol != at.protocol) {
            return Err(Refused(Errno::EINVAL, "Specified filter protocol does not match existing one"));
        }
        let exists = self.filters.contains_key(&at);
        if exists && m.flags & flag::EXCL != 0 {
            return Err(Refused(Errno::EEXIST, "Filter already exists"));
        }
        if self.has_twin(&at, &f) {
            return Err(Refused(Errno::EEXIST, ""));
        }
        let link = match at.hook {
            Hook::Ingress(i) => self.links.get(&i),
            _ => None,
        };
        let veto = link.and_then(|l| l.veto).and_then(|v| v(&f));
        let in_hw = link.is_some_and(|l| l.hardware) && veto.is_none() && f.flags & flags::SKIP_HW == 0;
        if f.flags & flags::SKIP_SW != 0 && !in_hw {
            let text = veto.unwrap_or("the device does not take filters");
            return Err(Refused(Errno::EOPNOTSUPP, text));
        }
        if !exists && self.filters.len() >= self.limit {
            return Err(Refused(Errno::ENOSPC, "the table is full"));
        }
        for a in &f.actions {
            self.bind(f.flags, a)?;
        }
        let counts = vec![Counts::default(); f.actions.len()];
        let f = FakeFilter { kind: "flower".to_owned(), flower: f, in_hw, counts, used: None };
        self.put(at, f.clone());
        if m.flags & flag::ECHO != 0 {
            let mut w = Writer::new();
            self.put_filter(&mut w, m.seq, 0, &at, &f, false);
            self.answer(w.bytes().to_vec());
        }
        Ok(())
    }

    /// An action with a number is the one of that number, which is made if it is not there.
    fn bind(&mut self, filter: u32, a: &TcAction) -> Done {
        if let ActionSpec::Mirred { ifindex, .. } = a.spec
            && !self.links.contains_key(&ifindex)
        {
            return Err(Refused(Errno::EINVAL, "mirred: target device does not exist"));
        }
        if a.index != 0 {
            let wanted = match filter {
                f if f & flags::SKIP_HW != 0 => act_flags::SKIP_HW,
                f if f & flags::SKIP_SW != 0 => act_flags::SKIP_SW,
                _ => 0,
            };
            let key = (a.spec.kind().to_owned(), a.index);
            if self.shared.get(&key).is_some_and(|s| s.action.flags != wanted) {
                return Err(Refused(Errno::EINVAL, "Mismatch between action and filter offload flags"));
            }
            let action = TcAction { flags: wanted, ..a.clone() };
            let shared = Shared { action, counts: Counts::default(), drops: 0, made: false };
            let shared = self.shared.entry(key).or_insert(shared);
            // As Linux does: the cookie is that of whoever came last.
            if a.cookie.is_some() {
                shared.action.cookie = a.cookie;
            }
        }
        Ok(())
    }

    fn get_filter(&mut self, m: &Message<'_>, at: &FilterAt) -> Done {
        let f = self.filters.get(at).ok_or(Refused(Errno::ENOENT, "Specified filter handle not found"))?;
        let mut w = Writer::new();
        self.put_filter(&mut w, m.seq, 0, at, f, false);
        self.answer(w.bytes().to_vec());
        Ok(())
    }

    fn delete_filter(&mut self, m: &Message<'_>, at: &FilterAt) -> Done {
        let f = self.filters.remove(at).ok_or(Refused(Errno::ENOENT, "Specified filter handle not found"))?;
        if m.flags & flag::ECHO != 0 {
            let mut w = Writer::new();
            self.put_filter(&mut w, m.seq, 0, at, &f, false);
            let echo = w.bytes().to_vec();
            let at = echo.get(4..6).map(|_| ());
            let mut echo = echo;
            if at.is_some() {
                echo[4..6].copy_from_slice(&kind::DEL_FILTER.to_ne_bytes());
            }
            self.answer(echo);
        }
        Ok(())
    }

    fn shared_action(&mut self, m: &Message<'_>) -> Done {
        let bad = || Refused(Errno::EINVAL, "malformed");
        let tab = m.body.get(4..).and_then(|b| find(b, 1).ok().flatten()).ok_or_else(bad)?;
        let one = attrs(tab).next().and_then(Result::ok).ok_or_else(bad)?.1;
        let name = find(one, 1).ok().flatten().map(read_text).ok_or_else(bad)?;
        let index = find(one, 3).ok().flatten().and_then(|b| read_u32("", b).ok()).ok_or_else(bad)?;
        let key = (name, index);
        let gone = Refused(Errno::ENOENT, "TC action with specified index not found");
        if m.kind == kind::GET_ACTION {
            let s = self.shared.get(&key).ok_or(gone)?;
            let mut w = Writer::new();
            put_shared(&mut w, m.seq, [s].into_iter());
            self.answer(w.bytes().to_vec());
            return Ok(());
        }
        let used = |f: &FakeFilter| {
            f.flower.actions.iter().any(|a| (a.spec.kind(), a.index) == (key.0.as_str(), key.1))
        };
        if self.filters.values().any(used) {
            return Err(Refused(Errno::EPERM, "Action is bound to filters"));
        }
        self.shared.remove(&key).map(drop).ok_or(gone)
    }

    fn dump(&mut self, m: &Message<'_>) {
        let (ifindex, parent) = (word("", m.body, 1).unwrap_or(0), word("", m.body, 3).unwrap_or(0));
        let terse = m.body.get(20..).and_then(|b| find(b, 15).ok().flatten()).is_some() && self.terse;
        let hook = Hook::from_raw(ifindex, parent);
        if let Some(Hook::Ingress(i)) = hook
            && !self.links.contains_key(&i)
        {
            // The kernel says no more than that there is nothing.
            return self.done(m);
        }
        let found: Vec<_> =
            self.filters.iter().filter(|(a, _)| Some(a.hook) == hook).map(|(a, f)| (*a, f.clone())).collect();
        let overlook = self.faults.overlook;
        let found: Vec<_> = found.into_iter().filter(|_| !self.seed.percent(overlook)).collect();
        for part in found.chunks(PER_DATAGRAM) {
            let interrupt = self.faults.interrupt;
            let broken = if self.seed.percent(interrupt) { flag::DUMP_INTR } else { 0 };
            let mut w = Writer::new();
            for (at, f) in part {
                self.put_filter(&mut w, m.seq, flag::MULTI | broken, at, f, terse);
            }
            self.answer(w.bytes().to_vec());
        }
        self.done(m);
    }

    fn dump_actions(&mut self, m: &Message<'_>) {
        let mut w = Writer::new();
        put_shared(&mut w, m.seq, self.shared.values());
        self.answer(w.bytes().to_vec());
        self.done(m);
    }

    fn dump_links(&mut self, m: &Message<'_>) {
        let all: Vec<_> = self.links.values().map(|l| l.info.clone()).collect();
        let mut w = Writer::new();
        for l in all {
            let o = w.message(kind::NEW_LINK, flag::MULTI, m.seq);
            l.put(&mut w);
            w.end_message(o);
        }
        self.answer(w.bytes().to_vec());
        self.done(m);
    }

    fn done(&mut self, m: &Message<'_>) {
        let mut w = Writer::new();
        let o = w.message(kind::DONE, flag::MULTI, m.seq);
        w.raw(&[0; 4]);
        w.end_message(o);
        self.answer(w.bytes().to_vec());
    }

    fn put_filter(&self, w: &mut Writer, seq: u32, more: u16, at: &FilterAt, f: &FakeFilter, terse: bool) {
        let m = w.message(kind::NEW_FILTER, more, seq);
        let (ifindex, parent) = at.hook.raw();
        let info = u32::from(at.prio) << 16 | u32::from(at.protocol.to_be());
        for v in [0, ifindex, at.handle, parent, info] {
            w.raw(&v.to_ne_bytes());
        }
        w.text(1, &f.kind);
        w.u32(11, at.chain);
        let o = w.nest(2);
        if !terse {
            let mut told = Flower { actions: Vec::new(), flags: 0, ..f.flower.clone() };
            // As Linux does: of tagged packets the innermost type.
            if let Some((t, _)) = told.get(FlowerKey::CvlanEthType).or(told.get(FlowerKey::VlanEthType)) {
                told.set(FlowerKey::EthType, t);
            }
            told.put(w);
        }
        let state = if f.in_hw { flags::IN_HW } else { flags::NOT_IN_HW };
        w.u32(22, f.flower.flags | state);
        w.u32(86, u32::from(f.in_hw));
        let all = w.nest(3);
        for (i, a) in f.flower.actions.iter().enumerate() {
            let one = w.nest(i as u16 + 1);
            if terse {
                w.text(1, a.spec.kind());
                if let Some(c) = &a.cookie {
                    w.attr(6, c.bytes());
                }
            } else {
                action::put_action(w, a);
            }
            let (counts, drops) = self.counts_of(a, f.counts.get(i).copied());
            put_stats(w, counts, drops);
            w.end(one);
        }
        w.end(all);
        w.end(o);
        w.end_message(m);
    }

    fn counts_of(&self, a: &TcAction, own: Option<Counts>) -> (Counts, u32) {
        let shared = self.shared.get(&(a.spec.kind().to_owned(), a.index));
        shared.map(|s| (s.counts, s.drops)).unwrap_or((own.unwrap_or_default(), 0))
    }

    fn acknowledge(&mut self, m: &Message<'_>, errno: i32, text: &str) {
        let tlvs = if text.is_empty() { 0 } else { flag::ACK_TLVS };
        let mut w = Writer::new();
        let o = w.message(kind::ERROR, flag::CAPPED | tlvs, m.seq);
        w.raw(&(-errno).to_ne_bytes());
        w.raw(&((m.body.len() + NLMSG_HEADER) as u32).to_ne_bytes());
        w.raw(&m.kind.to_ne_bytes());
        w.raw(&m.flags.to_ne_bytes());
        w.raw(&m.seq.to_ne_bytes());
        w.raw(&[0; 4]);
        if !text.is_empty() {
            w.text(1, text);
        }
        w.end_message(o);
        self.answer(w.bytes().to_vec());
    }
}

/// The places of filters of the same priority.
fn range_of(at: &FilterAt) -> std::ops::RangeInclusive<FilterAt> {
    FilterAt { protocol: 0, handle: 0, ..*at }..=FilterAt { protocol: u16::MAX, handle: u32::MAX, ..*at }
}

/// Writes a message about shared actions.
fn put_shared<'a>(w: &mut Writer, seq: u32, which: impl Iterator<Item = &'a Shared>) {
    let o = w.message(kind::NEW_ACTION, 0, seq);
    w.raw(&[0; 4]);
    let all = w.nest(1);
    for (i, s) in which.enumerate() {
        let one = w.nest(i as u16 + 1);
        action::put_action(w, &s.action);
        put_stats(w, s.counts, s.drops);
        w.end(one);
    }
    w.end(all);
    w.end_message(o);
}

/// Writes TCA_ACT_STATS.
fn put_stats(w: &mut Writer, c: Counts, drops: u32) {
    let s = w.nest(4);
    let b = w.nest(1);
    w.raw(&c.bytes.to_ne_bytes());
    w.raw(&(c.packets as u32).to_ne_bytes());
    w.raw(&[0; 4]);
    w.end(b);
    let q = w.nest(3);
    for n in [0, 0, drops, 0, drops] {
        w.raw(&n.to_ne_bytes());
    }
    w.end(q);
    w.u64(8, c.packets);
    w.end(s);
}
