//! Meters: policers with a number, which filters share.
//!
//! A policer outlives the switch that made it, and anybody may change or remove it. So ours have a cookie; what one counts is read as a
//! difference to the last reading; one that is not as it should be is made so again when it is read; and those of a former life
//! are removed once no filter uses them. A filter that finds no policer of its number makes one that nothing passes
//! ([`Police::closed`]): until the policer is back, packets are dropped rather than let through unmetered.

use std::collections::BTreeMap;
use std::time::Duration;

use flow::FlowId;
use nix::errno::Errno;
use offload::{ObjectError, ObjectId, ObjectKind, ObjectSpec, ObjectStats, OffloadError, SharedObjects};

use super::{TcPolicy, TcProvider, UNCOUNTED, place, uses};
use crate::ack::Ack;
use crate::action::{ActionReport, ActionSpec, Police, TcAction, Verdict};
use crate::capability::MAX_METERS;
use crate::message;
use crate::transport::Transport;

/// The kernel's name of the kind.
const KIND: &str = "police";
/// Bit of a number that keeps it apart from those that the kernel chooses, which count from one.
const OURS: u32 = 1 << 30;
/// Smallest bucket of bytes: a frame has to fit.
const MIN_BURST_BYTES: u64 = 2048;

/// How often, and how long after each other, an action is to be removed that filters have just let go of.
const RELEASE_TRIES: u32 = 50;
const RELEASE_PAUSE: Duration = Duration::from_millis(4);

/// What a policer has counted, as the kernel tells it.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    packets: u64,
    bytes: u64,
    /// The kernel's number has 32 bits.
    drops: u32,
    idle: Duration,
}

impl Reading {
    fn of(r: &ActionReport) -> Self {
        // Software counts what is behind the Ethernet header.
        let headers = r.software().packets * UNCOUNTED.0;
        Reading {
            packets: r.total.packets,
            bytes: r.total.bytes + headers,
            drops: r.drops.max(r.overlimits),
            idle: Duration::from_millis(r.idle_ticks.unwrap_or(0).saturating_mul(10)),
        }
    }
}

/// A meter that the device has been given.
#[derive(Clone, Debug)]
struct Held {
    spec: ObjectSpec,
    total: ObjectStats,
    last: Reading,
}

impl Held {
    /// Counts on from the last reading; a policer that was made anew counts from zero.
    fn read(&mut self, now: Reading) {
        let last = if now.packets < self.last.packets { Reading::default() } else { self.last };
        let packets = now.packets - last.packets;
        let bytes = now.bytes.saturating_sub(last.bytes);
        let dropped = u64::from(now.drops.wrapping_sub(last.drops)).min(packets);
        let t = &mut self.total;
        t.packets += packets;
        t.bytes += bytes;
        t.dropped_packets += dropped;
        // The kernel does not say how long they were: as long as others of that time.
        t.dropped_bytes += (u128::from(bytes) * u128::from(dropped) / u128::from(packets.max(1))) as u64;
        t.idle = now.idle;
        self.last = now;
    }
}

/// Meters that the device has been given.
#[derive(Clone, Debug)]
pub(super) struct Meters {
    held: BTreeMap<u32, Held>,
    /// There may be policers of ours that are no meters.
    strays: bool,
}

impl Default for Meters {
    fn default() -> Self {
        // Of a former life.
        Meters { held: BTreeMap::new(), strays: true }
    }
}

/// The policer for meter `number`: its owner in the middle, so that two switches on a host keep apart.
fn index_of(owner: u32, number: u32) -> u32 {
    OURS | (owner & 0xfff) << 17 | number
}

impl Meters {
    /// The number of the policer that a meter is; `None` when there is no such meter.
    pub fn index(&self, owner: u32, number: u32) -> Option<u32> {
        self.held.contains_key(&number).then(|| index_of(owner, number))
    }

    /// Has policers looked for that are no meters.
    pub fn may_have_strays(&mut self) {
        self.strays = true;
    }
}

/// The policer that a meter is. A kernel that forwards by itself is told to count the Ethernet header, which a frame has lost where
/// filters see it; drivers count whole frames, and take no policer that says so.
fn policer(spec: &ObjectSpec, by_kernel: bool) -> Option<Police> {
    let ObjectSpec::Meter { rate_pps, rate_bps, burst } = spec else {
        return None;
    };
    Some(match rate_pps {
        0 => {
            let overhead = if by_kernel { UNCOUNTED.0 as u16 } else { 0 };
            Police { overhead, ..Police::bytes((rate_bps / 8).max(1), (burst / 8).max(MIN_BURST_BYTES)) }
        }
        _ => Police::packets(*rate_pps, (*burst).max(1)),
    })
}

