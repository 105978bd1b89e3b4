//! The flow tables as the command ring sees them: all tables, meters and headers, entry names, counters, age (datasheet 6.3 to 6.7, 7).
//!
//! The lookup stages read the tables in their evaluation; commands change them between two cycles (in commit), so a
//! frame sees an entry whole, old or new. A frame is counted when it is looked up, together with the decision what
//! happens to it: an entry's counters are exactly the frames that executed it, also when it is removed a cycle later.
//!
//! Behavioural: what tables hold and what a command changes; stages and command engine have the timing.

use std::sync::Arc;

use simnic_defs::cmd::{AGE_NEVER, NEXT_END, TABLE_ALL, TABLE_EXACT, TABLE_LPM, TABLE_RANGE, TABLE_TERNARY};
use simnic_defs::entry::{key, key_defect};
use simnic_defs::{
    CmdCpl, CmdDesc, CmdStatus, DumpRecord, FlowEntry, HeaderSpec, HwAction, KEY_BYTES, KeyBytes, Opcode,
    StatsRecord,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::checkpoint::Wire;
use crate::config::Config;
use crate::connections::Connections;
use crate::evict::Waiting;
use crate::exact_table::ExactTable;
use crate::lpm_table::LpmTable;
use crate::objects::{Groups, Headers, Meters, Objects};
use crate::ternary_table::TernaryTable;

/// Actions of an entry, shared with the frames that execute them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ActionList {
    pub actions: Box<[HwAction]>,
    /// Whether [`crate::edit::exception`] must be asked.
    pub may_except: bool,
    /// Whether it sends frames round again ([`crate::again`]), which is all it does then.
    pub goes_on: bool,
    /// The headers that the actions name, as they were when the entry was written.
    pub headers: Box<[(u16, Arc<HeaderSpec>)]>,
    /// The groups that they name, likewise.
    pub groups: Box<[(u16, u16)]>,
}

kernel::state!(struct ActionList { actions: via Wire, may_except, goes_on, headers: via Wire, groups });

impl ActionList {
    /// The ports of group `number`, a bit for each.
    pub fn group(&self, number: u16) -> u16 {
        self.groups.iter().find(|(n, _)| *n == number).map_or(0, |(_, ports)| *ports)
    }

    /// Header `number`.
    pub fn header(&self, number: u16) -> Option<&HeaderSpec> {
        self.headers.iter().find(|(n, _)| *n == number).map(|(_, h)| &**h)
    }
}

/// What all tables keep for an entry.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub name: u32,
    pub cookie: u64,
    pub actions: Arc<ActionList>,
    pub packets: u64,
    pub bytes: u64,
    /// How often its counters were evicted, and whether they are to be ([`crate::evict`]).
    pub evictions: u16,
    pub full: bool,
    /// Time of the last hit; none yet when [`AGE_NEVER`].
    pub last_ns: u64,
}

kernel::state!(struct Entry { name, cookie, actions, packets, bytes, evictions, full, last_ns });

/// Widths of counters, as masks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CounterMasks {
    pub packets: u64,
    pub bytes: u64,
}

kernel::state!(struct CounterMasks { packets, bytes });

impl Entry {
    /// One that drops.
    #[cfg(test)]
    pub fn empty() -> Self {
        let actions = Arc::new(ActionList {
            actions: [].into(),
            may_except: false,
            goes_on: false,
            headers: [].into(),
            groups: [].into(),
        });
        Entry::new(0, actions)
    }

    pub fn new(cookie: u64, actions: Arc<ActionList>) -> Self {
        let (packets, bytes, last_ns) = (0, 0, AGE_NEVER);
        Entry { name: 0, cookie, actions, packets, bytes, evictions: 0, full: false, last_ns }
    }

    pub fn age_ns(&self, now_ns: u64) -> u64 {
        if self.last_ns == AGE_NEVER { AGE_NEVER } else { now_ns.saturating_sub(self.last_ns) }
    }
}

