//! A forwarding core: receives bursts, looks packets up, translates misses, executes.
//!
//! ```text
//!   changes of ports and flows, packets to execute, packets handed over
//!        │ (bounded queues, drained between bursts)
//!        ▼
//!   for each receive queue:  rx_burst ─► parse ─► exact-match cache ─► megaflows ─► MissHandler
//!                                                      └──────────────────┴─► actions in order of arrival
//!                                                                                │           │
//!                                                            again, at most max_passes     ports' batches
//!        ▼
//!   ports' batches sent, counts added to records, totals published
//! ```
//!
//! A core is owned by one thread and shares nothing that a packet touches. Packets of a burst are executed in the order
//! in which they came, hits and misses alike. A record that a miss has made serves the packets behind it in the same
//! burst. Nothing is allocated while packets hit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use clock::Instant;
use conntrack::Likely;
use datapath_api::DropReason;
use datapath_api::{FlowRecord, Miss, Translation, Translations};
use device::{BATCH, IoError, PacketBatch, PacketBuf, RxQueue, TxQueue};
use flow::nsh::blank;
use flow::{Action, FieldId, Layout, PacketKey, PortId, parse_into};

use crate::bond::Bonds;
use crate::datapath::Shared;
use crate::execute::{Metadata, Outputs, Tracked, restore};
use crate::journal;
use crate::link::bump;
use crate::perf::{Stage, Watch};
use crate::plain;
use crate::port::PortShared;
use crate::prefetch;
use crate::run::{Sleeper, WakesBy};
use crate::tables::{Front, Known, Tables};

/// Numbers writers of counters; 0 is nobody.
static WRITERS: AtomicU32 = AtomicU32::new(1);

/// A receive queue of this core.
pub(crate) struct InPort {
    pub(crate) shared: Arc<PortShared>,
    /// Its place among the port's.
    pub(crate) place: usize,
    pub(crate) rx: Box<dyn RxQueue>,
    /// The sending half, when the core sends by another one of the port's.
    pub(crate) spare: Option<Box<dyn TxQueue>>,
    /// Packets of this poll.
    pub(crate) received: usize,
    /// `Nothing` when the queue has said that its device is gone; it is not polled any more.
    pub(crate) wakes: WakesBy,
}

/// What became of a packet of the burst.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Not known yet.
    Miss,
    /// Too short to be parsed.
    Runt,
    /// Its miss was not answered.
    Unanswered,
    /// An entry that the exact-match cache has for the hash; to be verified.
    Candidate(u32),
    /// An entry of the tables.
    Entry(u32),
    /// Actions that are in no table; index into [`Burst::direct`].
    Direct(u32),
}

/// Actions that are in no table.
enum Direct {
    /// Those of a record that could not be kept.
    Record(Arc<FlowRecord>),
    /// Those of one packet.
    Once(Vec<Action>),
}

/// State of the burst in hand.
struct Burst {
    keys: Box<[PacketKey; BATCH]>,
    /// Keys that are zero but for the words that plain frames fill, one bit each.
    plain: u32,
    layouts: [Layout; BATCH],
    hashes: [u64; BATCH],
    verdicts: [Verdict; BATCH],
    direct: Vec<Direct>,
    misses: Vec<Miss>,
    /// Which packet each of `misses` is.
    asking: Vec<usize>,
    /// Connections of packets that are about to be tracked.
    likely: [Likely; BATCH],
    /// Names of shortcuts.
    names: [u64; BATCH],
    translations: Translations,
}

/// A forwarding core. Owned by one thread.
pub struct Core {
    pub(crate) shared: Arc<Shared>,
    pub(crate) index: usize,
    pub(crate) inputs: Vec<InPort>,
    pub(crate) tables: Tables,
    pub(crate) out: Outputs,
    burst: Burst,
    /// Boxed, and taken while in use: a batch is large to move.
    rx: Option<Box<PacketBatch>>,
    again: Option<Box<PacketBatch>>,
    tracked: Option<Box<Tracked>>,
    again_metadata: Vec<Metadata>,
    pub(crate) sleeper: Sleeper,
    pub(crate) watch: Watch,
}

