//! Meters, headers for tunnels, replication groups (datasheet 8).
//!
//! Behavioural: a meter is asked, and a header put on, while the action engine has the frame; neither takes it more time. A bucket is
//! kept as the time at which it would be full again, in sixteenths of a nanosecond (the generic cell rate algorithm, ITU-T I.371).

use std::sync::Arc;

use simnic_defs::cmd::AGE_NEVER;
use simnic_defs::{CmdStatus, HeaderSpec, HwAction, MeterRecord, MeterSpec};

use crate::checkpoint::Wire;
use crate::connections::Connections;
use crate::tables::{ActionList, Refusal};

/// Sixteenths of a nanosecond in a second.
const SECOND: u128 = 16_000_000_000;

#[derive(Clone, Debug)]
struct Meter {
    spec: MeterSpec,
    full_at: u64,
    packets: u64,
    bytes: u64,
    dropped_packets: u64,
    dropped_bytes: u64,
    last_ns: u64,
    users: u32,
}

kernel::state!(struct Meter {
    spec: via Wire, full_at, packets, bytes, dropped_packets, dropped_bytes, last_ns, users,
});

/// All meters, by number.
#[derive(Clone, Debug)]
pub(crate) struct Meters(Vec<Option<Meter>>);

kernel::state!(struct Meters(all: sized));

/// Time in which `tokens` come.
fn time_of(spec: &MeterSpec, tokens: u128) -> u64 {
    let rate = spec.rate_pps.get().max(spec.rate_bps.get()).max(1);
    u64::try_from(tokens.saturating_mul(SECOND) / u128::from(rate)).unwrap_or(u64::MAX)
}

impl Meters {
    pub fn new(n: u16) -> Self {
        Meters((0..n).map(|_| None).collect())
    }

    pub fn is_set(&self, meter: u16) -> bool {
        self.0.get(usize::from(meter)).is_some_and(Option::is_some)
    }

    /// Meters that are set.
    pub fn used(&self) -> usize {
        self.0.iter().flatten().count()
    }

    pub fn slots(&self) -> usize {
        self.0.len()
    }

    /// Sets a meter, its bucket full.
    pub fn set(&mut self, meter: u32, payload: &[u8]) -> Result<(), Refusal> {
        let spec = MeterSpec::decode(payload).map_err(|_| CmdStatus::BadObject)?;
        let m = self.0.get_mut(meter as usize).ok_or(CmdStatus::BadObject)?;
        match m {
            Some(m) => (m.spec, m.full_at) = (spec, 0),
            None => {
                *m = Some(Meter {
                    spec,
                    full_at: 0,
                    packets: 0,
                    bytes: 0,
                    dropped_packets: 0,
                    dropped_bytes: 0,
                    last_ns: AGE_NEVER,
                    users: 0,
                });
            }
        }
        Ok(())
    }

    pub fn clear(&mut self, meter: u32) -> Result<(), Refusal> {
        let m = self.0.get_mut(meter as usize).ok_or(CmdStatus::BadObject)?;
        match m {
            None => Err(CmdStatus::BadObject.into()),
            Some(x) if x.users > 0 => Err(CmdStatus::ProfileBusy.into()),
            Some(_) => {
                *m = None;
                Ok(())
            }
        }
    }

    pub fn read(&self, meter: u32, now_ns: u64) -> Result<MeterRecord, Refusal> {
        let m = self.0.get(meter as usize).and_then(Option::as_ref).ok_or(CmdStatus::BadObject)?;
        let age = if m.last_ns == AGE_NEVER { AGE_NEVER } else { now_ns.saturating_sub(m.last_ns) };
        Ok(MeterRecord {
            packets: m.packets.into(),
            bytes: m.bytes.into(),
            dropped_packets: m.dropped_packets.into(),
            dropped_bytes: m.dropped_bytes.into(),
            age_ns: age.into(),
        })
    }

    /// Whether a frame of `len` bytes passes. One that was taken away meanwhile lets all pass.
    pub fn offer(&mut self, meter: u16, len: usize, now_ns: u64) -> bool {
        let Some(Some(m)) = self.0.get_mut(usize::from(meter)) else { return true };
        m.packets += 1;
        m.bytes += len as u64;
        m.last_ns = now_ns;
        let need = if m.spec.rate_pps.get() > 0 { 1 } else { len as u128 * 8 };
        let now = now_ns.saturating_mul(16);
        let next = m.full_at.max(now).saturating_add(time_of(&m.spec, need));
        let passes = next - now <= time_of(&m.spec, m.spec.burst.get().into());
        if passes {
            m.full_at = next;
        } else {
            m.dropped_packets += 1;
            m.dropped_bytes += len as u64;
        }
        passes
    }

    /// So many more entries use the meters of `list`.
    fn hold(&mut self, list: &ActionList, by: i32) {
        for a in &list.actions {
            if let HwAction::Meter { meter } = a
                && let Some(Some(m)) = self.0.get_mut(usize::from(*meter))
            {
                m.users = m.users.saturating_add_signed(by);
            }
        }
    }

    fn unused(&mut self) {
        self.0.iter_mut().flatten().for_each(|m| m.users = 0);
    }

    /// Everything is as after a reset.
    pub fn reset(&mut self) {
        self.0.iter_mut().for_each(|m| *m = None);
    }
}

/// All headers, by number. Frames under way keep theirs.
#[derive(Clone, Debug)]
pub(crate) struct Headers(Vec<(Option<Arc<HeaderSpec>>, u32)>);

kernel::state!(struct Headers(all: via Wire));