/// Whether the policer that the kernel tells is the one that is meant; its bucket is told in the kernel's own terms.
fn is_as_meant(meant: &Police, told: &TcAction) -> bool {
    let ActionSpec::Police(told_police) = &told.spec else { return false };
    let rates = |p: &Police| (p.rate_bytes, p.rate_packets, p.overhead);
    rates(meant) == rates(told_police) && told.verdict == Verdict::Drop
}

fn said(ack: &Ack) -> ObjectError {
    ObjectError::Device(ack.words().to_owned())
}

fn broke(e: OffloadError) -> ObjectError {
    ObjectError::Device(e.to_string())
}

impl<T: Transport> TcProvider<T> {
    fn known(&self, id: ObjectId) -> Result<(), ObjectError> {
        let there = id.kind == ObjectKind::Meter && self.meters.held.contains_key(&id.number);
        if there { Ok(()) } else { Err(ObjectError::Missing(id)) }
    }

    /// Whether no filter can be in hardware.
    fn is_kernels(&self) -> bool {
        self.config.policy == TcPolicy::SkipHw || self.hardware.is_empty()
    }

    /// Asks for the policer of a number; `None` when there is none.
    fn policer_there(&mut self, index: u32) -> Result<Option<(TcAction, Reading)>, ObjectError> {
        let mut told = None;
        let ack = self
            .ask_for(|w, seq| message::get_shared_action(w, seq, KIND, index), &mut |m| {
                told = message::read_shared_action(m.body).ok().map(|(a, r)| (a, Reading::of(&r)));
            })
            .map_err(broke)?;
        match Errno::from_raw(ack.errno) {
            _ if ack.errno == 0 => Ok(told),
            Errno::ENOENT => Ok(None),
            _ => Err(said(&ack)),
        }
    }

    /// Makes the policer of a meter, or makes it like this.
    fn put_policer(&mut self, number: u32, police: Police, change: bool) -> Result<Ack, ObjectError> {
        let a = TcAction {
            index: index_of(self.config.owner, number),
            verdict: Verdict::Drop,
            flags: self.config.policy.action_flags(),
            cookie: place::cookie(self.config.owner, FlowId(number.into())),
            ..TcAction::pipe(ActionSpec::Police(police))
        };
        self.ask(|w, seq| message::put_shared_action(w, seq, &a, change)).map_err(broke)
    }

    /// Makes the policer of a meter that is new. One that a former life has left becomes it, and what that has counted is not the
    /// meter's; somebody else's stays as it is.
    fn new_policer(&mut self, number: u32, police: Police) -> Result<Reading, ObjectError> {
        let index = index_of(self.config.owner, number);
        let mut ack = self.put_policer(number, police, false)?;
        if Errno::from_raw(ack.errno) == Errno::EEXIST {
            let there = self.policer_there(index)?;
            if there.is_some_and(|(a, _)| place::flow_of(self.config.owner, a.cookie).is_none()) {
                return Err(ObjectError::Device(format!("policer {index} is somebody else's")));
            }
            ack = self.put_policer(number, police, true)?;
        }
        if ack.errno != 0 {
            return Err(said(&ack));
        }
        match self.policer_there(index)? {
            Some((a, r)) if is_as_meant(&police, &a) => Ok(r),
            // Before Linux 5.13 there are no rates of packets, and nobody says so.
            other => {
                self.meters.strays |= other.is_some();
                let text = format!("the kernel has made something else of policer {index}");
                Err(ObjectError::Device(text))
            }
        }
    }

    /// What a meter has counted. A policer that somebody has changed or removed is made as it was.
    fn read_meter(&mut self, number: u32) -> Result<ObjectStats, ObjectError> {
        let id = ObjectId { kind: ObjectKind::Meter, number };
        let there = self.policer_there(index_of(self.config.owner, number))?;
        let by_kernel = self.is_kernels();
        let held = self.meters.held.get_mut(&number).ok_or(ObjectError::Missing(id))?;
        let police = policer(&held.spec, by_kernel).ok_or(ObjectError::Unsupported(id.kind))?;
        let as_meant = there.as_ref().is_some_and(|(a, _)| is_as_meant(&police, a));
        held.read(there.map(|(_, r)| r).unwrap_or_default());
        let total = held.total;
        if !as_meant {
            tracing::warn!("{}: the policer of meter {number} is put back", self.config.name);
            self.counters.put_back += 1;
            let ack = self.put_policer(number, police, true)?;
            if ack.errno != 0 {
                return Err(said(&ack));
            }
        }
        Ok(total)
    }