impl Core {
    pub(crate) fn new(shared: Arc<Shared>, index: usize) -> std::io::Result<Self> {
        let c = &shared.config;
        let writer = WRITERS.fetch_add(1, Ordering::Relaxed);
        let mut core = Core {
            index,
            inputs: Vec::new(),
            tables: Tables::new(c, writer),
            out: Outputs::new(
                shared.links.clone(),
                shared.punts.clone(),
                shared.meters.clone(),
                Bonds::new(shared.bonds.clone(), index),
                shared.connections.clone(),
                shared.into_tunnels.clone(),
                c.max_passes.max(1),
            ),
            burst: Burst {
                keys: Box::new([PacketKey::ZERO; BATCH]),
                plain: u32::MAX,
                layouts: [Layout::default(); BATCH],
                hashes: [0; BATCH],
                verdicts: [Verdict::Miss; BATCH],
                direct: Vec::with_capacity(BATCH),
                misses: Vec::with_capacity(BATCH),
                asking: Vec::with_capacity(BATCH),
                likely: [Likely::default(); BATCH],
                names: [0; BATCH],
                translations: Vec::with_capacity(BATCH),
            },
            rx: Some(Box::default()),
            again: Some(Box::default()),
            tracked: Some(Box::default()),
            again_metadata: Vec::with_capacity(BATCH),
            sleeper: Sleeper::new(&shared.links[index].event)?,
            watch: Watch::new(),
            shared,
        };
        core.resync();
        Ok(core)
    }

    /// Takes over changes, forwards at most one burst of each receive queue and what waits to be executed, and sends.
    /// Returns how many packets it handled; zero means that there was nothing to do.
    pub fn poll_once(&mut self, now: Instant) -> usize {
        let shared = self.shared.clone();
        let link = &shared.links[self.index];
        self.watch.begin();
        link.enter();
        if link.has_changes() {
            self.take_changes(&shared);
        }
        self.tables.begin(&*shared.miss, self.out.tally.exact_hits);
        let mut n = if link.has_packets() { self.take_handoffs(&shared, now) } else { 0 };
        self.watch.lap(Stage::Other);
        for i in 0..self.inputs.len() {
            n += self.receive(i, now);
        }
        if n > 0 {
            self.out.flush();
            self.watch.lap(Stage::Transmit);
            self.tables.flush(now);
            self.watch.lap(Stage::Actions);
            link.published.publish(&self.out.tally);
        }
        self.watch.lap(Stage::Other);
        let cycles = self.watch.end(n);
        if n > 0 {
            self.share_cycles(cycles, n);
            let mut passes = self.out.tally.passes;
            passes.probes += self.tables.probes();
            passes.evicted = self.tables.evicted();
            link.perf.publish(&self.watch, &passes);
        } else {
            link.perf.publish_idle(&self.watch);
        }
        link.leave();
        n
    }

    /// The receive queues' parts of a poll of so many cycles and packets.
    #[inline]
    fn share_cycles(&mut self, cycles: u64, n: usize) {
        for input in &mut self.inputs {
            let mine = std::mem::take(&mut input.received);
            if mine > 0
                && let Some(q) = input.shared.queues.get(input.place)
            {
                bump(&q.cycles, if mine == n { cycles } else { cycles * mine as u64 / n as u64 });
            }
        }
    }

    /// One burst of receive queue `i`.
    #[inline]
    fn receive(&mut self, i: usize, now: Instant) -> usize {
        let input = &mut self.inputs[i];
        if input.wakes == WakesBy::Nothing {
            return 0;
        }
        let mut batch = self.rx.take().unwrap_or_default();
        if let Err(e) = input.rx.rx_burst(&mut batch) {
            // A device that is being reset says so at every poll; nothing that was received is lost by that.
            if !matches!(e, IoError::Down) {
                bump(&input.shared.counts[self.index].rx_errors, 1);
            }
            if matches!(e, IoError::Gone) {
                self.sleeper.forget(&*input.rx, input.wakes);
                input.wakes = WakesBy::Nothing;
            }
        }
        let n = batch.len();
        if n > 0 {
            let port = input.shared.id;
            let mut bytes = 0;
            for p in batch.iter() {
                bytes += p.len() as u64;
                prefetch::line(&**p);
            }
            let counts = &input.shared.counts[self.index];
            bump(&counts.rx_packets, n as u64);
            bump(&counts.rx_bytes, bytes);
            if let Some(q) = input.shared.queues.get(input.place) {
                bump(&q.packets, n as u64);
                q.dropped.store(input.rx.dropped(), Ordering::Relaxed);
            }
            input.received = n;
            self.out.tally.rx_packets += n as u64;
            self.watch.lap(Stage::Receive);
            self.forward(&mut batch, now, 1, |b, plain, i, k, p| {
                p.meta.in_port = port.0;
                let bit = 1 << i;
                if *plain & bit == 0 {
                    k.clear();
                    *plain |= bit;
                }
                if p.meta.mark | p.meta.resume == 0
                    && let Some(layout) = plain::read(p, port, k)
                {
                    b[i] = layout;
                    return true;
                }
                *plain &= !bit;
                let layout = parse_into(p, port, k);
                if p.meta.mark | p.meta.resume != 0 {
                    k.set(FieldId::PktMark, p.meta.mark.into());
                    k.set(FieldId::RecircId, p.meta.resume.into());
                }
                layout.map(|l| b[i] = l).is_ok()
            });
            self.recirculate(now);
        }
        self.rx = Some(batch);
        n
    }