/// Why an entry was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    pub status: CmdStatus,
    pub detail: u32,
    pub entry: u32,
}

impl From<CmdStatus> for Refusal {
    fn from(status: CmdStatus) -> Self {
        Refusal { status, detail: 0, entry: 0 }
    }
}

/// All tables.
#[derive(Clone)]
pub(crate) struct Tables {
    pub exact: ExactTable,
    pub lpm: LpmTable,
    pub range: TernaryTable,
    pub ternary: TernaryTable,
    pub objects: Objects,
    pub masks: CounterMasks,
    /// Entries whose counters are to be evicted.
    pub evict: Waiting,
    ports: u8,
    recirculates: bool,
}

kernel::state!(struct Tables { exact, lpm, range, ternary, objects, masks: fixed, evict, ports: fixed, recirculates: fixed });

impl Tables {
    pub fn new(c: &Config) -> Self {
        let mask = |bits: u8| if bits >= 64 { u64::MAX } else { (1 << bits) - 1 };
        Tables {
            exact: ExactTable::new(&c.exact),
            lpm: LpmTable::new(c.lpm.entries, c.lpm.profiles),
            range: TernaryTable::new(c.range.entries, true),
            ternary: TernaryTable::new(c.ternary.entries, false),
            objects: Objects {
                meters: Meters::new(c.meters.entries),
                headers: Headers::new(c.tunnels.headers),
                groups: Groups::new(c.groups.entries),
                connections: Connections::new(c.connections.entries),
            },
            masks: CounterMasks { packets: mask(c.counters.packet_bits), bytes: mask(c.counters.byte_bits) },
            evict: Waiting::default(),
            ports: c.device.ports,
            recirculates: c.recirculates(),
        }
    }

    /// Executes a command that concerns the tables. `payload` is what the command's address pointed to. Commands that
    /// write records append them to `records`.
    pub fn execute(&mut self, d: &CmdDesc, payload: &[u8], now_ns: u64, records: &mut Vec<u8>) -> CmdCpl {
        let result = match Opcode::try_from(d.opcode) {
            Ok(Opcode::Nop | Opcode::PortSet) => Ok(CmdCpl::of(d, CmdStatus::Ok)),
            Ok(Opcode::ProfileSet) => self.profile_set(d, payload),
            Ok(Opcode::ProfileClear) => match d.table {
                TABLE_EXACT => self.exact.clear_profile(d.profile),
                TABLE_LPM => self.lpm.clear_profile(d.profile),
                _ => Err(CmdStatus::BadTable.into()),
            }
            .map(|()| CmdCpl::of(d, CmdStatus::Ok)),
            Ok(Opcode::MeterSet) => {
                self.objects.meters.set(d.entry.get(), payload).map(|()| CmdCpl::of(d, CmdStatus::Ok))
            }
            Ok(Opcode::MeterClear) => {
                self.objects.meters.clear(d.entry.get()).map(|()| CmdCpl::of(d, CmdStatus::Ok))
            }
            Ok(Opcode::MeterRead) => self.objects.meters.read(d.entry.get(), now_ns).map(|r| {
                records.extend_from_slice(r.as_bytes());
                CmdCpl::of(d, CmdStatus::Ok)
            }),
            Ok(Opcode::HeaderSet) => {
                self.objects.headers.set(d.entry.get(), payload).map(|()| CmdCpl::of(d, CmdStatus::Ok))
            }
            Ok(Opcode::GroupSet) => {
                let set = self.objects.groups.set(d.entry.get(), d.arg.get(), self.ports);
                set.map(|()| CmdCpl::of(d, CmdStatus::Ok))
            }
            Ok(Opcode::ConnSet) => {
                let set = self.objects.connections.set(d.entry.get(), payload, now_ns);
                set.map(|()| CmdCpl::of(d, CmdStatus::Ok))
            }
            Ok(Opcode::ConnClear) => {
                self.objects.connections.clear(d.entry.get()).map(|()| CmdCpl::of(d, CmdStatus::Ok))
            }
            Ok(Opcode::ConnRead) => self.objects.connections.read(d.entry.get(), now_ns).map(|r| {
                records.extend_from_slice(r.as_bytes());
                CmdCpl::of(d, CmdStatus::Ok)
            }),
            Ok(Opcode::Install) => self.install(d, payload),
            Ok(Opcode::Replace) => self.replace(d, payload, now_ns),
            Ok(Opcode::Remove) => self.remove(d, now_ns),
            Ok(Opcode::ReadStats) => self.read(d, now_ns, records, false),
            Ok(Opcode::Dump) => self.read(d, now_ns, records, true),
            Ok(Opcode::Flush) => self.flush(d),
            Err(_) => Err(CmdStatus::BadOpcode.into()),
        };
        result.unwrap_or_else(|r| {
            let mut c = CmdCpl::of(d, r.status);
            c.detail = r.detail.into();
            c.entry = r.entry.into();
            c
        })
    }

