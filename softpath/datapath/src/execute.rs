//! Executes an action list on a packet.
//!
//! A packet is moved, not copied, by the last action that takes it (output, recirculation, clone); earlier ones take a
//! copy. Every packet that comes in here ends in exactly one of: a port's queue, the recirculation queue, or a drop
//! counter; a list that gave it to nobody counts as [`DropReason::Action`].

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use clock::Instant;
use conntrack::{Likely, Tracker};
use datapath_api::{DropReason, Exported, Punt, PuntSink};
use device::{BATCH, PacketBatch, PacketBuf, TakeEach, TxQueue};
use flow::export::Export;
use flow::field::METADATA;
use flow::headers::eth_type;
use flow::tunnel::TunnelKind;
use flow::tunnel::options::OptionWords;
use flow::{
    Action, ControllerAction, CtAction, FieldId, Layout, MacAddr, PacketKey, PortId, nsh, packet_type,
};

use crate::bond::Bonds;
use crate::connections;
use crate::dice::Dice;
use crate::dp_hash::dp_hash;
use crate::edit::{self, Headers};
use crate::link::CoreLink;
use crate::meter::{MeterTable, Verdict, remarked};
use crate::plain;
use crate::port::OutPort;
use crate::prefetch;
use crate::tally::Tally;
use crate::tunnel::{self, Outgoing};

/// Packets that wait to go through the tables again.
const RECIRC_QUEUE: usize = 256;
/// Clones within clones.
const MAX_CLONE_DEPTH: u8 = 8;
/// The part of a key that is not read from the frame.
#[derive(Clone)]
pub(crate) struct Metadata {
    /// That with the port and the recirculation id.
    port: u64,
    words: [u64; METADATA.end - METADATA.start],
    options: OptionWords,
}

/// Reads the metadata out of a key.
pub(crate) fn metadata(key: &PacketKey) -> Metadata {
    let words = std::array::from_fn(|i| key.word(METADATA.start + i));
    Metadata { port: key.word(0), words, options: OptionWords::of(key) }
}

/// Writes metadata into a key that a parser has made.
pub(crate) fn restore(key: &mut PacketKey, m: &Metadata) {
    key.set_word(0, m.port);
    for (i, w) in METADATA.zip(&m.words) {
        key.set_word(i, *w);
    }
    m.options.write(key);
}

/// A packet that goes through the tables again.
pub(crate) struct Recirculated {
    pub(crate) packet: PacketBuf,
    pub(crate) metadata: Metadata,
    pub(crate) passes: u8,
}

/// Packets that were tracked or came out of a tunnel, and which of the burst's keys each has.
#[derive(Default)]
pub(crate) struct Tracked {
    pub(crate) packets: PacketBatch,
    pub(crate) keys: [u8; BATCH],
    pub(crate) passes: u8,
}

/// Where executed packets go: ports, recirculation, punts; and what that is counted in.
pub(crate) struct Outputs {
    /// Index into `ports` plus one, by port number plus one, so that [`NOWHERE`] is first; 0 means none.
    slots: Vec<u32>,
    /// The first is [`NOWHERE`].
    ports: Vec<Option<OutPort>>,
    /// Ports with something queued.
    dirty: Vec<u32>,
    pub(crate) recirculated: Vec<Recirculated>,
    /// Packets of the burst that go through the tables again with the keys they have, ahead of those of `recirculated`.
    pub(crate) tracked: Box<Tracked>,
    pub(crate) tally: Tally,
    pub(crate) links: Arc<[CoreLink]>,
    punts: Arc<dyn PuntSink>,
    meters: Cache<Arc<ArcSwap<MeterTable>>, Arc<MeterTable>>,
    bonds: Bonds,
    connections: Arc<Tracker>,
    into_tunnels: Arc<Outgoing>,
    max_passes: u8,
    dice: Dice,
}

/// A packet under execution.
struct Packet<'a> {
    buf: PacketBuf,
    key: &'a mut PacketKey,
    headers: Headers,
    /// Whether the frame has changed at all since `key` was made.
    changed: bool,
    /// Whether it is another frame than key and headers say: it was put behind those of a tunnel.
    is_other: bool,
    /// Whether it is a copy that nobody need get.
    is_sample: bool,
}