    /// Puts packets that were recirculated through the tables until none is left.
    pub(crate) fn recirculate(&mut self, now: Instant) {
        while !self.out.tracked.packets.is_empty() {
            self.look_up_tracked(now);
        }
        while !self.out.recirculated.is_empty() {
            let mut batch = self.again.take().unwrap_or_default();
            let mut metadata = std::mem::take(&mut self.again_metadata);
            let passes = self.out.recirculated[0].passes;
            // In order, as long as they have passed the tables equally often.
            let same = |r: &crate::execute::Recirculated| r.passes == passes;
            let n = self.out.recirculated.iter().take(BATCH).take_while(|r| same(r)).count();
            for r in self.out.recirculated.drain(..n) {
                metadata.push(r.metadata);
                // At most BATCH.
                let _ = batch.push(r.packet);
            }
            self.forward(&mut batch, now, passes + 1, |b, plain, i, k, p| {
                *plain &= !(1 << i);
                let layout = parse_into(p, PortId(0), k);
                restore(k, &metadata[i]);
                layout.map(|l| b[i] = l).is_ok()
            });
            metadata.clear();
            (self.again, self.again_metadata) = (Some(batch), metadata);
            while !self.out.tracked.packets.is_empty() {
                self.look_up_tracked(now);
            }
        }
    }

    /// Puts packets that were tracked through the tables with the keys that they have.
    fn look_up_tracked(&mut self, now: Instant) {
        let spare = self.tracked.take().unwrap_or_default();
        let mut tracked = std::mem::replace(&mut self.out.tracked, spare);
        let b = &mut self.burst;
        for (i, from) in tracked.keys.iter().map(|k| usize::from(*k)).enumerate().take(tracked.packets.len())
        {
            // Only from behind: each packet has a key of its own, in the packets' order.
            if from != i {
                b.keys[i] = b.keys[from];
                b.layouts[i] = b.layouts[from];
            }
            b.plain &= !(1 << i);
        }
        let passes = tracked.passes;
        self.forward(&mut tracked.packets, now, passes + 1, |_, _, _, _, _| true);
        self.tracked = Some(tracked);
    }

