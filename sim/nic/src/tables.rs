//! The flow tables as the command ring sees them: both tables, entry names, counters, age (datasheet 6.3 to 6.7, 7).
//!
//! The lookup stages read the tables in their evaluation; commands change them between two cycles (in commit), so a
//! frame sees an entry whole, old or new. A frame is counted when it is looked up, together with the decision what
//! happens to it: an entry's counters are exactly the frames that executed it, also when it is removed a cycle later.

use std::sync::Arc;

use simnic_defs::cmd::{AGE_NEVER, NEXT_END, TABLE_ALL, TABLE_EXACT, TABLE_TERNARY};
use simnic_defs::entry::key_defect;
use simnic_defs::{
    CmdCpl, CmdDesc, CmdStatus, DumpRecord, FlowEntry, HwAction, KEY_BYTES, KeyBytes, Opcode, StatsRecord,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::config::Config;
use crate::exact_table::ExactTable;
use crate::ternary_table::TernaryTable;

/// Actions of an entry, shared with the frames that execute them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ActionList {
    pub actions: Box<[HwAction]>,
    /// Whether [`crate::edit::exception`] must be asked.
    pub may_except: bool,
}

/// What both tables keep for an entry.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub name: u32,
    pub cookie: u64,
    pub actions: Arc<ActionList>,
    pub packets: u64,
    pub bytes: u64,
    /// Time of the last hit; none yet when [`AGE_NEVER`].
    pub last_ns: u64,
}

/// Widths of counters, as masks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CounterMasks {
    pub packets: u64,
    pub bytes: u64,
}

impl Entry {
    /// One that drops.
    #[cfg(test)]
    pub fn empty() -> Self {
        let actions = Arc::new(ActionList { actions: Box::new([]), may_except: false });
        Entry { name: 0, cookie: 0, actions, packets: 0, bytes: 0, last_ns: AGE_NEVER }
    }

    pub fn count(&mut self, bytes: usize, now_ns: u64, m: CounterMasks) {
        self.packets = self.packets.wrapping_add(1) & m.packets;
        self.bytes = self.bytes.wrapping_add(bytes as u64) & m.bytes;
        self.last_ns = now_ns;
    }

    pub fn age_ns(&self, now_ns: u64) -> u64 {
        if self.last_ns == AGE_NEVER { AGE_NEVER } else { now_ns.saturating_sub(self.last_ns) }
    }
}

/// Entry names: slot in the low 20 bits, how often the slot was used in the upper 12.
pub(crate) fn entry_name(slot: usize, uses: u32) -> u32 {
    (uses & 0xfff) << 20 | slot as u32 & 0xf_ffff
}

