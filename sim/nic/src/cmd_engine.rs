//! The command engine: descriptors of the command ring, one after the other (datasheet 7).
//!
//! ```text
//!   fetch ─► [commands] ─► payload read ─► decode and execute for some cycles ─► tables change (commit)
//!                                              ─► records written, if any ─► completion ─► vector
//! ```
//!
//! Cycle-level: descriptor and payload reads (several under way), a finite time for each command. The change itself takes
//! effect between two cycles. Commands complete in order.

use std::collections::VecDeque;

use device::Iova;
use kernel::{Cycles, Damage, Foreign, Reader, Stall, Usage, Wake, Writer};
use pcie::{DmaClient, DmaCompletion, DmaKind, DmaRequest};
use simnic_defs::cmd::{TABLE_LPM, TABLE_RANGE, TABLE_TERNARY};
use simnic_defs::{
    CmdCpl, CmdDesc, CmdStatus, ConnRecord, ConnSpec, DumpRecord, FlowEntry, HeaderSpec, KEY_BYTES,
    MeterRecord, MeterSpec, Opcode, Reg, StatsRecord, gen_of,
};
use zerocopy::IntoBytes;

use crate::checkpoint::Wire;
use crate::chip::Shared;
use crate::config::Config;
use crate::faults::FaultKind;
use crate::ring::Ring;
use crate::tables::Tables;
use crate::transfer::{Kind, SmallBuffers, Tag, dma_address, raise_vector};

pub(crate) const CLIENT: DmaClient = DmaClient(0);

/// Commands fetched and not completed at most.
const QUEUE: usize = 16;

/// How far a command is.
#[derive(Clone)]
enum State {
    /// Its payload is to be read.
    WantsPayload,
    /// Its payload is being read.
    Reading,
    Ready,
    /// It has failed before it was executed.
    Failed(CmdStatus),
}

#[derive(Clone)]
struct Command {
    desc: CmdDesc,
    payload: Vec<u8>,
    state: State,
}

kernel::state!(struct Command { desc: via Wire, payload, state });

/// What happens to the oldest command.
#[derive(Clone)]
enum Phase {
    Idle,
    /// Being executed until then.
    Busy(u64),
    /// To be applied at the end of this cycle.
    Apply,
    /// Records to be written.
    Records(CmdCpl, Vec<u8>),
    /// Records being written.
    Writing(CmdCpl),
    Complete(CmdCpl),
}

impl kernel::State for State {
    fn save(&self, w: &mut Writer) {
        match self {
            State::WantsPayload => w.bytes(&[0]),
            State::Reading => w.bytes(&[1]),
            State::Ready => w.bytes(&[2]),
            State::Failed(status) => w.bytes(&[3, *status as u8]),
        }
    }
    fn load(r: &mut Reader<'_>) -> Result<Self, Damage> {
        match u8::load(r)? {
            0 => Ok(State::WantsPayload),
            1 => Ok(State::Reading),
            2 => Ok(State::Ready),
            3 => Wire::load(r).map(State::Failed),
            _ => Err(r.damage("state of a command")),
        }
    }
}

impl kernel::State for Phase {
    fn save(&self, w: &mut Writer) {
        let (tag, cpl) = match self {
            Phase::Idle => (0, None),
            Phase::Busy(_) => (1, None),
            Phase::Apply => (2, None),
            Phase::Records(c, _) => (3, Some(c)),
            Phase::Writing(c) => (4, Some(c)),
            Phase::Complete(c) => (5, Some(c)),
        };
        w.bytes(&[tag]);
        if let Some(c) = cpl {
            Wire::save(c, w);
        }
        match self {
            Phase::Busy(until) => until.save(w),
            Phase::Records(_, records) => w.block(records),
            _ => {}
        }
    }
    fn load(r: &mut Reader<'_>) -> Result<Self, Damage> {
        Ok(match u8::load(r)? {
            0 => Phase::Idle,
            1 => Phase::Busy(u64::load(r)?),
            2 => Phase::Apply,
            3 => Phase::Records(Wire::load(r)?, r.block()?.to_vec()),
            4 => Phase::Writing(Wire::load(r)?),
            5 => Phase::Complete(Wire::load(r)?),
            _ => return Err(r.damage("phase of a command")),
        })
    }
}