    /// Looks up and executes the packets of `batch`. `parse` fills in key and layout of a packet and says whether the key is that of
    /// a plain frame; false if it is a runt.
    #[inline(always)]
    fn forward(
        &mut self,
        batch: &mut PacketBatch,
        now: Instant,
        passes: u8,
        parse: impl Fn(&mut [Layout; BATCH], &mut u32, usize, &mut PacketKey, &mut PacketBuf) -> bool,
    ) {
        let n = batch.len();
        let b = &mut self.burst;
        let tally = &mut self.out.tally;
        tally.passes.passes += n as u64;
        let front = self.tables.front(passes);
        for (i, p) in batch.iter_mut().enumerate() {
            let key = &mut b.keys[i];
            if !parse(&mut b.layouts, &mut b.plain, i, key, p) {
                b.verdicts[i] = Verdict::Runt;
                continue;
            }
            b.verdicts[i] = Verdict::Miss;
            if front.is_none() {
                b.hashes[i] = self.tables.hash(key);
                self.tables.prefetch(b.hashes[i]);
            }
            if let Some(f) = b.layouts[i].fault {
                tally.fault(f);
            }
        }
        self.watch.lap(Stage::Parse);
        if front.is_none() {
            for (v, hash) in b.verdicts.iter_mut().zip(&b.hashes).take(n) {
                if *v == Verdict::Miss
                    && let Some(what) = self.tables.candidate(*hash)
                {
                    *v = Verdict::Candidate(what);
                }
            }
        }
        // Packets that no cache knows, one bit each; those of which a record is wanted.
        let (mut unknown, mut wanted) = (0u32, 0u32);
        match front {
            None => (0..n).for_each(|i| self.look_up(i, &mut unknown, &mut wanted)),
            Some(front) => {
                let mut left = self.look_in_front(n, front);
                // What the cache has of the others is asked for before any of it is read.
                let mut ahead = left;
                while ahead != 0 {
                    let i = ahead.trailing_zeros() as usize;
                    ahead &= ahead - 1;
                    if let Some(what) = self.tables.candidate(self.burst.hashes[i]) {
                        self.burst.verdicts[i] = Verdict::Candidate(what);
                    }
                }
                while left != 0 {
                    let i = left.trailing_zeros() as usize;
                    left &= left - 1;
                    self.look_up(i, &mut unknown, &mut wanted);
                }
            }
        }
        self.watch.lap(if front.is_some() { Stage::Megaflow } else { Stage::Exact });
        if unknown != 0 {
            wanted |= self.classify(batch, unknown, now);
            self.watch.lap(Stage::Classify);
        }
        if wanted != 0 {
            self.translate(batch, now);
            self.watch.lap(Stage::Translate);
        }
        if let Some(v) = self.burst.verdicts.first() {
            let e = if let Verdict::Entry(e) = v { Some(*e) } else { None };
            self.tables.sample(e, passes);
        }
        self.execute(batch, now, passes);
        self.watch.lap(Stage::Actions);
    }

    /// Looks the packets up in the subtable that is probed before the cache. Those that are not there, one bit each, of which the
    /// cache's lines are asked for.
    #[inline(always)]
    fn look_in_front(&mut self, n: usize, front: Front) -> u32 {
        let b = &mut self.burst;
        let mut found = 0u64;
        // Without a branch on what is found: where packets of two kinds come mixed, it would be mispredicted for each of the rarer.
        let mut left = (0..n).fold(0u32, |l, i| l | u32::from(b.verdicts[i] == Verdict::Miss) << i);
        let (mut hit, mut entry) = (0u32, 0);
        if let Some(sole) = self.tables.sole_in_front(front) {
            for (i, k) in b.keys.iter().enumerate().take(n) {
                hit |= u32::from(sole.is_it(k)) << i;
            }
            hit &= left;
            entry = sole.entry;
            found += u64::from(hit.count_ones());
            left &= !hit;
        }
        let mut each = left;
        while each != 0 {
            let i = each.trailing_zeros() as usize;
            each &= each - 1;
            if let Some(e) = self.tables.find_in_front(front, &b.keys[i]) {
                found += 1;
                b.verdicts[i] = Verdict::Entry(e);
                left &= !(1 << i);
                continue;
            }
            b.hashes[i] = self.tables.hash(&b.keys[i]);
            self.tables.prefetch(b.hashes[i]);
        }
        // While what was asked for is on its way.
        for (i, v) in b.verdicts.iter_mut().enumerate().take(n) {
            *v = if hit & 1 << i != 0 { Verdict::Entry(entry) } else { *v };
        }
        self.out.tally.megaflow_hits += found;
        self.out.tally.passes.probes += found;
        left
    }

    /// Looks packet `i` up in the cache, which may have a candidate, and among the megaflows. One bit is set when nobody knows it,
    /// or when a record is wanted of it.
    #[inline(always)]
    fn look_up(&mut self, i: usize, unknown: &mut u32, wanted: &mut u32) {
        let b = &mut self.burst;
        let tally = &mut self.out.tally;
        match b.verdicts[i] {
            Verdict::Candidate(what) => {
                if let Some(e) = self.tables.verify(what, &b.keys[i]) {
                    if self.tables.promotes(what) {
                        b.verdicts[i] = Verdict::Miss;
                        tally.misses += 1;
                        *wanted |= 1 << i;
                        return;
                    }
                    tally.exact_hits += 1;
                    b.verdicts[i] = Verdict::Entry(e);
                    return;
                }
                b.verdicts[i] = Verdict::Miss;
            }
            Verdict::Miss => {}
            _ => return,
        }
        if let Some(e) = self.tables.find_exact(b.hashes[i], &b.keys[i]) {
            tally.exact_hits += 1;
            b.verdicts[i] = Verdict::Entry(e);
            return;
        }
        self.watch.lap(Stage::Exact);
        if let Some(e) = self.tables.find_megaflow(b.hashes[i], &b.keys[i]) {
            tally.megaflow_hits += 1;
            b.verdicts[i] = Verdict::Entry(e);
        } else {
            *unknown |= 1 << i;
        }
        self.watch.lap(Stage::Megaflow);
    }

