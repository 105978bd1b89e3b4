//! What is in the device's filters, and how it gets there and out again.
//!
//! ```text
//!   flow director   input, hash, FDIRCMD=add ─► the command field reads zero     removal: query ─► there? ─► remove
//!                   an empty table takes the mask of its first filter: masks, tables initialized anew
//!   5-tuple         five writes, the last of which turns the filter on           removal: one write
//! ```
//!
//! The driver keeps an image of the buckets, as the datasheet's errata advise: the device flags a match in a bucket that is too long,
//! and does not say so when the filter is added.

use std::collections::HashMap;

use device::{RegOffset, Registers};
use ixgbe_defs::fdir::{self, cmd, ctrl};
use ixgbe_defs::{FdirInput, FdirMask, FiveTuple, five_tuple, regs};
use offload::Reject;

use crate::capability::{FDIR_NAME, FIVE_TUPLE_NAME};

/// The receive queue to which packets go that are dropped: it is never enabled, and drops without descriptors.
pub(crate) const DROP_QUEUE: u16 = 127;

/// What a filter does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    Drop,
    Queue(u16),
}

/// Where a filter is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// Bucket and software index.
    Fdir {
        bucket: u16,
        index: u16,
    },
    FiveTuple(u32),
}

/// The flow director's registers, and an image of its tables.
pub(crate) struct Fdir {
    /// What all filters compare; of an empty table, what they last did.
    mask: FdirMask,
    buckets: HashMap<u16, usize>,
    free: Vec<u16>,
    len: usize,
}

fn write<R: Registers>(regs: &R, (r, v): (u32, u32)) {
    regs.write32(RegOffset(r), v);
}

impl Fdir {
    pub(crate) fn new() -> Self {
        Fdir {
            mask: FdirMask::default(),
            buckets: HashMap::new(),
            free: (0..fdir::PERFECT_FILTERS as u16).rev().collect(),
            len: 0,
        }
    }

    /// Nothing is in the tables any more.
    pub(crate) fn forget(&mut self) {
        *self = Fdir { mask: self.mask, ..Fdir::new() };
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Begins to initialize the tables, empty, with these masks; [`is_initialized`] says when it is done. The order is that of the errata:
    /// hash tables cleared by hand before the control register is written again.
    pub(crate) fn initialize<R: Registers>(&mut self, regs: &R, mask: FdirMask) {
        self.mask = mask;
        self.forget();
        write(regs, (regs::FDIRFREE, 0));
        write(regs, (regs::FDIRCMD, cmd::CLEARHT));
        write(regs, (regs::FDIRCMD, 0));
        write(regs, (regs::FDIRHASH, 0));
        mask.registers().into_iter().for_each(|r| write(regs, r));
        write(regs, (regs::FDIRHKEY, fdir::BUCKET_KEY));
        write(regs, (regs::FDIRSKEY, fdir::SIGNATURE_KEY));
        let control = ctrl::PBALLOC_256K
            | ctrl::PERFECT_MATCH
            | u32::from(DROP_QUEUE) << ctrl::DROP_QUEUE_SHIFT
            | fdir::FLEX_ETHERTYPE << ctrl::FLEX_OFFSET_SHIFT
            | (fdir::MAX_BUCKET as u32) << ctrl::MAX_LENGTH_SHIFT
            | 4 << ctrl::FULL_THRESH_SHIFT;
        write(regs, (regs::FDIRCTRL, control));
    }

    /// A place for a filter under these masks; whether the tables have to be initialized for it first.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn place(&mut self, input: &FdirInput, mask: &FdirMask) -> Result<(Place, bool), Reject> {
        let full = Reject::TableFull { table: FDIR_NAME, entries: self.len };
        let anew = *mask != self.mask;
        if anew && self.len > 0 {
            return Err(Reject::MasksFull { table: FDIR_NAME, masks: 1 });
        }
        let bucket = input.bucket();
        let in_bucket = self.buckets.get(&bucket).copied().unwrap_or(0);
        if in_bucket >= fdir::MAX_BUCKET {
            return Err(full);
        }
        let index = self.free.pop().ok_or(full)?;
        self.buckets.insert(bucket, in_bucket + 1);
        self.len += 1;
        Ok((Place::Fdir { bucket, index }, anew))
    }