/// What a command changes beside the tables.
pub(crate) struct Effect {
    /// A port, and whether it goes up.
    pub port: Option<(u8, bool)>,
    /// A table, the key profile, and how many entries were written or moved.
    pub written: Option<(u8, u8, u64)>,
}

#[derive(Clone)]
pub(crate) struct CmdEngine {
    pub ring: Ring,
    commands: VecDeque<Command>,
    fetching: bool,
    /// The oldest command waits for its payload since then.
    waiting_since: Option<u64>,
    phase: Phase,
    small: SmallBuffers,
    config: Costs,
    ports: u8,
    pub usage: Usage,
    /// Commands by how they ended: good and bad.
    pub completed: [u64; 2],
    /// Commands take so many times as long: a failure that somebody injected.
    pub times: u64,
    /// So many commands are given up.
    pub to_fail: u32,
}

kernel::state!(struct CmdEngine {
    ring, commands, fetching, waiting_since, phase, small, config: fixed, ports: fixed, usage,
    completed, times, to_fail,
});

#[derive(Clone, PartialEq)]
struct Costs {
    decode: u64,
    remove: u64,
    record: u64,
    insert_exact: u64,
    insert_ternary: u64,
    insert_lpm: u64,
    insert_range: u64,
    move_ternary: u64,
    max_records: u32,
    batch: u32,
}

kernel::state!(struct Costs {
    decode, remove, record, insert_exact, insert_ternary, insert_lpm, insert_range, move_ternary,
    max_records, batch,
});

impl CmdEngine {
    pub fn new(c: &Config) -> Self {
        CmdEngine {
            ring: Ring::default(),
            commands: VecDeque::with_capacity(QUEUE),
            fetching: false,
            waiting_since: None,
            phase: Phase::Idle,
            small: SmallBuffers::default(),
            config: Costs {
                decode: c.command.decode_cycles.into(),
                remove: c.command.remove_cycles.into(),
                record: c.command.record_cycles.into(),
                insert_exact: c.exact.insert_cycles.into(),
                insert_ternary: c.ternary.insert_cycles.into(),
                insert_lpm: c.lpm.insert_cycles.into(),
                insert_range: c.range.insert_cycles.into(),
                move_ternary: c.ternary.move_cycles.into(),
                max_records: c.command.max_records.into(),
                batch: c.host.descriptor_batch.into(),
            },
            ports: c.device.ports,
            usage: Usage::default(),
            completed: [0; 2],
            times: 1,
            to_fail: 0,
        }
    }

    /// `evicting`: counters are on their way to host memory, and who reads counters waits for them.
    pub fn evaluate(&mut self, now: Cycles, tables: &Tables, evicting: bool, s: &mut Shared<'_>) -> bool {
        let mut happened = false;
        while let Some(c) = s.dma.completion(now, CLIENT) {
            self.transfer_done(now, c, s);
            happened = true;
        }
        if !s.running {
            return happened;
        }
        happened |= self.advance(now, tables, evicting);
        if !self.wants_request() {
            return happened;
        }
        if !s.dma.can_request(now, CLIENT) {
            self.usage.stall(Stall::Resource);
            return happened;
        }
        self.request(now, s);
        true
    }

    /// Moves the oldest command on, as far as that needs no transfer.
    fn advance(&mut self, now: Cycles, tables: &Tables, evicting: bool) -> bool {
        match self.phase {
            Phase::Idle => {
                let Some(c) = self.commands.front() else { return false };
                if !matches!(c.state, State::WantsPayload | State::Reading)
                    && let Some(since) = self.waiting_since.take()
                {
                    self.usage.stall_for(Stall::Memory, now.0 - since);
                }
                match c.state {
                    State::Ready => {
                        let cycles = self.cost(&c.desc, tables).max(1).saturating_mul(self.times);
                        self.usage.accept(cycles);
                        self.phase = Phase::Busy(now.0 + cycles);
                    }
                    State::Failed(status) => {
                        self.usage.accept(self.config.decode);
                        self.phase = Phase::Complete(CmdCpl::of(&c.desc, status));
                    }
                    State::WantsPayload | State::Reading => {
                        let waits = self.waiting_since.is_some();
                        self.waiting_since.get_or_insert(now.0);
                        return !waits;
                    }
                }
                true
            }
            Phase::Busy(until) if now.0 >= until && !(evicting && self.reads_counters()) => {
                self.phase = Phase::Apply;
                true
            }
            _ => false,
        }
    }