    /// Has the packets of `unknown` take shortcuts, or finds them among the megaflows that were not looked at before. Those that are
    /// left are misses.
    fn classify(&mut self, batch: &PacketBatch, mut unknown: u32, now: Instant) -> u32 {
        let n = unknown.count_ones();
        if !self.tables.wants_shortcuts() {
            self.tables.not_asked(n);
            self.out.tally.misses += u64::from(n);
            return unknown;
        }
        let shared = self.shared.clone();
        let b = &mut self.burst;
        shared.miss.classify(&b.keys[..batch.len()], unknown, &mut b.names);
        let mut taken = 0;
        let mut left = unknown;
        while left != 0 {
            let i = left.trailing_zeros() as usize;
            left &= left - 1;
            let name = std::mem::take(&mut b.names[i]);
            if name == 0 {
                continue;
            }
            let entry = match self.tables.shortcut(name) {
                Known::Entry(e) => Some(e),
                Known::Refused => None,
                Known::Nothing => {
                    let (key, tcp_flags) = (b.keys[i], b.layouts[i].tcp_flags);
                    let len_bytes = (batch[i].len() - blank(&key)) as u32;
                    let miss = Miss { key, len_bytes, tcp_flags };
                    self.tables.add_shortcut(name, shared.miss.shortcut(name, &miss, now))
                }
            };
            if let Some(e) = entry {
                b.verdicts[i] = Verdict::Entry(e);
                self.tables.remember_flow(&*shared.miss, b.hashes[i], &b.keys[i], e);
                unknown &= !(1 << i);
                taken += 1;
            }
        }
        self.out.tally.shortcuts += u64::from(taken);
        self.tables.asked(n, taken);
        let mut left = unknown;
        while left != 0 {
            let i = left.trailing_zeros() as usize;
            left &= left - 1;
            if let Some(e) = self.tables.find_any_megaflow(b.hashes[i], &b.keys[i]) {
                self.out.tally.megaflow_hits += 1;
                b.verdicts[i] = Verdict::Entry(e);
                unknown &= !(1 << i);
            } else {
                self.out.tally.misses += 1;
            }
        }
        unknown
    }

    #[inline(always)]
    fn execute(&mut self, batch: &mut PacketBatch, now: Instant, passes: u8) {
        let n = batch.len();
        if self.tables.any_tracks() {
            self.look_for_connections(n);
        }
        let b = &mut self.burst;
        let mut packets = batch.take_each();
        for i in 0..n {
            match b.verdicts[i] {
                Verdict::Entry(e) => {
                    let len = packets.peek().map_or(0, |p| p.len());
                    self.tables.count(e, len, b.layouts[i].tcp_flags);
                    let entry = self.tables.entry(e);
                    if let Some(port) = entry.only_output {
                        self.out.send_next(port, &mut packets);
                        continue;
                    }
                    if b.plain & 1 << i != 0
                        && let Some(r) = entry.rewrite()
                    {
                        if packets.peek().is_some_and(|p| r.apply(p)) {
                            self.out.send_next(r.port, &mut packets);
                        } else {
                            self.out.tally.drop(DropReason::TtlExceeded);
                            drop(packets.take());
                        }
                        continue;
                    }
                    // They may write into the key.
                    b.plain &= !(1 << i);
                    if let Some(what) = entry.tracking() {
                        let of = (&mut b.keys[i], &b.layouts[i], b.likely[i]);
                        self.out.track_next(&mut packets, i, of, what, passes, now);
                        continue;
                    }
                    if let Some(tunnel) = entry.popping() {
                        let of = (&mut b.keys[i], &mut b.layouts[i]);
                        self.out.pop_next(&mut packets, i, of, tunnel, passes);
                        continue;
                    }
                    let actions = entry.actions();
                    self.out.execute(packets.take(), &mut b.keys[i], &b.layouts[i], actions, passes, now);
                    continue;
                }
                Verdict::Direct(d) => {
                    b.plain &= !(1 << i);
                    let actions = match &b.direct[d as usize] {
                        Direct::Record(r) => &*r.actions,
                        Direct::Once(actions) => actions,
                    };
                    self.out.execute(packets.take(), &mut b.keys[i], &b.layouts[i], actions, passes, now);
                    continue;
                }
                Verdict::Runt => self.out.tally.drop(DropReason::Runt),
                Verdict::Miss | Verdict::Candidate(_) | Verdict::Unanswered => {
                    self.out.tally.drop(DropReason::Action);
                }
            }
            drop(packets.take());
        }
        drop(packets);
        b.direct.clear();
    }