/// Slot of an entry name.
pub(crate) fn slot_of_name(name: u32) -> usize {
    (name & 0xf_ffff) as usize
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

/// Both tables.
#[derive(Clone)]
pub(crate) struct Tables {
    pub exact: ExactTable,
    pub ternary: TernaryTable,
    pub masks: CounterMasks,
    ports: u8,
}

impl Tables {
    pub fn new(c: &Config) -> Self {
        let mask = |bits: u8| if bits >= 64 { u64::MAX } else { (1 << bits) - 1 };
        Tables {
            exact: ExactTable::new(&c.exact),
            ternary: TernaryTable::new(c.ternary.entries),
            masks: CounterMasks { packets: mask(c.counters.packet_bits), bytes: mask(c.counters.byte_bits) },
            ports: c.device.ports,
        }
    }

    /// Executes a command that concerns the tables. `payload` is what the command's address pointed to. Commands that
    /// write records append them to `records`.
    pub fn execute(&mut self, d: &CmdDesc, payload: &[u8], now_ns: u64, records: &mut Vec<u8>) -> CmdCpl {
        let result = match Opcode::try_from(d.opcode) {
            Ok(Opcode::Nop | Opcode::PortSet) => Ok(CmdCpl::of(d, CmdStatus::Ok)),
            Ok(Opcode::ProfileSet) => self.profile_set(d, payload),
            Ok(Opcode::ProfileClear) => {
                self.exact.clear_profile(d.profile).map(|()| CmdCpl::of(d, CmdStatus::Ok))
            }
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
        self.exact.set_profile(d.profile, mask)?;
        Ok(CmdCpl::of(d, CmdStatus::Ok))
    }

    fn actions(&self, e: &FlowEntry) -> Result<Arc<ActionList>, Refusal> {
        let refuse = |status, index: usize| Refusal { status, detail: index as u32, entry: 0 };
        let actions = e.actions().map_err(|x| refuse(CmdStatus::BadAction, x.index))?;
        let bad_port = |a: &HwAction| matches!(a, HwAction::Output { port } if *port >= self.ports);
        if let Some(i) = actions.iter().position(bad_port) {
            return Err(refuse(CmdStatus::BadPort, i));
        }
        let may_except = actions.iter().any(|a| matches!(a, HwAction::DecTtl | HwAction::PushVlan { .. }));
        Ok(Arc::new(ActionList { actions: actions.into(), may_except }))
    }

    fn entry(&self, payload: &[u8]) -> Result<(FlowEntry, Arc<ActionList>), Refusal> {
        let e = FlowEntry::decode(payload).map_err(|_| CmdStatus::BadLength)?;
        let actions = self.actions(&e)?;
        Ok((e, actions))
    }

    fn install(&mut self, d: &CmdDesc, payload: &[u8]) -> Result<CmdCpl, Refusal> {
        check_table(d.table)?;
        let (e, actions) = self.entry(payload)?;
        let new =
            Entry { name: 0, cookie: e.cookie.get(), actions, packets: 0, bytes: 0, last_ns: AGE_NEVER };
        let name = if d.table == TABLE_EXACT {
            exact_mask_is_zero(&e)?;
            self.exact.install(d.profile, &e.key, new)?
        } else {
            bad_key(key_defect(&e.key, &e.mask))?;
            self.ternary.install(d.priority.get(), &e.key, &e.mask, new)?
        };
        let mut c = CmdCpl::of(d, CmdStatus::Ok);
        c.entry = name.into();
        Ok(c)
    }

    fn replace(&mut self, d: &CmdDesc, payload: &[u8], now_ns: u64) -> Result<CmdCpl, Refusal> {
        check_table(d.table)?;
        let name = d.entry.get();
        let old = match d.table {
            TABLE_EXACT => self.exact.key_of(name).map(|k| (*k, [0; KEY_BYTES])),
            _ => self.ternary.key_of(name),
        };
        let (key, mask) = old.ok_or(CmdStatus::NoEntry)?;
        let (e, actions) = self.entry(payload)?;
        let differs = (0..KEY_BYTES).find(|i| e.key[*i] != key[*i] || e.mask[*i] != mask[*i]);
        bad_key(differs)?;
        match d.table {
            TABLE_EXACT => self.exact.heal(name),
            _ => self.ternary.heal(name),
        }
        let entry = match d.table {
            TABLE_EXACT => self.exact.get_mut(name),
            _ => self.ternary.get_mut(name),
        };
        let entry = entry.ok_or(CmdStatus::NoEntry)?;
        let c = with_counters(d, entry, now_ns);
        entry.actions = actions;
        entry.cookie = e.cookie.get();
        Ok(c)
    }

    /// Makes the entry in `slot` unreadable; false when there is none.
    pub fn spoil(&mut self, table: u8, slot: usize) -> bool {
        match table {
            TABLE_EXACT => self.exact.spoil(slot),
            _ => self.ternary.spoil(slot),
        }
    }

    fn remove(&mut self, d: &CmdDesc, now_ns: u64) -> Result<CmdCpl, Refusal> {
        check_table(d.table)?;
        let gone = match d.table {
            TABLE_EXACT => self.exact.remove(d.entry.get()),
            _ => self.ternary.remove(d.entry.get()),
        };
        Ok(with_counters(d, &gone.ok_or(CmdStatus::NoEntry)?, now_ns))
    }

    fn flush(&mut self, d: &CmdDesc) -> Result<CmdCpl, Refusal> {
        let removed = match d.table {
            TABLE_EXACT => self.exact.flush(),
            TABLE_TERNARY => self.ternary.flush(),
            TABLE_ALL => self.flush_all(),
            _ => return Err(CmdStatus::BadTable.into()),
        };
        let mut c = CmdCpl::of(d, CmdStatus::Ok);
        c.count = (removed as u32).into();
        Ok(c)
    }

    /// Removes every entry and profile; returns how many entries there were.
    pub fn flush_all(&mut self) -> usize {
        let n = self.exact.flush() + self.ternary.flush();
        self.exact.clear_profiles();
        n
    }

    fn read(&self, d: &CmdDesc, now_ns: u64, out: &mut Vec<u8>, whole: bool) -> Result<CmdCpl, Refusal> {
        check_table(d.table)?;
        let (mut slot, slots) = match d.table {
            TABLE_EXACT => (d.entry.get() as usize, self.exact.slots()),
            _ => (d.entry.get() as usize, self.ternary.slots()),
        };
        let mut count = 0;
        while slot < slots && count < d.count.get() {
            let found = match d.table {
                TABLE_EXACT => self.exact.at(slot).map(|(e, k, profile)| (e, *k, [0; KEY_BYTES], 0, profile)),
                _ => self.ternary.at(slot).map(|(e, k, m, priority)| (e, k, m, priority, 0)),
            };
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
        reserved: [0; 3],
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
    c
}

fn check_table(t: u8) -> Result<(), Refusal> {
    if t == TABLE_EXACT || t == TABLE_TERNARY { Ok(()) } else { Err(CmdStatus::BadTable.into()) }
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