    fn profile_set(&mut self, d: &CmdDesc, payload: &[u8]) -> Result<CmdCpl, Refusal> {
        let mask: &KeyBytes = payload.first_chunk().ok_or(CmdStatus::BadLength)?;
        match d.table {
            TABLE_EXACT => self.exact.set_profile(d.profile, mask)?,
            TABLE_LPM => self.lpm.set_profile(d.profile, mask)?,
            _ => return Err(CmdStatus::BadTable.into()),
        }
        Ok(CmdCpl::of(d, CmdStatus::Ok))
    }

    fn actions(&self, e: &FlowEntry) -> Result<Arc<ActionList>, Refusal> {
        let refuse = |status, index: usize| Refusal { status, detail: index as u32, entry: 0 };
        let actions = e.actions().map_err(|x| refuse(CmdStatus::BadAction, x.index))?;
        let bad_port = |a: &HwAction| matches!(a, HwAction::Output { port } if *port >= self.ports);
        if let Some(i) = actions.iter().position(bad_port) {
            return Err(refuse(CmdStatus::BadPort, i));
        }
        let (mut headers, mut groups) = (Vec::new(), Vec::new());
        for (i, a) in actions.iter().enumerate() {
            match a {
                HwAction::Meter { meter } if !self.objects.meters.is_set(*meter) => {
                    return Err(refuse(CmdStatus::BadObject, i));
                }
                HwAction::PushHeader { header } => match self.objects.headers.get(*header) {
                    Some(h) => headers.push((*header, h.clone())),
                    None => return Err(refuse(CmdStatus::BadObject, i)),
                },
                HwAction::Replicate { group } => match self.objects.groups.get(*group) {
                    Some(ports) => groups.push((*group, ports)),
                    None => return Err(refuse(CmdStatus::BadObject, i)),
                },
                _ => {}
            }
        }
        let may_except = actions
            .iter()
            .any(|a| matches!(a, HwAction::DecTtl | HwAction::PushVlan { .. } | HwAction::PushHeader { .. }));
        let goes_on = actions.iter().any(HwAction::goes_on);
        let tracks = actions.iter().any(|a| matches!(a, HwAction::Track { .. }));
        if goes_on && !self.recirculates || tracks && self.objects.connections.slots() == 0 {
            return Err(refuse(CmdStatus::BadAction, 0));
        }
        Ok(Arc::new(ActionList {
            actions: actions.into(),
            may_except,
            goes_on,
            headers: headers.into(),
            groups: groups.into(),
        }))
    }

    fn decoded(&self, payload: &[u8]) -> Result<(FlowEntry, Arc<ActionList>), Refusal> {
        let e = FlowEntry::decode(payload).map_err(|_| CmdStatus::BadLength)?;
        let actions = self.actions(&e)?;
        Ok((e, actions))
    }

