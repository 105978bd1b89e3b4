//! From the wire to a descriptor.

use ixgbe_defs::bits::{fctrl, hlreg0, maxfrs, rah, srrctl};
use ixgbe_defs::desc::{self, RxWriteBack, rx};
use ixgbe_defs::rss::{ENTRIES, KEY_BYTES};
use ixgbe_defs::{FCS_BYTES, MIN_FRAME_BYTES, regs, stats};
use model_bus::Bus;

use crate::filters::Hit;
use crate::parse::{Parsed, parse};
use crate::{Fault, Ixgbe, ON, RxFault};

/// Where a packet goes, and what its descriptor says of it.
struct Destination {
    queue: u16,
    hash: Option<(u32, u64)>,
    hit: Option<Hit>,
}

impl Ixgbe {
    /// A frame comes in, without its check sequence; one that is too short for a wire is filled up, as its sender would have done.
    pub(crate) fn receive(&mut self, bus: &mut Bus, frame: &[u8]) {
        if !self.receives() {
            return;
        }
        let mut padded;
        let mut f = frame;
        if frame.len() < MIN_FRAME_BYTES {
            padded = frame.to_vec();
            padded.resize(MIN_FRAME_BYTES, 0);
            f = &padded;
        }
        self.count(stats::TPR, 1);
        let p = parse(f);
        let longest = match self.get(regs::HLREG0) & hlreg0::JUMBOEN {
            0 => maxfrs::STANDARD + if p.tag.is_some() { 4 } else { 0 },
            _ => self.get(regs::MAXFRS) >> maxfrs::MFS_SHIFT,
        };
        let on_wire = f.len() as u32 + FCS_BYTES;
        if on_wire > longest {
            return self.count(stats::ROC, 1);
        }
        if !self.takes(f) {
            return;
        }
        self.count(stats::GPRC, 1);
        self.count_wide(stats::GORCL, stats::GORCH, on_wire.into());
        match f[0] & 1 {
            0 => {}
            _ if f[..6] == [0xff; 6] => self.count(stats::BPRC, 1),
            _ => self.count(stats::MPRC, 1),
        }
        let to = self.destination(&p);
        self.deliver(bus, f, &p, &to);
    }

    /// The address filter (7.1.1.1).
    fn takes(&self, f: &[u8]) -> bool {
        let c = self.get(regs::FCTRL);
        if f[..6] == [0xff; 6] {
            return c & fctrl::BAM != 0;
        }
        if f[0] & 1 != 0 {
            return c & fctrl::MPE != 0;
        }
        let (low, high) = (self.get(regs::ral(0)), self.get(regs::rah(0)));
        let [a, b, c0, d] = low.to_le_bytes();
        let [e, g, ..] = high.to_le_bytes();
        c & fctrl::UPE != 0 || high & rah::AV != 0 && f[..6] == [a, b, c0, d, e, g]
    }

    /// Filters in the order of 7.1.2: 5-tuple, flow director, then receive-side scaling.
    fn destination(&mut self, p: &Parsed) -> Destination {
        let hash = self.rss(p);
        if let Some(queue) = self.five_tuple(p) {
            return Destination { queue, hash: hash.map(|(h, k, _)| (h, k)), hit: None };
        }
        let hit = self.flow_director(p);
        let queue = hit.map(|h| h.queue).or(hash.map(|(.., q)| q)).unwrap_or(0);
        Destination { queue, hash: hash.map(|(h, k, _)| (h, k)), hit }
    }

    /// Hash, its type, and the queue.
    fn rss(&self, p: &Parsed) -> Option<(u32, u64, u16)> {
        let types = self.get(regs::MRQC);
        if types & 0xf != ixgbe_defs::bits::mrqc::RSS {
            return None;
        }
        let mut key = [0; KEY_BYTES];
        for (i, k) in (0..).zip(key.chunks_exact_mut(4)) {
            k.copy_from_slice(&self.get(regs::rssrk(i)).to_le_bytes());
        }
        let (hash, kind) = p.rss(types, &key)?;
        let entry = hash % ENTRIES as u32;
        let queue = self.get(regs::reta(entry / 4)) >> (8 * (entry % 4)) & 0xf;
        Some((hash, kind, queue as u16))
    }

