//! MSI-X: the table and the pending bits in a BAR (PCI Express Base Specification 6.1.4).
//!
//! A vector that is raised while masked stays pending and is sent when it is unmasked.
//!
//! Behavioural: masks and pending bits; the message is a transfer of the DMA engine.

/// Bytes of a table entry: address low, address high, data, vector control.
pub const MSIX_ENTRY_BYTES: u32 = 16;

/// What a vector sends: a 32-bit memory write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// Address.
    pub address: u64,
    /// Data.
    pub data: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    address: u64,
    data: u32,
    masked: bool,
    pending: bool,
}

kernel::state!(struct Entry { address, data, masked, pending });

impl Entry {
    const RESET: Entry = Entry { address: 0, data: 0, masked: true, pending: false };
}

/// The table.
#[derive(Clone, Debug)]
pub struct Msix {
    entries: Vec<Entry>,
    enabled: bool,
    function_mask: bool,
    /// Some vector is pending and may be sent.
    due: bool,
    /// Messages to be lost.
    to_lose: u32,
}

kernel::state!(struct Msix { entries: sized, enabled, function_mask, due, to_lose });

impl Msix {
    /// `vectors` vectors, all masked, MSI-X disabled.
    pub fn new(vectors: u16) -> Self {
        Msix {
            entries: vec![Entry::RESET; usize::from(vectors)],
            enabled: false,
            function_mask: false,
            due: false,
            to_lose: 0,
        }
    }

    /// Number of vectors.
    pub fn vectors(&self) -> u16 {
        self.entries.len() as u16
    }

    /// As after power-on.
    pub fn reset(&mut self) {
        self.entries.fill(Entry::RESET);
        (self.enabled, self.function_mask, self.due) = (false, false, false);
        self.to_lose = 0;
    }

    /// Follows the capability's control register.
    pub fn set_control(&mut self, enabled: bool, function_mask: bool) {
        (self.enabled, self.function_mask) = (enabled, function_mask);
        self.due = self.entries.iter().any(|e| e.pending);
    }

    /// Raises vector `v`: the message to send now, if it may be sent. Nothing happens for vectors that do not exist or
    /// while MSI-X is disabled.
    pub fn raise(&mut self, v: u16) -> Option<Message> {
        if !self.enabled {
            return None;
        }
        let function_mask = self.function_mask;
        let e = self.entries.get_mut(usize::from(v))?;
        if e.masked || function_mask {
            e.pending = true;
            return None;
        }
        let m = Message { address: e.address, data: e.data };
        if self.to_lose > 0 {
            self.to_lose -= 1;
            return None;
        }
        Some(m)
    }

    /// The next `n` messages are lost on their way: a failure that somebody injects. [`Msix::reset`] ends it.
    pub fn lose(&mut self, n: u32) {
        self.to_lose = self.to_lose.saturating_add(n);
    }

    /// A message that was held back and may be sent now; its pending bit is cleared.
    pub fn take_due(&mut self) -> Option<Message> {
        if !self.due || !self.enabled || self.function_mask {
            return None;
        }
        match self.entries.iter_mut().find(|e| e.pending && !e.masked) {
            Some(e) => {
                e.pending = false;
                Some(Message { address: e.address, data: e.data })
            }
            None => {
                self.due = false;
                None
            }
        }
    }

    /// Whether [`Msix::take_due`] may have something.
    pub fn has_due(&self) -> bool {
        self.due && self.enabled && !self.function_mask
    }

    /// Programs vector `v` to send `m` and unmasks it, as the platform does. False when it does not exist.
    pub fn program(&mut self, v: u16, m: Message) -> bool {
        let Some(e) = self.entries.get_mut(usize::from(v)) else { return false };
        *e = Entry { address: m.address, data: m.data, masked: false, pending: false };
        true
    }

    /// Reads the table at byte `offset`, 4-byte aligned; all ones beyond it.
    pub fn read_table(&self, offset: u32) -> u32 {
        match self.entries.get((offset / MSIX_ENTRY_BYTES) as usize) {
            None => u32::MAX,
            Some(e) => match offset % MSIX_ENTRY_BYTES {
                0 => e.address as u32,
                4 => (e.address >> 32) as u32,
                8 => e.data,
                12 => u32::from(e.masked),
                _ => u32::MAX,
            },
        }
    }

    /// Writes the table at byte `offset`; false when there is no such register.
    pub fn write_table(&mut self, offset: u32, v: u32) -> bool {
        let Some(e) = self.entries.get_mut((offset / MSIX_ENTRY_BYTES) as usize) else { return false };
        match offset % MSIX_ENTRY_BYTES {
            0 => e.address = e.address & !0xffff_ffff | u64::from(v & !3),
            4 => e.address = e.address & 0xffff_ffff | u64::from(v) << 32,
            8 => e.data = v,
            12 => {
                e.masked = v & 1 != 0;
                self.due |= e.pending && !e.masked;
            }
            _ => return false,
        }
        true
    }

    /// Reads the pending bits at byte `offset`; all ones beyond them.
    pub fn read_pending(&self, offset: u32) -> u32 {
        let first = (offset as usize & !3).saturating_mul(8);
        if first >= self.entries.len().next_multiple_of(64) {
            return u32::MAX;
        }
        let word = self.entries.iter().skip(first).take(32);
        word.enumerate().fold(0, |v, (i, e)| v | u32::from(e.pending) << i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_vector_is_pending_until_unmasked() {
        let mut m = Msix::new(2);
        m.set_control(true, false);
        assert!(m.write_table(16, 0xfee0_0000) && m.write_table(24, 5));
        assert_eq!(m.raise(1), None);
        assert_eq!(m.read_pending(0), 2);
        assert_eq!(m.take_due(), None);
        m.write_table(28, 0);
        assert!(m.has_due());
        assert_eq!(m.take_due(), Some(Message { address: 0xfee0_0000, data: 5 }));
        assert_eq!(m.take_due(), None);
        assert_eq!(m.raise(1), Some(Message { address: 0xfee0_0000, data: 5 }));
        m.set_control(true, true);
        assert_eq!(m.raise(1), None);
        m.set_control(true, false);
        assert!(m.take_due().is_some());
    }

    #[test]
    fn what_does_not_exist_reads_all_ones_and_is_not_raised() {
        let mut m = Msix::new(1);
        assert_eq!(m.raise(0), None, "disabled");
        m.set_control(true, false);
        assert_eq!(m.raise(7), None);
        assert_eq!(m.read_table(16), u32::MAX);
        assert!(!m.write_table(16, 0));
        assert_eq!(m.read_pending(8), u32::MAX);
        assert_eq!(m.read_table(12), 1);
    }
}