    fn install(&mut self, d: &CmdDesc, payload: &[u8]) -> Result<CmdCpl, Refusal> {
        self.check_table(d.table)?;
        let (e, actions) = self.decoded(payload)?;
        let list = actions.clone();
        let new = Entry::new(e.cookie.get(), actions);
        let name = match d.table {
            TABLE_EXACT => {
                exact_mask_is_zero(&e)?;
                self.exact.install(d.profile, &e.key, new)?
            }
            TABLE_LPM => self.lpm.install(d.profile, &e.key, &e.mask, new)?,
            TABLE_RANGE => {
                bad_key(range_defect(&e.key, &e.mask))?;
                self.range.install(d.priority.get(), &e.key, &e.mask, new)?
            }
            _ => {
                bad_key(key_defect(&e.key, &e.mask))?;
                self.ternary.install(d.priority.get(), &e.key, &e.mask, new)?
            }
        };
        self.objects.hold(&list, 1);
        let mut c = CmdCpl::of(d, CmdStatus::Ok);
        c.entry = name.into();
        Ok(c)
    }

    fn replace(&mut self, d: &CmdDesc, payload: &[u8], now_ns: u64) -> Result<CmdCpl, Refusal> {
        self.check_table(d.table)?;
        let name = d.entry.get();
        let old = match d.table {
            TABLE_EXACT => self.exact.key_of(name).map(|k| (*k, [0; KEY_BYTES])),
            TABLE_LPM => self.lpm.key_of(name),
            TABLE_RANGE => self.range.key_of(name),
            _ => self.ternary.key_of(name),
        };
        let (key, mask) = old.ok_or(CmdStatus::NoEntry)?;
        let (e, actions) = self.decoded(payload)?;
        let differs = (0..KEY_BYTES).find(|i| e.key[*i] != key[*i] || e.mask[*i] != mask[*i]);
        bad_key(differs)?;
        match d.table {
            TABLE_EXACT => self.exact.heal(name),
            TABLE_LPM => self.lpm.heal(name),
            TABLE_RANGE => self.range.heal(name),
            _ => self.ternary.heal(name),
        }
        let entry = self.entry_mut(d.table, name).ok_or(CmdStatus::NoEntry)?;
        let c = with_counters(d, entry, now_ns);
        let old = std::mem::replace(&mut entry.actions, actions.clone());
        entry.cookie = e.cookie.get();
        self.objects.hold(&actions, 1);
        self.objects.hold(&old, -1);
        Ok(c)
    }

    /// The entry in a slot of a table.
    pub fn entry_at_mut(&mut self, table: u8, slot: usize) -> Option<&mut Entry> {
        match table {
            TABLE_EXACT => self.exact.entry_at_mut(slot),
            TABLE_LPM => self.lpm.entry_at_mut(slot),
            TABLE_RANGE => self.range.entry_at_mut(slot),
            _ => self.ternary.entry_at_mut(slot),
        }
    }

    /// No entry waits for its counters to be evicted.
    pub fn none_waits(&mut self) {
        self.evict.reset();
        for table in [TABLE_EXACT, TABLE_LPM, TABLE_RANGE, TABLE_TERNARY] {
            for slot in 0..self.slots(table) {
                if let Some(e) = self.entry_at_mut(table, slot) {
                    e.full = false;
                }
            }
        }
    }

    /// The entry in a slot has executed a frame of so many bytes.
    pub fn count_at(&mut self, table: u8, slot: usize, bytes: usize, now_ns: u64) {
        let masks = self.masks;
        if let Some(e) = self.entry_at_mut(table, slot)
            && e.count(bytes, now_ns, masks)
        {
            let name = e.name;
            self.evict.note(table, name);
        }
    }

    /// An entry has executed a frame of so many bytes.
    pub fn count(&mut self, table: u8, name: u32, bytes: usize, now_ns: u64) {
        let masks = self.masks;
        if self.entry_mut(table, name).is_some_and(|e| e.count(bytes, now_ns, masks)) {
            self.evict.note(table, name);
        }
    }