impl Packet<'_> {
    /// Makes the key what a parser sees of the frame as it is; metadata stays. Headers that lie deeper than it looks stay
    /// known.
    fn reparse(&mut self) {
        let m = metadata(self.key);
        // A frame that was parsed once stays longer than an Ethernet header.
        let _ = flow::parse_into(&self.buf, PortId(0), self.key);
        restore(self.key, &m);
        self.changed = false;
    }

    /// What it begins with.
    fn kind(&self) -> u32 {
        self.key.get64(FieldId::PacketType) as u32
    }

    /// It begins with something else from now on, or with another header of that kind.
    fn became(&mut self, kind: u32) {
        self.key.set(FieldId::PacketType, kind.into());
        (self.changed, self.is_other) = (true, true);
    }

    /// The packet's own bytes.
    fn bytes(&self) -> &[u8] {
        self.buf.get(nsh::blank(self.key)..).unwrap_or(&[])
    }

    /// Learns what the frame is, which is another one now.
    #[cold]
    fn get_to_know(&mut self) {
        let m = metadata(self.key);
        if let Ok(layout) = flow::parse_into(&self.buf, PortId(0), self.key) {
            self.headers = Headers::new(self.key, &layout);
        }
        restore(self.key, &m);
        (self.changed, self.is_other) = (false, false);
    }
}

/// Where a port is in [`Outputs::slots`].
#[inline(always)]
fn place(port: PortId) -> usize {
    port.0.wrapping_add(1) as usize
}

impl Outputs {
    pub(crate) fn new(
        links: Arc<[CoreLink]>,
        punts: Arc<dyn PuntSink>,
        meters: Arc<ArcSwap<MeterTable>>,
        bonds: Bonds,
        connections: Arc<Tracker>,
        into_tunnels: Arc<Outgoing>,
        max_passes: u8,
    ) -> Self {
        Outputs {
            slots: vec![1],
            ports: vec![Some(OutPort::nowhere())],
            dirty: Vec::with_capacity(64),
            recirculated: Vec::with_capacity(RECIRC_QUEUE),
            tracked: Box::default(),
            tally: Tally::default(),
            links,
            punts,
            meters: Cache::new(meters),
            bonds,
            connections,
            into_tunnels,
            max_passes,
            dice: Dice::default(),
        }
    }

    /// Adds a port.
    pub(crate) fn attach(&mut self, port: OutPort) {
        let id = place(port.shared.id);
        if id >= self.slots.len() {
            self.slots.resize(id + 1, 0);
        }
        let at = match self.ports.iter().position(Option::is_none) {
            Some(at) => at,
            None => {
                self.ports.push(None);
                self.ports.len() - 1
            }
        };
        self.ports[at] = Some(port);
        self.slots[id] = at as u32 + 1;
    }

    /// Removes a port, after sending what it had queued; gives its queue back, on the core that has it.
    pub(crate) fn detach(&mut self, id: PortId) -> Option<Box<dyn TxQueue>> {
        let slot = self.slots.get_mut(place(id)).filter(|s| **s > 1)?;
        let at = std::mem::take(slot) as usize - 1;
        let mut port = self.ports[at].take()?;
        port.flush(&self.links, &mut self.tally);
        port.into_queue()
    }

    /// Sends a packet to a port.
    #[inline(always)]
    pub(crate) fn send(&mut self, to: PortId, p: PacketBuf) {
        let slot = self.slots.get(place(to)).copied().unwrap_or(0);
        let Some(Some(port)) = self.ports.get_mut((slot as usize).wrapping_sub(1)) else {
            self.tally.drop(DropReason::NoSuchPort);
            return;
        };
        if port.push(p, &self.links, &mut self.tally) {
            self.dirty.push(slot - 1);
        }
    }