    /// The place is free again.
    pub(crate) fn give_back(&mut self, bucket: u16, index: u16) {
        if let Some(n) = self.buckets.get_mut(&bucket) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                self.buckets.remove(&bucket);
            }
        }
        self.len = self.len.saturating_sub(1);
        self.free.push(index);
    }

    /// Begins to initialize the tables for the filter that was just placed in them.
    pub(crate) fn initialize_for<R: Registers>(&mut self, regs: &R, mask: FdirMask, bucket: u16, index: u16) {
        self.initialize(regs, mask);
        self.free.retain(|i| *i != index);
        self.buckets.insert(bucket, 1);
        self.len = 1;
    }
}

/// Whether the tables are initialized; `None` when the device is gone.
pub(crate) fn is_initialized<R: Registers>(regs: &R) -> Option<bool> {
    let v = regs.read32(RegOffset(regs::FDIRCTRL));
    (v != ixgbe_defs::ALL_ONES).then_some(v & ctrl::INIT_DONE != 0)
}

/// What the flow director says of its command: `None` while it is under way, and whether a filter is there.
pub(crate) fn command_done<R: Registers>(regs: &R) -> Option<bool> {
    let v = regs.read32(RegOffset(regs::FDIRCMD));
    (v & cmd::CMD == 0).then_some(v & cmd::FILTER_VALID != 0)
}

fn hash_register(bucket: u16, index: u16) -> (u32, u32) {
    (regs::FDIRHASH, u32::from(index) << fdir::SOFT_INDEX_SHIFT | u32::from(bucket))
}

/// Begins to add a filter.
pub(crate) fn add<R: Registers>(regs: &R, input: &FdirInput, (bucket, index): (u16, u16), to: Target) {
    // What was counted before is not this filter's.
    regs.read32(RegOffset(regs::FDIRFSTAT));
    input.registers().into_iter().for_each(|r| write(regs, r));
    write(regs, hash_register(bucket, index));
    let (drop, queue) = match to {
        Target::Drop => (cmd::DROP, DROP_QUEUE),
        Target::Queue(q) => (0, q),
    };
    let command = cmd::ADD
        | cmd::FILTER_UPDATE
        | cmd::LAST
        | cmd::QUEUE_EN
        | drop
        | u32::from(input.l4) << cmd::L4TYPE_SHIFT
        | u32::from(queue) << cmd::RX_QUEUE_SHIFT;
    write(regs, (regs::FDIRCMD, command));
}

/// Whether a filter could not be added since [`add`] was called.
pub(crate) fn add_failed<R: Registers>(regs: &R) -> bool {
    regs.read32(RegOffset(regs::FDIRFSTAT)) & 0xff != 0
}

/// Begins to ask for a filter, or to remove it.
pub(crate) fn command<R: Registers>(regs: &R, (bucket, index): (u16, u16), command: u32) {
    write(regs, hash_register(bucket, index));
    write(regs, (regs::FDIRCMD, command));
}

/// The 5-tuple filters.
pub(crate) struct FiveTuples {
    free: Vec<u32>,
}

impl FiveTuples {
    pub(crate) fn new() -> Self {
        FiveTuples { free: (0..five_tuple::FILTERS).rev().collect() }
    }

    /// Puts a filter in.
    ///
    /// # Errors
    /// When there is no room.
    pub(crate) fn add<R: Registers>(&mut self, regs: &R, f: &FiveTuple, to: Target) -> Result<Place, Reject> {
        let entries = five_tuple::FILTERS as usize;
        let i = self.free.pop().ok_or(Reject::TableFull { table: FIVE_TUPLE_NAME, entries })?;
        let queue = match to {
            Target::Drop => DROP_QUEUE,
            Target::Queue(q) => q,
        };
        f.registers(i, queue).into_iter().for_each(|r| write(regs, r));
        Ok(Place::FiveTuple(i))
    }

    /// Takes filter `i` out.
    pub(crate) fn remove<R: Registers>(&mut self, regs: &R, i: u32) {
        write(regs, (regs::ftqf(i), 0));
        self.free.push(i);
    }
}