    /// An entry of a table by its name.
    pub fn entry_mut(&mut self, table: u8, name: u32) -> Option<&mut Entry> {
        match table {
            TABLE_EXACT => self.exact.get_mut(name),
            TABLE_LPM => self.lpm.get_mut(name),
            TABLE_RANGE => self.range.get_mut(name),
            _ => self.ternary.get_mut(name),
        }
    }

    /// An entry of a table by its name.
    pub fn entry(&self, table: u8, name: u32) -> Option<&Entry> {
        match table {
            TABLE_EXACT => self.exact.get(name),
            TABLE_LPM => self.lpm.get(name),
            TABLE_RANGE => self.range.get(name),
            _ => self.ternary.get(name),
        }
    }

    /// Makes the entry in `slot` unreadable; false when there is none.
    pub fn spoil(&mut self, table: u8, slot: usize) -> bool {
        match table {
            TABLE_EXACT => self.exact.spoil(slot),
            TABLE_LPM => self.lpm.spoil(slot),
            TABLE_RANGE => self.range.spoil(slot),
            _ => self.ternary.spoil(slot),
        }
    }

    fn remove(&mut self, d: &CmdDesc, now_ns: u64) -> Result<CmdCpl, Refusal> {
        self.check_table(d.table)?;
        let gone = match d.table {
            TABLE_EXACT => self.exact.remove(d.entry.get()),
            TABLE_LPM => self.lpm.remove(d.entry.get()),
            TABLE_RANGE => self.range.remove(d.entry.get()),
            _ => self.ternary.remove(d.entry.get()),
        };
        let gone = gone.ok_or(CmdStatus::NoEntry)?;
        self.objects.hold(&gone.actions, -1);
        Ok(with_counters(d, &gone, now_ns))
    }

    fn flush(&mut self, d: &CmdDesc) -> Result<CmdCpl, Refusal> {
        if d.table != TABLE_ALL {
            self.check_table(d.table)?;
            for slot in 0..self.slots(d.table) {
                if let Some((e, ..)) = self.at(d.table, slot) {
                    let list = e.actions.clone();
                    self.objects.hold(&list, -1);
                }
            }
        }
        let removed = match d.table {
            TABLE_EXACT => self.exact.flush(),
            TABLE_LPM => self.lpm.flush(),
            TABLE_RANGE => self.range.flush(),
            TABLE_TERNARY => self.ternary.flush(),
            _ => self.flush_all(),
        };
        let mut c = CmdCpl::of(d, CmdStatus::Ok);
        c.count = (removed as u32).into();
        Ok(c)
    }

    /// Removes every entry and profile; returns how many entries there were.
    pub fn flush_all(&mut self) -> usize {
        let n = self.exact.flush() + self.lpm.flush() + self.range.flush() + self.ternary.flush();
        self.exact.clear_profiles();
        self.lpm.clear_profiles();
        self.objects.unused();
        n
    }

    /// Everything is as after a reset.
    pub fn reset(&mut self) {
        self.flush_all();
        self.objects.meters.reset();
        self.objects.headers.reset();
        self.objects.groups.reset();
        self.objects.connections.reset();
        self.evict.reset();
    }

    /// Entries that `table` has room for.
    fn slots(&self, table: u8) -> usize {
        match table {
            TABLE_EXACT => self.exact.slots(),
            TABLE_LPM => self.lpm.slots(),
            TABLE_RANGE => self.range.slots(),
            _ => self.ternary.slots(),
        }
    }

    /// Entries in `table`, or in all.
    pub fn entries(&self, table: u8) -> usize {
        match table {
            TABLE_EXACT => self.exact.entries(),
            TABLE_LPM => self.lpm.entries(),
            TABLE_RANGE => self.range.entries(),
            TABLE_TERNARY => self.ternary.entries(),
            _ => [TABLE_EXACT, TABLE_LPM, TABLE_RANGE, TABLE_TERNARY].map(|t| self.entries(t)).iter().sum(),
        }
    }

