//! The shared objects of the reference provider: all kinds, meters with token buckets.

use std::collections::BTreeMap;

use clock::Instant;

use crate::objects::{ObjectError, ObjectId, ObjectKind, ObjectSpec, ObjectStats, SharedObjects};

#[derive(Clone, Debug)]
struct Object {
    spec: ObjectSpec,
    stats: ObjectStats,
    users: usize,
    last: Option<Instant>,
    /// Tokens of a meter, in billionths of a packet or of a bit; full at the start.
    tokens: u128,
    filled: Option<Instant>,
}

/// Objects of a [`crate::memory::MemoryProvider`].
#[derive(Clone, Debug)]
pub(crate) struct MemoryObjects {
    limits: Vec<(ObjectKind, u32)>,
    objects: BTreeMap<ObjectId, Object>,
}

const SCALE: u128 = 1_000_000_000;

impl MemoryObjects {
    pub(crate) fn new(limits: Vec<(ObjectKind, u32)>) -> Self {
        MemoryObjects { limits, objects: BTreeMap::new() }
    }

    pub(crate) fn has(&self, id: ObjectId) -> bool {
        self.objects.contains_key(&id)
    }

    /// Changes how many entries use these objects.
    pub(crate) fn users(&mut self, ids: &[ObjectId], by: isize) {
        for id in ids {
            if let Some(o) = self.objects.get_mut(id) {
                o.users = o.users.saturating_add_signed(by);
            }
        }
    }

    /// No entry uses any object.
    pub(crate) fn unused(&mut self) {
        for o in self.objects.values_mut() {
            o.users = 0;
        }
    }

    /// Counts a packet in an object; false when a meter drops it.
    pub(crate) fn count(&mut self, id: ObjectId, len_bytes: u32, now: Instant) -> bool {
        let Some(o) = self.objects.get_mut(&id) else {
            return true;
        };
        o.stats.packets += 1;
        o.stats.bytes += u64::from(len_bytes);
        o.last = Some(now);
        let ObjectSpec::Meter { rate_pps, rate_bps, burst } = o.spec else {
            return true;
        };
        let (rate, need) = if rate_pps > 0 { (rate_pps, 1) } else { (rate_bps, u128::from(len_bytes) * 8) };
        let size = u128::from(burst.max(1)) * SCALE;
        let dt = o.filled.map_or(u128::MAX, |t| (now - t).as_nanos());
        o.tokens = dt.saturating_mul(u128::from(rate)).saturating_add(o.tokens).min(size);
        o.filled = Some(now);
        let need = need * SCALE;
        if o.tokens >= need {
            o.tokens -= need;
            return true;
        }
        o.stats.dropped_packets += 1;
        o.stats.dropped_bytes += u64::from(len_bytes);
        false
    }
}

impl SharedObjects for MemoryObjects {
    fn put(&mut self, id: ObjectId, spec: &ObjectSpec) -> Result<(), ObjectError> {
        let limit = self.limits.iter().find(|(k, _)| *k == id.kind).map_or(0, |(_, n)| *n);
        if limit == 0 {
            return Err(ObjectError::Unsupported(id.kind));
        }
        if spec.kind() != id.kind {
            return Err(ObjectError::Device(format!("a {} is not a {}", spec.kind(), id.kind)));
        }
        if let Some(o) = self.objects.get_mut(&id) {
            o.spec = spec.clone();
            return Ok(());
        }
        if self.objects.keys().filter(|o| o.kind == id.kind).count() >= limit as usize {
            return Err(ObjectError::Full(id.kind));
        }
        let o = Object {
            spec: spec.clone(),
            stats: ObjectStats::default(),
            users: 0,
            last: None,
            tokens: 0,
            filled: None,
        };
        self.objects.insert(id, o);
        Ok(())
    }

    fn remove(&mut self, id: ObjectId) -> Result<ObjectStats, ObjectError> {
        match self.objects.get(&id) {
            None => Err(ObjectError::Missing(id)),
            Some(o) if o.users > 0 => Err(ObjectError::InUse(id, o.users)),
            Some(_) => Ok(self.objects.remove(&id).map(|o| o.stats).unwrap_or_default()),
        }
    }

    fn stats(&mut self, id: ObjectId) -> Result<ObjectStats, ObjectError> {
        self.objects.get(&id).map(|o| o.stats).ok_or(ObjectError::Missing(id))
    }

    fn list(&self) -> Vec<ObjectId> {
        self.objects.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_lets_its_burst_and_its_rate_through() {
        let mut m = MemoryObjects::new(vec![(ObjectKind::Meter, 1)]);
        let id = ObjectId { kind: ObjectKind::Meter, number: 1 };
        m.put(id, &ObjectSpec::Meter { rate_pps: 10, rate_bps: 0, burst: 2 }).expect("room");
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        let passed = [0, 0, 0, 100, 100].map(|ms| m.count(id, 100, at(ms)));
        assert_eq!(passed, [true, true, false, true, false]);
        assert_eq!(m.stats(id).map(|s| (s.packets, s.dropped_packets)), Ok((5, 2)));
    }
}
