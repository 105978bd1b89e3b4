//! The control queue (VIRTIO 1.2, 5.1.6.5): one command at a time, of two descriptors: what the device reads, and the byte that it
//! answers with. Used in bring-up only, so it is not made to be fast.

use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use clock::Deadline;
use device::driver::Fault;
use device::{DeviceBacking, DmaMemory, Iova};
use virtio_net_defs::control::ACK_OK;
use virtio_net_defs::{packed, split};

use crate::transport::Doorbell;

/// Entries of its ring.
pub(crate) const SIZE: u16 = 8;
/// Room for a command and its answer behind the ring.
const COMMAND_BYTES: usize = 64;
/// What the answer is before there is one.
const NONE: u8 = 0xff;

/// See the module's text.
pub(crate) struct ControlQueue {
    mem: DmaMemory,
    iova: Iova,
    packed: bool,
    /// Commands so far: one entry of a split ring each, two of a packed one.
    commands: u16,
}

impl ControlQueue {
    /// Where commands are, behind the ring.
    fn command_at(packed: bool) -> usize {
        let ring = if packed { packed::Layout::of(SIZE).bytes } else { split::Layout::of(SIZE).bytes };
        ring.next_multiple_of(64)
    }

    /// Bytes of memory for it.
    pub(crate) fn bytes(packed: bool) -> usize {
        Self::command_at(packed) + COMMAND_BYTES
    }

    /// In fresh memory of [`ControlQueue::bytes`].
    pub(crate) fn new((mem, iova): (DmaMemory, Iova), packed: bool) -> Self {
        ControlQueue { mem, iova, packed, commands: 0 }
    }

    /// Its areas, for its registers.
    pub(crate) fn areas(&self) -> [u64; 3] {
        let at = if self.packed {
            let l = packed::Layout::of(SIZE);
            [0, l.driver_event, l.device_event]
        } else {
            let l = split::Layout::of(SIZE);
            [0, l.avail, l.used]
        };
        at.map(|o| self.iova.offset(o).0)
    }

    fn post_split(&self, read: (u64, u32), write: u64) {
        let l = split::Layout::of(SIZE);
        self.mem.write(0, &split::descriptor(read.0, read.1, split::DESC_NEXT, 1));
        self.mem.write(split::DESC_BYTES, &split::descriptor(write, 1, split::DESC_WRITE, 0));
        self.mem.write(l.avail + 4 + 2 * usize::from(self.commands % SIZE), &[0; 2]);
        let flags = u32::from(split::AVAIL_NO_INTERRUPT);
        self.mem.store32(l.avail, flags | u32::from(self.commands.wrapping_add(1)) << 16);
    }

    fn post_packed(&self, read: (u64, u32), write: u64) {
        // The size is even: a command's two entries are in one round.
        let position = 2 * self.commands;
        let (at, wrap) = (usize::from(position % SIZE), (position / SIZE).is_multiple_of(2));
        let entry = |n: usize, addr: u64, len: u32, flags: u16| {
            let d = (at + n) * packed::DESC_BYTES;
            self.mem.write(d, &addr.to_le_bytes());
            self.mem.write(d + packed::DESC_LEN, &len.to_le_bytes());
            self.mem.store32(d + packed::DESC_WORD, u32::from(packed::available(wrap) | flags) << 16);
        };
        // The first one last: with it the device sees both.
        entry(1, write, 1, packed::WRITE);
        entry(0, read.0, read.1, packed::NEXT);
    }

    fn is_done(&self) -> bool {
        if self.packed {
            let position = 2 * self.commands;
            let d = usize::from(position % SIZE) * packed::DESC_BYTES + packed::DESC_WORD;
            packed::is_used((self.mem.load32(d) >> 16) as u16, (position / SIZE).is_multiple_of(2))
        } else {
            let l = split::Layout::of(SIZE);
            (self.mem.load32(l.used) >> 16) as u16 == self.commands.wrapping_add(1)
        }
    }

    /// Has the device do a command, and waits for its answer.
    ///
    /// # Errors
    /// [`Fault::TimedOut`], [`Fault::Wrong`] with the answer.
    pub(crate) fn command<B: DeviceBacking>(
        &mut self,
        backing: &B,
        doorbell: &Doorbell<B::Regs>,
        (class, command): (u8, u8),
        data: &[u8],
        timeout: Duration,
    ) -> Result<(), Fault> {
        let at = Self::command_at(self.packed);
        let words: Vec<u8> = [class, command].iter().chain(data).copied().collect();
        if words.len() >= COMMAND_BYTES {
            return Err(Fault::Unfit("a control command that is too long".into()));
        }
        self.mem.write(at, &words);
        let answer = at + COMMAND_BYTES - 1;
        self.mem.write(answer, &[NONE]);
        let read = (self.iova.offset(at).0, words.len() as u32);
        let write = self.iova.offset(answer).0;
        if self.packed {
            self.post_packed(read, write)
        } else {
            self.post_split(read, write)
        }
        fence(Ordering::SeqCst);
        doorbell.ring();
        let due = Deadline::after(backing.now(), timeout);
        let waited = backing.wait_until(&mut || self.is_done(), due);
        waited.map_err(|_| Fault::TimedOut { what: "no answer to a control command", timeout })?;
        self.commands = self.commands.wrapping_add(1);
        let mut b = [NONE];
        self.mem.read(answer, &mut b);
        if b[0] != ACK_OK {
            let expected = "0, which is done";
            return Err(Fault::Wrong { register: "control answer", value: b[0].into(), expected });
        }
        Ok(())
    }
}
