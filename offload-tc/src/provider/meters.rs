//! Meters: policers with a number, which filters share.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::errno::Errno;
use offload::{ObjectError, ObjectId, ObjectKind, ObjectSpec, ObjectStats, OffloadError, SharedObjects};

use super::{TcProvider, uses};
use crate::ack::Ack;
use crate::action::{ActionSpec, Police, TcAction, Verdict};
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

/// Meters that the device has been given.
#[derive(Clone, Debug, Default)]
pub(super) struct Meters {
    specs: BTreeMap<u32, ObjectSpec>,
}

/// The policer for meter `number`: its owner in the middle, so that two switches on a host keep apart.
fn index_of(owner: u32, number: u32) -> u32 {
    OURS | (owner & 0xfff) << 17 | number
}

impl Meters {
    /// The number of the policer that a meter is; `None` when there is no such meter.
    pub fn index(&self, owner: u32, number: u32) -> Option<u32> {
        self.specs.contains_key(&number).then(|| index_of(owner, number))
    }
}

fn policer(spec: &ObjectSpec) -> Option<Police> {
    let ObjectSpec::Meter { rate_pps, rate_bps, burst } = spec else {
        return None;
    };
    Some(match rate_pps {
        0 => Police::bytes((rate_bps / 8).max(1), (burst / 8).max(MIN_BURST_BYTES)),
        _ => Police::packets(*rate_pps, (*burst).max(1)),
    })
}

fn said(ack: &Ack) -> ObjectError {
    ObjectError::Device(ack.words().to_owned())
}

fn broke(e: OffloadError) -> ObjectError {
    ObjectError::Device(e.to_string())
}

impl<T: Transport> TcProvider<T> {
    fn known(&self, id: ObjectId) -> Result<(), ObjectError> {
        let there = id.kind == ObjectKind::Meter && self.meters.specs.contains_key(&id.number);
        if there { Ok(()) } else { Err(ObjectError::Missing(id)) }
    }

    fn read_meter(&mut self, number: u32) -> Result<ObjectStats, ObjectError> {
        let index = index_of(self.config.owner, number);
        let mut stats = ObjectStats::default();
        let ack = self
            .ask_for(|w, seq| message::get_shared_action(w, seq, KIND, index), &mut |m| {
                if let Ok((_, r)) = message::read_shared_action(m.body) {
                    stats.packets = r.total.packets;
                    stats.bytes = r.total.bytes;
                    stats.dropped_packets = r.drops.max(r.overlimits).into();
                    stats.idle = Duration::from_millis(r.idle_ticks.unwrap_or(0).saturating_mul(10));
                }
            })
            .map_err(broke)?;
        if ack.errno == 0 { Ok(stats) } else { Err(said(&ack)) }
    }
}

impl<T: Transport> SharedObjects for TcProvider<T> {
    fn put(&mut self, id: ObjectId, spec: &ObjectSpec) -> Result<(), ObjectError> {
        let limit = self.capabilities.object_limit(id.kind);
        let (false, Some(police)) = (limit == 0, policer(spec)) else {
            return Err(ObjectError::Unsupported(id.kind));
        };
        if id.number >= MAX_METERS {
            return Err(ObjectError::Full(id.kind));
        }
        let index = index_of(self.config.owner, id.number);
        let a = TcAction {
            index,
            verdict: Verdict::Drop,
            flags: self.config.policy.action_flags(),
            ..TcAction::pipe(ActionSpec::Police(police))
        };
        let ack = self.ask(|w, seq| message::put_shared_action(w, seq, &a)).map_err(broke)?;
        if ack.errno != 0 {
            return Err(said(&ack));
        }
        self.meters.specs.insert(id.number, spec.clone());
        Ok(())
    }

    fn remove(&mut self, id: ObjectId) -> Result<ObjectStats, ObjectError> {
        self.known(id)?;
        self.settle();
        let users: usize = self.entries.values().map(|e| uses(&e.rule.actions, id.number)).sum();
        if users > 0 {
            return Err(ObjectError::InUse(id, users));
        }
        let last = self.read_meter(id.number).unwrap_or_default();
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
        self.meters.specs.remove(&id.number);
        Ok(last)
    }

    fn stats(&mut self, id: ObjectId) -> Result<ObjectStats, ObjectError> {
        self.known(id)?;
        self.read_meter(id.number)
    }

    fn list(&self) -> Vec<ObjectId> {
        self.meters.specs.keys().map(|n| ObjectId { kind: ObjectKind::Meter, number: *n }).collect()
    }
}
