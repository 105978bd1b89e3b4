//! Doorbells of a device that runs live: posted without waiting for the device's lock.
//!
//! A doorbell register keeps the last value written; the device takes what is new before each run. In lockstep doorbells
//! are written like any other register.
//!
//! Behavioural: in live mode a doorbell is seen at the next run of the device, not after a flight over the link.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use simnic_defs::regs::{MAX_PORTS, MAX_QUEUE_PAIRS, QUEUE_BASE, QUEUE_STRIDE, QueueReg, Reg};

const PER_BLOCK: [QueueReg; 4] = [QueueReg::RX_TAIL, QueueReg::RX_ARM, QueueReg::TX_TAIL, QueueReg::TX_ARM];
const BLOCKS: usize = (MAX_PORTS * MAX_QUEUE_PAIRS) as usize;
const COUNT: usize = 2 + BLOCKS * PER_BLOCK.len();
const WORDS: usize = COUNT.div_ceil(64);

/// Written and not yet taken doorbells.
pub(crate) struct Doorbells {
    values: [AtomicU32; COUNT],
    new: [AtomicU64; WORDS],
    any: AtomicBool,
}

/// Index of the doorbell at an offset of BAR0.
fn index(offset: u32) -> Option<usize> {
    if offset == Reg::CMD_TAIL.0 {
        return Some(0);
    }
    if offset == Reg::CMD_ARM.0 {
        return Some(1);
    }
    let at = offset.checked_sub(QUEUE_BASE)?;
    let block = (at / QUEUE_STRIDE) as usize;
    let which = PER_BLOCK.iter().position(|r| r.0 == at % QUEUE_STRIDE)?;
    (block < BLOCKS).then_some(2 + block * PER_BLOCK.len() + which)
}

fn offset(index: usize) -> u32 {
    match index {
        0 => Reg::CMD_TAIL.0,
        1 => Reg::CMD_ARM.0,
        i => {
            let (block, which) = ((i - 2) / PER_BLOCK.len(), (i - 2) % PER_BLOCK.len());
            QUEUE_BASE + block as u32 * QUEUE_STRIDE + PER_BLOCK[which].0
        }
    }
}

impl Doorbells {
    pub fn new() -> Self {
        Doorbells {
            values: std::array::from_fn(|_| AtomicU32::new(0)),
            new: std::array::from_fn(|_| AtomicU64::new(0)),
            any: AtomicBool::new(false),
        }
    }

    /// Writes the doorbell at `offset` of BAR0; false when there is none.
    pub fn ring(&self, offset: u32, v: u32) -> bool {
        let Some(i) = index(offset) else { return false };
        self.values[i].store(v, Ordering::Release);
        self.new[i / 64].fetch_or(1 << (i % 64), Ordering::AcqRel);
        self.any.store(true, Ordering::SeqCst);
        true
    }

    /// Whether something may be new.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::SeqCst)
    }

    /// Gives every new doorbell's offset and value to `f`.
    pub fn take(&self, mut f: impl FnMut(u32, u32)) {
        if !self.any.swap(false, Ordering::SeqCst) {
            return;
        }
        for (w, word) in self.new.iter().enumerate() {
            let mut bits = word.swap(0, Ordering::AcqRel);
            while bits != 0 {
                let i = w * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                f(offset(i), self.values[i].load(Ordering::Acquire));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_doorbell_maps_to_itself_and_nothing_else_is_one() {
        for i in 0..COUNT {
            assert_eq!(index(offset(i)), Some(i));
        }
        let doorbells = (0..0x1_0000).step_by(4).filter(|o| index(*o).is_some()).count();
        assert_eq!(doorbells, COUNT);
    }

    #[test]
    fn the_last_value_is_taken_once() {
        let d = Doorbells::new();
        assert!(d.ring(Reg::CMD_TAIL.0, 1) && d.ring(Reg::CMD_TAIL.0, 2));
        assert!(!d.ring(Reg::CTRL.0, 2));
        let mut got = vec![];
        d.take(|o, v| got.push((o, v)));
        d.take(|o, v| got.push((o, v)));
        assert_eq!(got, [(Reg::CMD_TAIL.0, 2)]);
    }
}
