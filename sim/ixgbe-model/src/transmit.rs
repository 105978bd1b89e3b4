//! From descriptors to the wire.

use ixgbe_defs::bits::{dmatxctl, hlreg0, maxfrs};
use ixgbe_defs::desc::{self, TxDescriptor, tx};
use ixgbe_defs::{FCS_BYTES, MIN_FRAME_BYTES, regs, stats};
use model_bus::Bus;

use crate::{Fault, Ixgbe, MAX_SENT, ON, TxFault};

/// Descriptors of a frame at most (7.2.1.1).
const MAX_PIECES: u32 = 40;

impl Ixgbe {
    /// Sends what is posted on queue `q`. A descriptor that makes no sense stops the queue, as it would hang silicon.
    pub(crate) fn transmit(&mut self, bus: &mut Bus, q: u16) {
        let n = u32::from(q);
        if self.mishaps.tx_hangs
            || self.tx_on[usize::from(q)] != ON
            || self.get(regs::DMATXCTL) & dmatxctl::TE == 0
        {
            return;
        }
        let (base, entries) = self.ring(false, q);
        if entries == 0 {
            return;
        }
        let tail = self.get(regs::tdt(n));
        let mut head = self.get(regs::tdh(n));
        let (mut frame, mut first) = (Vec::new(), None);
        while head != tail {
            let at = base + u64::from(head) * desc::BYTES as u64;
            let d = bus.read(at, desc::BYTES).first_chunk().map(TxDescriptor::decode);
            let Some(d) = d else { return };
            if let Err(what) = check(&d) {
                return self.fault(Fault::BadDescriptor { rx: false, queue: q, index: head, what });
            }
            let begin = *first.get_or_insert((head, d.payload_bytes()));
            frame.extend(bus.read(d.addr, d.len_bytes()));
            let pieces = (head + entries - begin.0) % entries + 1;
            head = (head + 1) % entries;
            if pieces > MAX_PIECES {
                let what = "a frame in too many pieces";
                return self.fault(Fault::BadDescriptor { rx: false, queue: q, index: head, what });
            }
            if d.command & tx::EOP == 0 {
                continue;
            }
            if begin.1 != frame.len() {
                let what = "the payload length is not the frame's";
                self.fault(Fault::BadDescriptor { rx: false, queue: q, index: begin.0, what });
            }
            let mishap = self.mishaps.tx.pop_front().flatten();
            self.send(q, std::mem::take(&mut frame));
            first = None;
            self.put(regs::tdh(n), head);
            if d.command & tx::RS != 0 && mishap != Some(TxFault::Never) {
                bus.write32(at + 12, (tx::DD >> 32) as u32);
                self.queue_cause(bus, q, true);
            }
            if mishap == Some(TxFault::ResetsItself) {
                return self.restart();
            }
        }
    }

    fn send(&mut self, q: u16, mut f: Vec<u8>) {
        if f.len() < MIN_FRAME_BYTES && self.get(regs::HLREG0) & hlreg0::TXPADEN != 0 {
            f.resize(MIN_FRAME_BYTES, 0);
        }
        let longest = self.get(regs::MAXFRS) >> maxfrs::MFS_SHIFT;
        let on_wire = f.len() as u32 + FCS_BYTES;
        if f.len() < MIN_FRAME_BYTES || on_wire > longest.max(maxfrs::STANDARD + 4) {
            let what = "a frame that no wire takes";
            return self.fault(Fault::BadDescriptor { rx: false, queue: q, index: 0, what });
        }
        if !self.link_up() {
            return;
        }
        self.count(stats::GPTC, 1);
        self.count_wide(stats::GOTCL, stats::GOTCH, on_wire.into());
        if self.sent.len() == MAX_SENT {
            self.sent_lost += 1;
            return;
        }
        self.sent.push_back((q, f));
        if let Some(w) = &self.wake {
            w.raise();
        }
    }
}

fn check(d: &TxDescriptor) -> Result<(), &'static str> {
    if d.command & tx::DEXT == 0 || d.command & tx::DTYP != tx::DTYP_DATA {
        return Err("not an advanced data descriptor");
    }
    if d.command & (tx::TSE | tx::VLE | tx::POPTS) != 0 {
        return Err("an offload that is not modelled");
    }
    if d.len_bytes() == 0 {
        return Err("no bytes");
    }
    if d.command & tx::EOP != 0 && d.command & tx::IFCS == 0 {
        return Err("no check sequence");
    }
    Ok(())
}