impl Headers {
    pub fn new(n: u16) -> Self {
        Headers(vec![(None, 0); usize::from(n)])
    }

    pub fn get(&self, header: u16) -> Option<&Arc<HeaderSpec>> {
        self.0.get(usize::from(header))?.0.as_ref()
    }

    /// Headers that entries use.
    pub fn used(&self) -> usize {
        self.0.iter().filter(|(_, users)| *users > 0).count()
    }

    pub fn slots(&self) -> usize {
        self.0.len()
    }

    pub fn set(&mut self, header: u32, payload: &[u8]) -> Result<(), Refusal> {
        let spec = HeaderSpec::decode(payload).map_err(|_| CmdStatus::BadObject)?;
        match self.0.get_mut(header as usize) {
            None => Err(CmdStatus::BadObject.into()),
            Some((_, users)) if *users > 0 => Err(CmdStatus::ProfileBusy.into()),
            Some((h, _)) => {
                *h = Some(Arc::new(spec));
                Ok(())
            }
        }
    }

    fn hold(&mut self, list: &ActionList, by: i32) {
        for a in &list.actions {
            if let HwAction::PushHeader { header } = a
                && let Some((_, users)) = self.0.get_mut(usize::from(*header))
            {
                *users = users.saturating_add_signed(by);
            }
        }
    }

    fn unused(&mut self) {
        self.0.iter_mut().for_each(|(_, users)| *users = 0);
    }

    pub fn reset(&mut self) {
        self.0.iter_mut().for_each(|h| *h = (None, 0));
    }
}

/// All replication groups, by number: their ports, and how many entries use them.
#[derive(Clone, Debug)]
pub(crate) struct Groups(Vec<(Option<u16>, u32)>);

kernel::state!(struct Groups(all: sized));

impl Groups {
    pub fn new(n: u16) -> Self {
        Groups(vec![(None, 0); usize::from(n)])
    }

    /// A bit for each port of it.
    pub fn get(&self, group: u16) -> Option<u16> {
        self.0.get(usize::from(group))?.0
    }

    /// Groups that entries use.
    pub fn used(&self) -> usize {
        self.0.iter().filter(|(_, users)| *users > 0).count()
    }

    pub fn slots(&self) -> usize {
        self.0.len()
    }

    /// Makes a group of these ports, of which there are `there`.
    pub fn set(&mut self, group: u32, ports: u64, there: u8) -> Result<(), Refusal> {
        let (g, users) = self.0.get_mut(group as usize).ok_or(CmdStatus::BadObject)?;
        if *users > 0 {
            return Err(CmdStatus::ProfileBusy.into());
        }
        if ports == 0 || ports >> there != 0 {
            return Err(CmdStatus::BadPort.into());
        }
        *g = Some(ports as u16);
        Ok(())
    }

    fn hold(&mut self, list: &ActionList, by: i32) {
        for a in &list.actions {
            if let HwAction::Replicate { group } = a
                && let Some((_, users)) = self.0.get_mut(usize::from(*group))
            {
                *users = users.saturating_add_signed(by);
            }
        }
    }

    fn unused(&mut self) {
        self.0.iter_mut().for_each(|(_, users)| *users = 0);
    }

    pub fn reset(&mut self) {
        self.0.iter_mut().for_each(|g| *g = (None, 0));
    }
}

/// Meters, headers, groups and connections.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    pub meters: Meters,
    pub headers: Headers,
    pub groups: Groups,
    pub connections: Connections,
}

kernel::state!(struct Objects { meters, headers, groups, connections });

impl Objects {
    /// An entry with `list` comes (1) or goes (-1).
    pub fn hold(&mut self, list: &ActionList, by: i32) {
        self.meters.hold(list, by);
        self.headers.hold(list, by);
        self.groups.hold(list, by);
    }

    /// No entry uses any; what is known of which stays.
    pub fn unused(&mut self) {
        self.meters.unused();
        self.headers.unused();
        self.groups.unused();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    fn meter(pps: u64, bps: u64, burst: u64) -> Meters {
        let mut m = Meters::new(2);
        let spec =
            MeterSpec { rate_pps: pps.into(), rate_bps: bps.into(), burst: burst.into(), reserved: 0.into() };
        m.set(1, spec.as_bytes()).unwrap();
        m
    }

    #[test]
    fn a_meter_lets_its_burst_and_its_rate_through_and_counts_the_rest() {
        let mut m = meter(10, 0, 2);
        let passed = [0u64, 0, 0, 100, 100].map(|ms| m.offer(1, 100, ms * 1_000_000));
        assert_eq!(passed, [true, true, false, true, false]);
        let r = m.read(1, 150_000_000).unwrap();
        assert_eq!((r.packets.get(), r.bytes.get(), r.dropped_packets.get()), (5, 500, 2));
        assert_eq!(r.age_ns.get(), 50_000_000);
        assert!(m.offer(0, 1, 0), "one that is not set lets pass");
    }

    #[test]
    fn over_a_second_as_many_bits_pass_as_the_rate_says() {
        let mut m = meter(0, 80_000_000, 12_000);
        let mut passed = 0u64;
        for i in 0..20_000u64 {
            passed += u64::from(m.offer(1, 1000, i * 50_000));
        }
        // 80 Mb/s are ten thousand frames of a thousand bytes, and the burst is one more.
        assert!((10_000..=10_001).contains(&passed), "{passed}");
        assert_eq!(m.clear(7).unwrap_err().status, CmdStatus::BadObject);
        assert!(m.clear(1).is_ok() && !m.is_set(1));
    }
}