    /// Asks for the connections of plain frames that are about to be tracked.
    #[inline(never)]
    fn look_for_connections(&mut self, n: usize) {
        let b = &mut self.burst;
        let mut found = 0u32;
        for i in 0..n {
            b.likely[i] = Likely::default();
            if let Verdict::Entry(e) = b.verdicts[i]
                && b.plain & 1 << i != 0
                && let Some(zone) = self.tables.entry(e).tracks
            {
                b.likely[i] = self.out.likely(&b.keys[i], zone);
                found |= 1 << i;
            }
        }
        while found != 0 {
            let i = found.trailing_zeros() as usize;
            found &= found - 1;
            self.out.look_for(&mut b.likely[i]);
        }
    }

    /// Has the misses of the burst translated. One packet of each key asks; what it gets may serve the others.
    #[cold]
    fn translate(&mut self, batch: &PacketBatch, now: Instant) {
        let shared = self.shared.clone();
        let n = batch.len();
        // All that is ever probed has been.
        let mut looked = true;
        loop {
            let b = &mut self.burst;
            b.misses.clear();
            b.asking.clear();
            for i in 0..n {
                if b.verdicts[i] != Verdict::Miss {
                    continue;
                }
                if !looked && let Some(e) = self.tables.find_any_megaflow(b.hashes[i], &b.keys[i]) {
                    b.verdicts[i] = Verdict::Entry(e);
                    continue;
                }
                if !b.asking.iter().any(|a| b.hashes[*a] == b.hashes[i] && b.keys[*a] == b.keys[i]) {
                    b.asking.push(i);
                    b.misses.push(Miss {
                        key: b.keys[i],
                        len_bytes: (batch[i].len() - blank(&b.keys[i])) as u32,
                        tcp_flags: b.layouts[i].tcp_flags,
                    });
                }
            }
            if b.asking.is_empty() {
                return;
            }
            b.misses.iter().for_each(|m| journal::missed(&m.key));
            let mut answers = std::mem::take(&mut b.translations);
            shared.miss.translate(&b.misses, now, &mut answers);
            let mut it = answers.drain(..);
            for at in 0..self.burst.asking.len() {
                let i = self.burst.asking[at];
                self.burst.verdicts[i] = match it.next() {
                    Some(t) => {
                        let len = batch[i].len() - blank(&self.burst.keys[i]);
                        self.take_answer(&shared, i, t, len as u64, now)
                    }
                    None => Verdict::Unanswered,
                };
            }
            drop(it);
            self.burst.translations = answers;
            looked = false;
        }
    }

    fn take_answer(&mut self, shared: &Shared, i: usize, t: Translation, len: u64, now: Instant) -> Verdict {
        let b = &mut self.burst;
        let direct = match t {
            Translation::Once(actions) => Direct::Once(actions),
            Translation::Keep(record) => {
                if let Some(e) = self.tables.find_any_megaflow(b.hashes[i], &b.keys[i]) {
                    return Verdict::Entry(e);
                }
                if let Ok(installed) = shared.install(record.clone()) {
                    journal::added(&record, &b.keys[i]);
                    let e = self.tables.insert(installed);
                    self.tables.remember(b.hashes[i], e);
                    return Verdict::Entry(e);
                }
                record.counters.add(1, len, b.layouts[i].tcp_flags, now);
                self.out.tally.passes.refused += 1;
                shared.miss.refused(&record);
                Direct::Record(record)
            }
        };
        b.direct.push(direct);
        Verdict::Direct(b.direct.len() as u32 - 1)
    }

    /// Megaflows in this core's own table, including those on their way out.
    pub fn megaflows(&self) -> usize {
        self.tables.len()
    }
}
