//! What is read from the tables in bulk, and what is waited for: statistics, dump, flush, ports.
//!
//! These commands are waited for, each within the command deadline; completions of other commands are handled meanwhile.

use std::sync::Arc;

use clock::Deadline;
use device::DeviceBacking;
use flow::FlowId;
use offload::{FlowRule, InstalledFlow, OffloadError, OpResult, StatsBatch, StatsCursor};
use simnic_defs::cmd::{NEXT_END, TABLE_ALL, TABLE_EXACT, TABLE_RANGE};
use simnic_defs::{CmdCpl, CmdDesc, CmdStatus, DumpRecord, Opcode, StatsRecord};

use crate::capability::{table_id, table_name, tables};
use crate::lower_action::raise_actions;
use crate::lower_match::{HwMatch, raise_match};
use crate::provider::{Job, SimnicProvider, from_ranges};

impl<B: DeviceBacking> SimnicProvider<B> {
    /// Executes one command and waits for it.
    pub(crate) fn execute(&mut self, d: CmdDesc) -> Result<CmdCpl, OffloadError> {
        self.execute_with(d, &[])
    }

    /// [`SimnicProvider::execute`], with what the command's address is to point to.
    pub(crate) fn execute_with(&mut self, d: CmdDesc, payload: &[u8]) -> Result<CmdCpl, OffloadError> {
        let what = Opcode::try_from(d.opcode).map_or_else(|e| e.to_string(), |o| format!("{o:?}"));
        let due = Deadline::after(self.backing.now(), self.config.cmd_timeout);
        self.answer = None;
        if self.cmd.submit(d, payload, Job::Sync, due).is_err() {
            return Err(OffloadError::Device("command ring is full".into()));
        }
        self.cmd.kick();
        loop {
            self.drain();
            if let Some((c, status)) = self.answer.take() {
                return match status {
                    CmdStatus::Ok => Ok(c),
                    s => Err(OffloadError::Device(format!("{what}: {s:?}, detail {}", c.detail.get()))),
                };
            }
            let cmd = &self.cmd;
            let waited = self.backing.wait_until(&mut || cmd.has_completion(), due);
            // Completions that are not true could go on for ever; the time and the violations cannot.
            if waited.is_err() || due.passed(self.backing.now()) {
                self.drain();
                if self.answer.is_none() {
                    let text = format!("{what} command not completed within {:?}", self.config.cmd_timeout);
                    self.fail(text.clone());
                    return Err(OffloadError::TimedOut(text));
                }
            }
        }
    }

    /// Executes a command that does nothing.
    pub(crate) fn nop(&mut self) -> Result<(), OffloadError> {
        self.execute(CmdDesc::new(Opcode::Nop, 0)).map(drop)
    }

    /// Takes a device port up or down.
    pub(crate) fn port_set(&mut self, port: u8, up: bool) -> Result<(), OffloadError> {
        let mut d = CmdDesc::new(Opcode::PortSet, 0);
        d.port = port;
        d.arg = u64::from(up).into();
        self.execute(d).map(drop)
    }

    fn answers(&self) -> Result<(), OffloadError> {
        offload::OffloadProvider::health(self)
    }

    /// One READ_STATS or DUMP from slot `from` of `table`: how many records are in the record area, and the next slot.
    fn read_table(
        &mut self,
        op: Opcode,
        (table, from): (u8, u32),
        record_bytes: usize,
        wanted: usize,
    ) -> Result<(usize, Option<u32>), OffloadError> {
        let mut d = CmdDesc::new(op, 0);
        d.table = table;
        d.entry = from.into();
        let asked = self.cmd.with_record_area(&mut d, record_bytes, wanted);
        let c = self.execute(d)?;
        let (n, next) = (c.count.get() as usize, c.next.get());
        if n > asked || next <= from {
            let text = format!("{op:?} from slot {from} gave {n} of {asked} records, next slot {next}");
            return Err(OffloadError::Device(text));
        }
        Ok((n, (next != NEXT_END).then_some(next)))
    }