    /// Whether what is being executed tells counters.
    fn reads_counters(&self) -> bool {
        use Opcode::{Dump, ReadStats, Remove, Replace};
        let op = self.commands.front().map(|c| Opcode::try_from(c.desc.opcode));
        matches!(op, Some(Ok(Remove | Replace | ReadStats | Dump)))
    }

    fn cost(&self, d: &CmdDesc, tables: &Tables) -> u64 {
        let c = &self.config;
        let entries = tables.entries(d.table) as u64;
        c.decode
            + match Opcode::try_from(d.opcode) {
                Ok(Opcode::Install) if d.table == TABLE_TERNARY => {
                    c.insert_ternary + c.move_ternary * tables.ternary.moved_by(d.priority.get()) as u64
                }
                Ok(Opcode::Replace) if d.table == TABLE_TERNARY => c.insert_ternary,
                Ok(Opcode::Install | Opcode::Replace) if d.table == TABLE_LPM => c.insert_lpm,
                Ok(Opcode::Install | Opcode::Replace) if d.table == TABLE_RANGE => c.insert_range,
                Ok(Opcode::Install | Opcode::Replace) => c.insert_exact,
                Ok(Opcode::Remove | Opcode::ProfileSet | Opcode::ProfileClear) => c.remove,
                Ok(Opcode::MeterSet | Opcode::MeterClear | Opcode::HeaderSet | Opcode::GroupSet) => c.remove,
                Ok(Opcode::ConnSet | Opcode::ConnClear) => c.remove,
                Ok(Opcode::MeterRead | Opcode::ConnRead) => c.record,
                Ok(Opcode::Flush) => c.remove * entries.max(1),
                Ok(Opcode::ReadStats | Opcode::Dump) => c.record * entries.min(d.count.get().into()),
                Ok(Opcode::Nop | Opcode::PortSet) | Err(_) => 0,
            }
    }

    fn wants_request(&self) -> bool {
        self.ring.runs()
            && (self.ring.raise
                || matches!(self.phase, Phase::Records(..) | Phase::Complete(_))
                || self.wants_payload().is_some()
                || self.wants_fetch() > 0)
    }

    fn wants_payload(&self) -> Option<usize> {
        self.commands.iter().position(|c| matches!(c.state, State::WantsPayload))
    }

    fn wants_fetch(&self) -> u32 {
        if self.fetching {
            return 0;
        }
        self.ring.fetchable(self.config.batch, (QUEUE - self.commands.len()) as u32)
    }

    fn send(
        &mut self,
        now: Cycles,
        kind: (Kind, u32),
        dir: DmaKind,
        at: u64,
        buf: Vec<u8>,
        s: &mut Shared<'_>,
    ) {
        self.ring.in_flight += 1;
        let tag = Tag { kind: kind.0, ring: 0, epoch: self.ring.epoch, position: kind.1 }.pack();
        let r = DmaRequest { tag, kind: dir, iova: Iova(at), buf, start: 0 };
        let accepted = s.dma.request(now, CLIENT, r);
        debug_assert!(accepted.is_ok(), "asked before");
    }