    /// Removes policers of ours that are no meters and that no filter uses.
    pub(super) fn sweep_policers(&mut self) {
        if !std::mem::take(&mut self.meters.strays) {
            return;
        }
        let owner = self.config.owner;
        let mut ours = Vec::new();
        let asked = self.ask_for(|w, seq| message::dump_shared_actions(w, seq, KIND), &mut |m| {
            let told = message::read_shared_actions(m.body).unwrap_or_default();
            let is_ours = |a: &TcAction| place::flow_of(owner, a.cookie).is_some() && a.index & OURS != 0;
            ours.extend(told.into_iter().filter(|(a, _)| is_ours(a)).map(|(a, _)| a.index));
        });
        let meters: Vec<u32> = self.meters.held.keys().map(|n| index_of(owner, *n)).collect();
        ours.retain(|i| !meters.contains(i));
        let mut left = asked.is_err();
        for index in ours {
            let gone = self.ask(|w, seq| message::delete_shared_action(w, seq, KIND, index));
            let gone = gone.is_ok_and(|a| a.errno == 0 || Errno::from_raw(a.errno) == Errno::ENOENT);
            self.counters.swept += u64::from(gone);
            left |= !gone;
        }
        self.meters.strays |= left;
    }

    /// Takes every policer of ours away: there are no ports any more, and no filters.
    pub(super) fn lose_meters(&mut self) {
        self.meters = Meters::default();
        for _ in 0..RELEASE_TRIES {
            self.sweep_policers();
            if !self.meters.strays {
                return;
            }
            std::thread::sleep(RELEASE_PAUSE);
        }
    }
}

impl<T: Transport> SharedObjects for TcProvider<T> {
    fn put(&mut self, id: ObjectId, spec: &ObjectSpec) -> Result<(), ObjectError> {
        let limit = self.capabilities.object_limit(id.kind);
        let (false, Some(police)) = (limit == 0, policer(spec, self.is_kernels())) else {
            return Err(ObjectError::Unsupported(id.kind));
        };
        if id.number >= MAX_METERS {
            return Err(ObjectError::Full(id.kind));
        }
        if let Some(held) = self.meters.held.get_mut(&id.number) {
            let before = std::mem::replace(&mut held.spec, spec.clone());
            let changed = self.put_policer(id.number, police, true);
            let changed = changed.and_then(|ack| if ack.errno == 0 { Ok(()) } else { Err(said(&ack)) });
            if changed.is_err()
                && let Some(held) = self.meters.held.get_mut(&id.number)
            {
                held.spec = before;
            }
            return changed;
        }
        let last = self.new_policer(id.number, police)?;
        let held = Held { spec: spec.clone(), total: ObjectStats::default(), last };
        self.meters.held.insert(id.number, held);
        Ok(())
    }

    fn remove(&mut self, id: ObjectId) -> Result<ObjectStats, ObjectError> {
        self.known(id)?;
        self.settle();
        let users: usize = self.entries.values().map(|e| uses(&e.rule.actions, id.number)).sum();
        if users > 0 {
            return Err(ObjectError::InUse(id, users));
        }
        let last = self.read_meter(id.number);
        let index = index_of(self.config.owner, id.number);
        let mut ack = self.ask(|w, seq| message::delete_shared_action(w, seq, KIND, index)).map_err(broke)?;
        for _ in 0..RELEASE_TRIES {
            if Errno::from_raw(ack.errno) != Errno::EPERM {
                break;
            }
            // Filters that are gone let go of their actions a moment later, on a work queue of the kernel's.
            std::thread::sleep(RELEASE_PAUSE);
            ack = self.ask(|w, seq| message::delete_shared_action(w, seq, KIND, index)).map_err(broke)?;
        }
        match Errno::from_raw(ack.errno) {
            // Somebody was faster.
            _ if ack.errno == 0 => {}
            Errno::ENOENT => {}
            _ => return Err(said(&ack)),
        }
        let held = self.meters.held.remove(&id.number);
        Ok(last.unwrap_or(held.map(|h| h.total).unwrap_or_default()))
    }

    fn stats(&mut self, id: ObjectId) -> Result<ObjectStats, ObjectError> {
        self.known(id)?;
        self.read_meter(id.number)
    }

    fn list(&self) -> Vec<ObjectId> {
        self.meters.held.keys().map(|n| ObjectId { kind: ObjectKind::Meter, number: *n }).collect()
    }
}