    /// Sends the next of `packets` to a port.
    #[inline(always)]
    pub(crate) fn send_next(&mut self, to: PortId, packets: &mut TakeEach<'_>) {
        let slot = self.slots.get(place(to)).copied().unwrap_or(0);
        let Some(Some(port)) = self.ports.get_mut((slot as usize).wrapping_sub(1)) else {
            self.tally.drop(DropReason::NoSuchPort);
            drop(packets.take());
            return;
        };
        if port.push_next(packets, &self.links, &mut self.tally) {
            self.dirty.push(slot - 1);
        }
    }

    /// Sends everything that is queued.
    pub(crate) fn flush(&mut self) {
        for at in self.dirty.drain(..) {
            if let Some(Some(port)) = self.ports.get_mut(at as usize) {
                port.flush(&self.links, &mut self.tally);
            }
        }
    }

    /// Executes `actions`. `key` and `layout` are the packet's; `passes` says how often it went through the tables.
    pub(crate) fn execute(
        &mut self,
        buf: PacketBuf,
        key: &mut PacketKey,
        layout: &Layout,
        actions: &[Action],
        passes: u8,
        now: Instant,
    ) {
        let headers = Headers::new(key, layout);
        let p = Packet { buf, key, headers, changed: false, is_other: false, is_sample: false };
        self.run(p, actions, passes, 0, now);
    }

    /// Where the connection of a plain frame begins to be looked for, which is asked for.
    #[inline(always)]
    pub(crate) fn likely(&self, key: &PacketKey, zone: u16) -> Likely {
        let likely = self.connections.likely(&plain::ends(key), zone);
        prefetch::at(self.connections.line(&likely), 1);
        likely
    }

    /// Finds out which connection that is likely to be, and asks for it.
    #[inline(always)]
    pub(crate) fn look_for(&self, likely: &mut Likely) {
        prefetch::at(self.connections.connection(likely), 2);
    }

    /// Tracks the next of `packets`, whose key is number `i` of the burst, and has it looked up again with recirculation id `id`.
    #[inline(always)]
    pub(crate) fn track_next(
        &mut self,
        packets: &mut TakeEach<'_>,
        i: usize,
        (key, layout, likely): (&mut PacketKey, &Layout, Likely),
        (action, id): (&CtAction, u32),
        passes: u8,
        now: Instant,
    ) {
        let Some(p) = packets.peek() else { return };
        let headers = Headers::new(key, layout).for_tracking();
        let seen =
            likely.is_some() && connections::see(&self.connections, p, headers, key, likely, action, now);
        let changed = !seen && connections::track(&self.connections, p, headers, key, action, now);
        key.set_word(0, key.word(0) & !0xffff_ffff | u64::from(id));
        self.look_up_next(packets, i, key, passes, changed);
    }

    /// Takes the next of `packets`, whose key is number `i` of the burst, out of its tunnel, and has it looked up again as what it is
    /// then.
    #[inline(always)]
    pub(crate) fn pop_next(
        &mut self,
        packets: &mut TakeEach<'_>,
        i: usize,
        (key, layout): (&mut PacketKey, &mut Layout),
        (port, kind): (PortId, TunnelKind),
        passes: u8,
    ) {
        let Some(p) = packets.peek() else { return };
        let l3 = Headers::new(key, layout).network();
        let opened = match tunnel::pop(p, kind, l3) {
            Ok(t) => t,
            Err(why) => {
                drop(packets.take());
                return self.tally.drop(why);
            }
        };
        key.clear();
        let inner = plain::read(p, port, key).map_or_else(|| flow::parse_into(p, port, key).ok(), Some);
        let Some(inner) = inner else {
            drop(packets.take());
            return self.tally.drop(DropReason::Runt);
        };
        tunnel::write(&opened, key);
        *layout = inner;
        self.look_up_next(packets, i, key, passes, false);
    }