    /// Makes the most urgent request.
    fn request(&mut self, now: Cycles, s: &mut Shared<'_>) {
        if std::mem::take(&mut self.ring.raise) {
            return raise_vector(now, CLIENT, self.ring.vector, s, &mut self.small);
        }
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Complete(cpl) => return self.complete(now, cpl, s),
            Phase::Records(cpl, records) => {
                let at = self.commands.front().map_or(0, |c| c.desc.addr.get());
                self.phase = Phase::Writing(cpl);
                return self.send(now, (Kind::Records, 0), DmaKind::Write, at, records, s);
            }
            other => self.phase = other,
        }
        if let Some(i) = self.wants_payload() {
            let position = self.ring.completed.wrapping_add(i as u32);
            let c = &mut self.commands[i];
            c.state = State::Reading;
            let (at, len) = (c.desc.addr.get(), c.desc.len.get() as usize);
            let buf = self.small.zeroed(len);
            return self.send(now, (Kind::Payload, position), DmaKind::Read, at, buf, s);
        }
        let n = self.wants_fetch();
        let at = self.ring.fetch(n, CmdDesc::BYTES);
        self.fetching = true;
        let buf = self.small.zeroed(n as usize * CmdDesc::BYTES);
        self.send(now, (Kind::Fetch, 0), DmaKind::Read, at, buf, s);
    }

    fn complete(&mut self, now: Cycles, mut cpl: CmdCpl, s: &mut Shared<'_>) {
        if let Some(c) = self.commands.pop_front() {
            self.small.put(c.payload);
        }
        let good = cpl.status == CmdStatus::Ok as u8;
        self.completed[usize::from(!good)] += 1;
        if is_driver_error(cpl.status) {
            s.faults.stage(now, FaultKind::BadCommand, Reg::CMD_CTRL.0, cpl.status.into());
        }
        let (at, generation) = self.ring.next_completion(CmdCpl::BYTES);
        cpl.flags = u32::from(generation).into();
        let buf = self.small.with(cpl.as_bytes());
        self.send(now, (Kind::Completion, 0), DmaKind::Write, at, buf, s);
    }

    /// What a fetched descriptor needs first.
    fn admit(&mut self, now: Cycles, desc: CmdDesc, s: &mut Shared<'_>) {
        let position = self.ring.completed.wrapping_add(self.commands.len() as u32);
        let failed = |status| State::Failed(status);
        let (len, count) = (desc.len.get() as usize, desc.count.get());
        let payload = |wanted| if len == wanted { State::WantsPayload } else { failed(CmdStatus::BadLength) };
        let records = |each| {
            let fits = (1..=self.config.max_records).contains(&count) && len == count as usize * each;
            if fits { State::Ready } else { failed(CmdStatus::BadLength) }
        };
        let state = if !desc.has_gen(gen_of(position, self.ring.log2 as u8)) {
            s.faults.stage(now, FaultKind::BadDescriptor, Reg::CMD_CTRL.0, position.into());
            failed(CmdStatus::BadDesc)
        } else {
            match Opcode::try_from(desc.opcode) {
                Err(_) => failed(CmdStatus::BadOpcode),
                Ok(Opcode::ProfileSet) => payload(KEY_BYTES),
                Ok(Opcode::Install | Opcode::Replace) => payload(FlowEntry::BYTES),
                Ok(Opcode::MeterSet) => payload(MeterSpec::BYTES),
                Ok(Opcode::HeaderSet) => payload(HeaderSpec::BYTES),
                Ok(Opcode::ConnSet) => payload(ConnSpec::BYTES),
                Ok(Opcode::ConnRead) if len != ConnRecord::BYTES => failed(CmdStatus::BadLength),
                Ok(Opcode::MeterRead) if len != MeterRecord::BYTES => failed(CmdStatus::BadLength),
                Ok(Opcode::ReadStats) => records(StatsRecord::BYTES),
                Ok(Opcode::Dump) => records(DumpRecord::BYTES),
                Ok(Opcode::PortSet) if desc.port >= self.ports => failed(CmdStatus::BadPort),
                Ok(_) => State::Ready,
            }
        };
        self.commands.push_back(Command { desc, payload: Vec::new(), state });
    }

    fn transfer_done(&mut self, now: Cycles, c: DmaCompletion, s: &mut Shared<'_>) {
        let tag = Tag::unpack(c.request.tag);
        let fault_at = c.result.err().map(|e| dma_address(e, c.request.iova));
        let mut fault = |what| {
            if let Some(at) = fault_at {
                s.faults.stage(now, what, Reg::CMD_CTRL.0, at);
            }
        };
        if tag.kind == Kind::Vector {
            fault(FaultKind::DmaWrite);
            return self.small.put(c.request.buf);
        }
        self.ring.in_flight = self.ring.in_flight.saturating_sub(1);
        if tag.epoch != self.ring.epoch {
            return;
        }
        match tag.kind {
            Kind::Fetch => {
                self.fetching = false;
                fault(FaultKind::DmaRead);
                if fault_at.is_some() {
                    return self.stop(true);
                }
                for b in c.request.buf.chunks_exact(CmdDesc::BYTES) {
                    if let Ok(d) = CmdDesc::decode(b) {
                        self.admit(now, d, s);
                    }
                }
                self.small.put(c.request.buf);
            }
            Kind::Payload => {
                fault(FaultKind::DmaRead);
                let i = tag.position.wrapping_sub(self.ring.completed) as usize;
                if let Some(command) = self.commands.get_mut(i) {
                    command.payload = c.request.buf;
                    command.state = match fault_at {
                        Some(_) => State::Failed(CmdStatus::DmaFault),
                        None => State::Ready,
                    };
                }
            }
            Kind::Records => {
                fault(FaultKind::DmaWrite);
                if let Phase::Writing(mut cpl) = std::mem::replace(&mut self.phase, Phase::Idle) {
                    if fault_at.is_some() {
                        cpl.status = CmdStatus::DmaFault as u8;
                    }
                    self.phase = Phase::Complete(cpl);
                }
            }
            Kind::Completion => {
                fault(FaultKind::DmaWrite);
                *s.fatal |= fault_at.is_some();
                self.small.put(c.request.buf);
            }
            Kind::Frame | Kind::Vector => {}
        }
    }

    /// Whether a command takes effect at the end of this cycle.
    #[inline]
    pub fn is_due(&self) -> bool {
        matches!(self.phase, Phase::Apply)
    }

    /// Lets the command that is due take effect. Returns what it changes beside the tables.
    pub fn commit(&mut self, tables: &mut Tables, now_ns: u64) -> Effect {
        let none = Effect { port: None, written: None };
        let Phase::Apply = self.phase else { return none };
        let Some(c) = self.commands.front() else {
            self.phase = Phase::Idle;
            return none;
        };
        let mut records = Vec::new();
        let d = &c.desc;
        let moved = match Opcode::try_from(d.opcode) {
            Ok(Opcode::Install) if d.table == TABLE_TERNARY => {
                tables.ternary.moved_by(d.priority.get()) as u64
            }
            _ => 0,
        };
        let profile = match d.opcode == Opcode::Install as u8 {
            true => d.profile,
            false => tables.exact.profile_of(d.entry.get()).unwrap_or(0),
        };
        let cpl = match self.to_fail {
            0 => tables.execute(d, &c.payload, now_ns, &mut records),
            _ => CmdCpl::of(d, CmdStatus::Aborted),
        };
        self.to_fail = self.to_fail.saturating_sub(1);
        let is_done = cpl.status == CmdStatus::Ok as u8;
        let port = (d.opcode == Opcode::PortSet as u8 && is_done).then(|| (d.port, d.arg.get() & 1 != 0));
        let writes =
            matches!(Opcode::try_from(d.opcode), Ok(Opcode::Install | Opcode::Replace | Opcode::Remove));
        let written = (writes && is_done).then_some((d.table, profile, 1 + moved));
        self.phase = match records.is_empty() {
            true => Phase::Complete(cpl),
            false => Phase::Records(cpl, records),
        };
        Effect { port, written }
    }

    /// Stops the ring: with an error, or because it was disabled. Commands under way are forgotten.
    pub fn stop(&mut self, error: bool) {
        if error {
            self.ring.fail()
        } else {
            self.ring.disable()
        }
        self.commands.clear();
        self.fetching = false;
        self.waiting_since = None;
        self.phase = Phase::Idle;
    }

    pub fn reset(&mut self) {
        self.stop(false);
        (self.times, self.to_fail) = (1, 0);
        self.ring = Ring { epoch: self.ring.epoch, ..Ring::default() };
    }

    pub fn next_event(&self, now: Cycles) -> Wake {
        let soon = Wake::at(Cycles(now.0 + 1));
        if self.wants_request() {
            return soon;
        }
        match self.phase {
            Phase::Busy(until) => Wake::at(Cycles(until.max(now.0 + 1))),
            Phase::Idle => match self.commands.front() {
                Some(c) if !matches!(c.state, State::WantsPayload | State::Reading) => soon,
                Some(_) if self.waiting_since.is_none() => soon,
                _ => Wake::NEVER,
            },
            Phase::Apply => soon,
            _ => Wake::NEVER,
        }
    }
}

/// Whether a status says that the driver asked for something that never was possible.
fn is_driver_error(status: u8) -> bool {
    matches!(
        CmdStatus::try_from(status),
        Ok(CmdStatus::BadOpcode
            | CmdStatus::BadTable
            | CmdStatus::BadProfile
            | CmdStatus::BadKey
            | CmdStatus::BadAction
            | CmdStatus::BadPort
            | CmdStatus::BadLength
            | CmdStatus::BadObject)
    )
}