    /// The device has `table`.
    fn check_table(&self, table: u8) -> Result<(), Refusal> {
        match table {
            TABLE_EXACT | TABLE_TERNARY => Ok(()),
            TABLE_LPM | TABLE_RANGE if self.slots(table) > 0 => Ok(()),
            _ => Err(CmdStatus::BadTable.into()),
        }
    }

    /// Entry, key, mask, priority and profile in a slot of `table`.
    fn at(&self, table: u8, slot: usize) -> Option<(&Entry, KeyBytes, KeyBytes, u32, u8)> {
        match table {
            TABLE_EXACT => self.exact.at(slot).map(|(e, k, profile)| (e, *k, [0; KEY_BYTES], 0, profile)),
            TABLE_LPM => self.lpm.at(slot).map(|(e, k, m, profile)| (e, k, m, 0, profile)),
            TABLE_RANGE => self.range.at(slot).map(|(e, k, m, priority)| (e, k, m, priority, 0)),
            _ => self.ternary.at(slot).map(|(e, k, m, priority)| (e, k, m, priority, 0)),
        }
    }

    fn read(&self, d: &CmdDesc, now_ns: u64, out: &mut Vec<u8>, whole: bool) -> Result<CmdCpl, Refusal> {
        self.check_table(d.table)?;
        let (mut slot, slots) = (d.entry.get() as usize, self.slots(d.table));
        let mut count = 0;
        while slot < slots && count < d.count.get() {
            let found = self.at(d.table, slot);
            slot += 1;
            let Some((e, key, mask, priority, profile)) = found else { continue };
            count += 1;
            let stats = stats_record(d.table, e, now_ns);
            if !whole {
                out.extend_from_slice(stats.as_bytes());
                continue;
            }
            let mut r = DumpRecord::new_zeroed();
            r.stats = stats;
            r.priority = priority.into();
            r.profile = profile;
            // An installed entry has no more actions than fit.
            if let Some(f) = FlowEntry::new(key, mask, e.cookie, &e.actions.actions) {
                r.entry = f;
            }
            out.extend_from_slice(r.as_bytes());
        }
        let mut c = CmdCpl::of(d, CmdStatus::Ok);
        c.count = count.into();
        c.next = if slot >= slots { NEXT_END } else { slot as u32 }.into();
        Ok(c)
    }
}

fn stats_record(table: u8, e: &Entry, now_ns: u64) -> StatsRecord {
    StatsRecord {
        entry: e.name.into(),
        table,
        reserved: 0,
        evictions: e.evictions.into(),
        packets: e.packets.into(),
        bytes: e.bytes.into(),
        age_ns: e.age_ns(now_ns).into(),
    }
}

fn with_counters(d: &CmdDesc, e: &Entry, now_ns: u64) -> CmdCpl {
    let mut c = CmdCpl::of(d, CmdStatus::Ok);
    c.entry = e.name.into();
    c.packets = e.packets.into();
    c.bytes = e.bytes.into();
    c.age_ns = e.age_ns(now_ns).into();
    c.evictions = e.evictions.into();
    c
}

/// First byte that is wrong of a key whose transport ports are the first of a range, and those of the mask the last.
fn range_defect(k: &KeyBytes, mask: &KeyBytes) -> Option<usize> {
    let ports = key::L4_SRC.start..key::L4_DST.end;
    let backwards = [key::L4_SRC, key::L4_DST].into_iter().find(|r| k[r.clone()] > mask[r.clone()]);
    let (mut k, mut mask) = (*k, *mask);
    k[ports.clone()].fill(0);
    mask[ports].fill(0);
    key_defect(&k, &mask).or(backwards.map(|r| r.start))
}

fn exact_mask_is_zero(e: &FlowEntry) -> Result<(), Refusal> {
    bad_key(e.mask.iter().position(|b| *b != 0))
}

pub(crate) fn bad_key(at: Option<usize>) -> Result<(), Refusal> {
    match at {
        None => Ok(()),
        Some(i) => Err(Refusal { status: CmdStatus::BadKey, detail: i as u32, entry: 0 }),
    }
}