    /// Has the next of `packets` looked up again with key number `i` of the burst, which is its own, or (`changed`) one that is read
    /// anew but for its metadata.
    #[inline(always)]
    fn look_up_next(
        &mut self,
        packets: &mut TakeEach<'_>,
        i: usize,
        key: &PacketKey,
        passes: u8,
        changed: bool,
    ) {
        if passes >= self.max_passes {
            drop(packets.take());
            return self.tally.drop(DropReason::RecircLimit);
        }
        // In order: behind one that waits there this one waits too.
        if changed || !self.recirculated.is_empty() || self.tracked.packets.room() == 0 {
            let m = metadata(key);
            return self.recirculate(packets.take(), m, passes);
        }
        self.tally.recirculations += 1;
        self.tracked.passes = passes;
        self.tracked.keys[self.tracked.packets.len()] = i as u8;
        packets.move_to(&mut self.tracked.packets);
    }

    fn run(&mut self, mut p: Packet<'_>, actions: &[Action], passes: u8, depth: u8, now: Instant) {
        let (mut given, is_sample) = (false, p.is_sample);
        let mut trunc: Option<usize> = None;
        for (i, a) in actions.iter().enumerate() {
            let last = i + 1 == actions.len();
            // Ports ask nothing, and most packets in a tunnel go to one.
            if p.is_other
                && !matches!(
                    a,
                    Action::Output(_) | Action::Trunc(_) | Action::Clone(_) | Action::CheckLength(_)
                )
            {
                p.get_to_know();
            }
            match a {
                Action::Output(_) | Action::LbOutput(_) if p.kind() != packet_type::ETHERNET => {
                    return self.tally.drop(DropReason::PacketType);
                }
                Action::Output(port) => {
                    let cut = trunc.take();
                    if last {
                        if let Some(n) = cut.filter(|n| *n < p.buf.len()) {
                            let _ = p.buf.resize(n);
                        }
                        return self.send(*port, p.buf);
                    }
                    given = true;
                    self.send_copy(*port, &p.buf, cut);
                }
                Action::LbOutput(bond) => {
                    let cut = trunc.take();
                    if p.changed {
                        p.reparse();
                    }
                    let bytes = p.buf.len().min(cut.unwrap_or(usize::MAX));
                    given = true;
                    match self.bonds.choose(*bond, p.key, bytes) {
                        None => self.tally.drop(DropReason::NoBondMember),
                        Some(port) if last => {
                            let _ = p.buf.resize(bytes);
                            return self.send(port, p.buf);
                        }
                        Some(port) => self.send_copy(port, &p.buf, cut),
                    }
                }
                Action::Controller(c) => {
                    given = true;
                    self.punt(&mut p, c);
                }
                Action::SetField { field, value, mask } => set_field(&mut p, *field, *value, *mask),
                Action::DecTtl => {
                    if !edit::dec_ttl(&mut p.buf, &p.headers) {
                        return self.tally.drop(DropReason::TtlExceeded);
                    }
                    p.changed = true;
                }
                Action::PushVlan { tpid, tci } => {
                    if let Err(why) = edit::push_vlan(&mut p.buf, &mut p.headers, *tpid, *tci) {
                        return self.tally.drop(why);
                    }
                    p.changed = true;
                }
                Action::PopVlan => {
                    edit::pop_vlan(&mut p.buf, &mut p.headers);
                    p.changed = true;
                }
                Action::PushMpls { eth_type, lse } => {
                    if let Err(why) = edit::push_mpls(&mut p.buf, &mut p.headers, *eth_type, *lse) {
                        return self.tally.drop(why);
                    }
                    p.changed = true;
                    if p.kind() != packet_type::ETHERNET {
                        p.became(packet_type::of_type(*eth_type));
                    }
                }
                Action::PopMpls { eth_type: eth_type::TEB }
                    if packet_type::eth_type(p.kind()).is_some_and(eth_type::is_mpls) =>
                {
                    if let Err(why) = edit::pop_label_of_frame(&mut p.buf) {
                        return self.tally.drop(why);
                    }
                    p.became(packet_type::ETHERNET);
                }
                Action::PopMpls { eth_type } => {
                    edit::pop_mpls(&mut p.buf, &mut p.headers, *eth_type);
                    p.changed = true;
                    if p.kind() != packet_type::ETHERNET {
                        p.became(packet_type::of_type(*eth_type));
                    }
                }
                Action::AddMpls { eth_type, lse } => {
                    let kind = p.kind();
                    if let Err(why) = edit::push_outermost(&mut p.buf, &lse.to_be_bytes(), *eth_type, kind) {
                        return self.tally.drop(why);
                    }
                    p.became(packet_type::of_type(*eth_type));
                }
                Action::PushEth { src, dst } => {
                    if p.kind() == packet_type::ETHERNET {
                        return self.tally.drop(DropReason::PacketType);
                    }
                    edit::set_addresses(&mut p.buf, *src, *dst);
                    p.became(packet_type::ETHERNET);
                }
                Action::PopEth => {
                    if p.kind() != packet_type::ETHERNET || p.headers.vlans() > 0 {
                        return self.tally.drop(DropReason::PacketType);
                    }
                    edit::set_addresses(&mut p.buf, MacAddr::default(), MacAddr::default());
                    let kind = packet_type::of_type(p.headers.eth_type());
                    p.became(kind);
                }
                Action::PushNsh(h) => {
                    let kind = p.kind();
                    if let Err(why) = edit::push_nsh(&mut p.buf, h, kind) {
                        return self.tally.drop(why);
                    }
                    p.became(packet_type::NSH);
                }
                Action::PopNsh => {
                    let kind = p.kind();
                    match edit::pop_nsh(&mut p.buf, kind) {
                        Ok(kind) => p.became(kind),
                        Err(why) => return self.tally.drop(why),
                    }
                }
                Action::Recirc(id) => {
                    let mut m = metadata(p.key);
                    m.port = m.port & !0xffff_ffff | u64::from(*id);
                    if last {
                        return self.recirculate(p.buf, m, passes);
                    }
                    given = true;
                    match p.buf.try_clone() {
                        Some(copy) => self.recirculate(copy, m, passes),
                        None => self.tally.drop(DropReason::NoBuffer),
                    }
                }
                Action::Ct(action) => {
                    let h = p.headers.for_tracking();
                    p.changed |= connections::track(&self.connections, &mut p.buf, h, p.key, action, now);
                }
                Action::CtClear => connections::clear(p.key),
                Action::Hash { alg, basis } => {
                    if p.changed {
                        p.reparse();
                    }
                    let hash = dp_hash(p.key, *alg, *basis);
                    p.key.set(FieldId::DpHash, hash.into());
                }
                Action::Meter(id) => {
                    let meter = self.meters.load().get(&id.0).cloned();
                    match meter.map_or(Verdict::Pass, |m| m.offer(p.bytes().len(), now)) {
                        Verdict::Pass => {}
                        Verdict::Drop => return self.tally.drop(DropReason::Meter),
                        Verdict::Remark { levels } => remark(&mut p, levels),
                    }
                }
                Action::Trunc(n) => trunc = Some((*n as usize).saturating_add(nsh::blank(p.key))),
                Action::TunnelPush(h) => {
                    if let Err(why) = tunnel::push(&mut p.buf, h, p.key, &self.into_tunnels, now) {
                        return self.tally.drop(why);
                    }
                    p.became(packet_type::ETHERNET);
                }
                Action::TunnelPop { port, kind } => {
                    given = true;
                    let mut copy = None;
                    if !last {
                        copy = p.buf.try_clone();
                        if copy.is_none() {
                            self.tally.drop(DropReason::NoBuffer);
                            continue;
                        }
                    }
                    let l3 = p.headers.network();
                    match copy {
                        Some(copy) => self.pop(copy, l3, *port, *kind, passes),
                        None => return self.pop(p.buf, l3, *port, *kind, passes),
                    }
                }
                Action::Clone(list) => {
                    if depth >= MAX_CLONE_DEPTH {
                        self.tally.drop(DropReason::RecircLimit);
                    } else if last {
                        return self.run(p, list, passes, depth + 1, now);
                    } else {
                        self.run_on_copy(&p, list, passes, depth + 1, now, false);
                    }
                    given = true;
                }
                Action::Sample(s) => {
                    if depth < MAX_CLONE_DEPTH && self.dice.hit(s.probability) {
                        self.run_on_copy(&p, &s.actions, passes, depth + 1, now, true);
                    }
                }
                Action::Export(e) => self.export(&mut p, e),
                Action::CheckLength(c) => {
                    let list = c.of(p.bytes().len());
                    if depth >= MAX_CLONE_DEPTH {
                        self.tally.drop(DropReason::RecircLimit);
                    } else if last {
                        return self.run(p, list, passes, depth + 1, now);
                    } else if !list.is_empty() {
                        self.run_on_copy(&p, list, passes, depth + 1, now, false);
                    }
                    given = true;
                }
            }
        }
        if !given && !is_sample {
            self.tally.drop(DropReason::Action);
        }
    }