    /// See [`offload::OffloadProvider::poll_stats`]. The cursor is the table in its upper half, the slot in its lower.
    pub(crate) fn read_stats(
        &mut self,
        cursor: &mut StatsCursor,
        budget: usize,
    ) -> Result<StatsBatch, OffloadError> {
        self.answers()?;
        let mut batch = StatsBatch::default();
        let (mut table, mut slot) = ((cursor.0 >> 32) as u8, cursor.0 as u32);
        let mut left = budget;
        while left > 0 {
            let (n, next) = self.read_table(Opcode::ReadStats, (table, slot), StatsRecord::BYTES, left)?;
            self.take_evicted();
            for i in 0..n {
                let mut b = [0u8; StatsRecord::BYTES];
                self.cmd.read_record(i, &mut b);
                let Ok(r) = StatsRecord::decode(&b) else { continue };
                // An entry without a handle is one whose INSTALL has not been looked at yet.
                let Some(handle) = self.entries.named(table, r.entry.get()) else { continue };
                let Some(flow) = self.entries.get(handle).map(|e| e.rule.id) else { continue };
                let counters = (r.packets.get(), r.bytes.get());
                let stats = self.stats_of(handle, counters, r.evictions.get(), r.age_ns.get());
                batch.stats.push((handle, flow, stats));
            }
            left -= n.min(left);
            (table, slot) = match next {
                Some(s) => (table, s),
                None => match tables(&self.caps).skip_while(|t| *t != table).nth(1) {
                    Some(next) => (next, 0),
                    None => {
                        batch.wrapped = true;
                        *cursor = StatsCursor::default();
                        return Ok(batch);
                    }
                },
            };
        }
        *cursor = StatsCursor(u64::from(table) << 32 | u64::from(slot));
        Ok(batch)
    }

    /// See [`offload::OffloadProvider::dump`]. An entry that is as it was installed is reported as the rule it was installed
    /// for; one that is not, as what is really there.
    pub(crate) fn read_entries(&mut self) -> Result<Vec<InstalledFlow>, OffloadError> {
        self.answers()?;
        let mut out = Vec::new();
        for table in tables(&self.caps) {
            let mut from = Some(0);
            while let Some(slot) = from {
                let (n, next) =
                    self.read_table(Opcode::Dump, (table, slot), DumpRecord::BYTES, usize::MAX)?;
                self.take_evicted();
                for i in 0..n {
                    let mut b = [0u8; DumpRecord::BYTES];
                    self.cmd.read_record(i, &mut b);
                    if let Ok(r) = DumpRecord::decode(&b) {
                        out.extend(self.found(table, &r));
                    }
                }
                from = next;
            }
        }
        Ok(out)
    }

    fn found(&mut self, table: u8, r: &DumpRecord) -> Option<InstalledFlow> {
        let handle = self.entries.named(table, r.stats.entry.get())?;
        let e = self.entries.get(handle)?;
        let kept = e.rule.expand();
        let lowered = self.lower(&kept, table_name(table)).ok()?;
        let want = lowered.entry(table, e.holds, kept.id)?;
        let rule = if want == r.entry { kept } else { self.raise(r, table)? };
        let s = &r.stats;
        let counters = (s.packets.get(), s.bytes.get());
        let stats = self.stats_of(handle, counters, s.evictions.get(), s.age_ns.get());
        Some(InstalledFlow { handle, rule, table: table_id(table), stats })
    }

    /// The rule that a record stands for; `None` when it has parts that no rule of ours could have.
    fn raise(&self, r: &DumpRecord, table: u8) -> Option<FlowRule> {
        let (key, mask) = (r.entry.key, r.entry.mask);
        let hw = match table {
            TABLE_EXACT => {
                HwMatch { key, mask: *self.profiles.mask(crate::profiles::ProfileId(r.profile.into()))? }
            }
            TABLE_RANGE => from_ranges(&key, &mask)?,
            _ => HwMatch { key, mask },
        };
        let ports = &self.names;
        let matches = raise_match(&hw, ports)?;
        let actions = raise_actions(&r.entry.actions().ok()?, ports)?;
        Some(FlowRule {
            id: FlowId(r.entry.cookie.get()),
            matches,
            actions: actions.into(),
            provenance: Arc::from([]),
        })
    }

    /// See [`offload::OffloadProvider::flush`].
    pub(crate) fn flush_tables(&mut self) -> Result<(), OffloadError> {
        self.answers()?;
        let mut voided = Vec::new();
        self.cmd.for_each_job(|job| {
            if let Some(of) = job.op() {
                voided.push(of);
                *job = Job::Void;
            }
        });
        for (op, flow) in voided {
            self.op_voided();
            let error = OffloadError::Device("flushed".into());
            self.finish(op, flow, OpResult::Failed { error, left: None, last: None });
        }
        let mut d = CmdDesc::new(Opcode::Flush, 0);
        d.table = TABLE_ALL;
        self.execute(d)?;
        self.forget_entries();
        Ok(())
    }
}