    fn stat_set(&self, q: u16) -> u32 {
        self.get(stats::rqsmr(u32::from(q) / 4)) >> (8 * (q % 4)) & 0xf
    }

    fn deliver(&mut self, bus: &mut Bus, f: &[u8], p: &Parsed, to: &Destination) {
        let q = to.queue;
        let n = u32::from(q);
        let (base, entries) = self.ring(true, q);
        let control = self.get(regs::srrctl(n));
        let size = ((control & 0x1f) * 1024) as usize;
        let (mut head, tail) = (self.get(regs::rdh(n)), self.get(regs::rdt(n)));
        let on = self.rx_on[usize::from(q)] == ON && entries > 0 && size > 0;
        let free = if on { (tail + entries - head) % entries } else { 0 };
        if (free as usize) < f.len().div_ceil(size.max(1)) {
            // Without DROP_EN a frame waits in the packet buffer, which then is full sooner or later.
            let lost = if control & srrctl::DROP_EN != 0 || !on {
                stats::qprdc(self.stat_set(q))
            } else {
                stats::rxmpc(0)
            };
            return self.count(lost, 1);
        }
        let mishap = self.mishaps.rx.pop_front().flatten();
        if mishap == Some(RxFault::ResetsItself) {
            return self.restart();
        }
        if mishap == Some(RxFault::OutOfOrder) {
            head = (head + 1) % entries;
        }
        let chunks = f.chunks(size);
        let last = chunks.len() - 1;
        for (i, chunk) in chunks.enumerate() {
            let at = base + u64::from(head) * desc::BYTES as u64;
            let d = bus.read(at, desc::BYTES);
            let addr = d.first_chunk().map_or(u64::MAX, |a| u64::from_le_bytes(*a));
            if addr == u64::MAX || addr & 1 != 0 && size > 0 {
                self.fault(Fault::BadDescriptor { rx: true, queue: q, index: head, what: "no address" });
            } else {
                bus.write(addr, chunk);
            }
            head = (head + 1) % entries;
            let w = write_back(chunk.len(), i == last, p, to);
            if let Some(w) = spoil(w, mishap) {
                put_back(bus, at, &w);
                if mishap == Some(RxFault::Twice) {
                    put_back(bus, base + u64::from(head) * desc::BYTES as u64, &w);
                }
            }
        }
        self.put(regs::rdh(n), head);
        self.count(stats::qprc(self.stat_set(q)), 1);
        self.queue_cause(bus, q, false);
    }
}

fn write_back(len: usize, end: bool, p: &Parsed, to: &Destination) -> RxWriteBack {
    let mut info = p.packet_type() << 4;
    let mut status = rx::DD | if end { rx::EOP } else { 0 };
    if let Some(tag) = p.tag {
        // The tag stays in the frame; the descriptor has it as well.
        status |= rx::VP | u64::from(tag) << 48;
    }
    if let Some(h) = to.hit {
        info |= u64::from(h.soft_index) << 48 | u64::from(h.bucket) << 32;
        status |= rx::FLM | if h.long { rx::ERR_FDIR_LEN } else { 0 };
    } else if let Some((hash, kind)) = to.hash {
        info |= u64::from(hash) << 32 | kind;
    }
    RxWriteBack { info, status }.with_len(len as u16)
}

/// What the mishap makes of a descriptor; `None` when it is not written back.
fn spoil(w: RxWriteBack, mishap: Option<RxFault>) -> Option<RxWriteBack> {
    match mishap {
        Some(RxFault::Missing) => None,
        Some(RxFault::TooLong) => Some(w.with_len(u16::MAX)),
        Some(RxFault::Empty) => Some(w.with_len(0)),
        Some(RxFault::NoEnd) => Some(RxWriteBack { status: w.status & !rx::EOP, ..w }),
        Some(RxFault::Damaged) => Some(RxWriteBack { status: w.status | rx::ERR_RXE, ..w }),
        _ => Some(w),
    }
}

/// The descriptor at `at` is written back, the word that says so last.
fn put_back(bus: &mut Bus, at: u64, w: &RxWriteBack) {
    let b = w.encode();
    bus.write(at, &b[..desc::STATUS_AT]);
    bus.write(at + 12, &b[12..]);
    bus.write32(at + desc::STATUS_AT as u64, w.status as u32);
}