    fn run_on_copy(
        &mut self,
        p: &Packet<'_>,
        list: &[Action],
        passes: u8,
        depth: u8,
        now: Instant,
        is_sample: bool,
    ) {
        let Some(buf) = p.buf.try_clone() else {
            return self.tally.drop(DropReason::NoBuffer);
        };
        let mut key = *p.key;
        let (headers, changed, is_other) = (p.headers, p.changed, p.is_other);
        let is_sample = is_sample || p.is_sample;
        self.run(
            Packet { buf, key: &mut key, headers, changed, is_other, is_sample },
            list,
            passes,
            depth,
            now,
        );
    }

    fn send_copy(&mut self, port: PortId, p: &PacketBuf, cut: Option<usize>) {
        let Some(mut copy) = p.try_clone() else {
            return self.tally.drop(DropReason::NoBuffer);
        };
        if let Some(n) = cut.filter(|n| *n < copy.len()) {
            let _ = copy.resize(n);
        }
        self.send(port, copy);
    }

    fn pop(&mut self, mut buf: PacketBuf, l3: usize, port: PortId, kind: TunnelKind, passes: u8) {
        match tunnel::pop(&mut buf, kind, l3) {
            Ok(t) => {
                let mut key = PacketKey::ZERO;
                key.set(FieldId::DpPort, port.0.into());
                t.write(&mut key);
                self.recirculate(buf, metadata(&key), passes);
            }
            Err(why) => self.tally.drop(why),
        }
    }

    fn recirculate(&mut self, packet: PacketBuf, metadata: Metadata, passes: u8) {
        if passes >= self.max_passes || self.recirculated.len() >= RECIRC_QUEUE {
            return self.tally.drop(DropReason::RecircLimit);
        }
        self.tally.recirculations += 1;
        self.recirculated.push(Recirculated { packet, metadata, passes });
    }

    /// Hands a copy to whoever exports it. Whether there is room for it is no concern of the packet.
    #[cold]
    fn export(&mut self, p: &mut Packet<'_>, e: &Arc<Export>) {
        if p.changed {
            p.reparse();
        }
        let (bytes, key) = (p.bytes(), *p.key);
        let snap = bytes.len().min(e.snap_bytes.into());
        let (packet, len_bytes) = (bytes[..snap].to_vec(), bytes.len() as u32);
        self.punts.export(Exported { packet, len_bytes, key, export: e.clone() });
    }

    fn punt(&mut self, p: &mut Packet<'_>, action: &ControllerAction) {
        if p.changed {
            p.reparse();
        }
        let punt = Punt { packet: p.bytes().to_vec(), key: *p.key, action: *action };
        if self.punts.punt(punt) {
            self.tally.punts += 1;
        } else {
            self.tally.drop(DropReason::PuntFull);
        }
    }
}

fn set_field(p: &mut Packet<'_>, field: FieldId, value: u128, mask: u128) {
    if field.first_word() == 0 || field.is_metadata() {
        p.key.set_masked(field, value, mask);
        return;
    }
    edit::set_field(&mut p.buf, &p.headers, field, value, mask);
    p.changed = true;
}

fn remark(p: &mut Packet<'_>, levels: u8) {
    if let Some(tos) = edit::tos(&p.buf, &p.headers) {
        set_field(p, FieldId::NwTos, u128::from(remarked(tos >> 2, levels) << 2), 0xfc);
    }
}
