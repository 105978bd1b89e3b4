//! What a device's DMA engine adds to the wire: its own datapath.
//!
//! ```text
//!   write:  start ─► pull unit (device memory, 128-byte chunks) ─► wire
//!   read:   start ─► wire ··· completion ─► receive unit (stores and forwards) ─► finish
//!                       both units ─► internal bus of the device
//! ```
//!
//! The default is an engine that adds nothing: the wire alone limits it.
//!
//! Cycle-level, in fractions of a cycle: how long each unit is taken by a chunk.

use crate::ticks;

/// What the engine's units move of device memory at once.
const CHUNK_BYTES: usize = 128;

/// Timing of an engine, in 1/1024 of the device's cycle. Made of nanoseconds by [`EngineNs::timing`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EngineTiming {
    /// Requests of a client that are prepared at once.
    pub lookahead: u32,
    /// A write is done when its last TLP has left, as a real device sees it; else when it has landed.
    pub posted_done: bool,
    pub(crate) start: u64,
    pub(crate) finish_read: u64,
    pub(crate) finish_write: u64,
    pub(crate) pull_base: u64,
    pub(crate) pull_chunk: u64,
    pub(crate) sent_tlp: u64,
    pub(crate) write_pause: u64,
    pub(crate) request_pause: u64,
    pub(crate) receives: bool,
    pub(crate) receive_pause: u64,
    pub(crate) receive_pause_kbyte: u64,
    pub(crate) receive_unaligned: u64,
    pub(crate) receive_unaligned_long: u64,
    pub(crate) receive_unaligned_host: u64,
    pub(crate) receive_split: u64,
    pub(crate) store_completion: u64,
    pub(crate) store_kbyte: u64,
    pub(crate) bus_kbyte: u64,
    pub(crate) bus_stream_kbyte: u64,
}

kernel::state!(struct EngineTiming {
    lookahead, posted_done, start, finish_read, finish_write, pull_base, pull_chunk, sent_tlp,
    write_pause, request_pause, receives, receive_pause, receive_pause_kbyte, receive_unaligned,
    receive_unaligned_long, receive_unaligned_host, receive_split, store_completion, store_kbyte,
    bus_kbyte, bus_stream_kbyte,
});

impl Default for EngineTiming {
    fn default() -> Self {
        EngineNs::default().timing(1, 1_000_000_000)
    }
}

/// The same in nanoseconds, as a device's description has it.
#[derive(Clone, Copy, PartialEq, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineNs {
    /// From a request's acceptance to its first TLP or pull.
    pub start: f64,
    /// From the last byte in device memory to the completion.
    pub finish_read: f64,
    /// From the last TLP's departure to the completion.
    pub finish_write: f64,
    /// Pull unit, per write.
    pub pull_base: f64,
    /// Pull unit, per 128 bytes of device memory touched.
    pub pull_chunk: f64,
    /// Later completion of a write per TLP after its first.
    pub sent_tlp: f64,
    /// Gap on the wire after a write that is not a multiple of 512 bytes.
    pub write_pause: f64,
    /// Gap on the wire after a read request.
    pub request_pause: f64,
    /// Whether completions pass through a receive unit that stores and forwards at the rate of the wire.
    #[serde(default)]
    pub receives: bool,
    /// Receive unit, per read of at most 256 bytes.
    pub receive_pause: f64,
    /// Receive unit, more per byte of these.
    pub receive_pause_byte: f64,
    /// Receive unit, per read of at most 256 bytes whose device address is not a multiple of 8.
    pub receive_unaligned: f64,
    /// The same of a longer one.
    pub receive_unaligned_long: f64,
    /// Receive unit, per read of at most 256 bytes whose host address is not that of a line.
    pub receive_unaligned_host: f64,
    /// Receive unit, per read of more than 256 bytes and more than one request.
    pub receive_split: f64,
    /// Later end of a read per completion after its first.
    pub store_completion: f64,
    /// Later end of a read per byte.
    pub store_byte: f64,
    /// Internal bus, per byte of a transfer's first 1024.
    pub bus_byte: f64,
    /// Internal bus, per byte after these.
    pub bus_stream_byte: f64,
}

impl EngineNs {
    /// In the clock of a device. `lookahead` of 1 prepares one request after the other.
    pub fn timing(&self, lookahead: u32, clock_hz: u64) -> EngineTiming {
        let t = |ns| ticks::from_ns(ns, clock_hz);
        EngineTiming {
            lookahead: lookahead.max(1),
            posted_done: false,
            start: t(self.start),
            finish_read: t(self.finish_read),
            finish_write: t(self.finish_write),
            pull_base: t(self.pull_base),
            pull_chunk: t(self.pull_chunk),
            sent_tlp: t(self.sent_tlp),
            write_pause: t(self.write_pause),
            request_pause: t(self.request_pause),
            receives: self.receives,
            receive_pause: t(self.receive_pause),
            receive_pause_kbyte: t(self.receive_pause_byte * 1024.0),
            receive_unaligned: t(self.receive_unaligned),
            receive_unaligned_long: t(self.receive_unaligned_long),
            receive_unaligned_host: t(self.receive_unaligned_host),
            receive_split: t(self.receive_split),
            store_completion: t(self.store_completion),
            store_kbyte: t(self.store_byte * 1024.0),
            bus_kbyte: t(self.bus_byte * 1024.0),
            bus_stream_kbyte: t(self.bus_stream_byte * 1024.0),
        }
    }
}

impl EngineTiming {
    /// When the first `end` bytes of a write have been pulled, from the pull's begin.
    #[inline]
    pub(crate) fn pulled(&self, device_address: usize, end: usize) -> u64 {
        let chunks = (end + device_address % 8).div_ceil(CHUNK_BYTES) as u64;
        self.pull_base + self.pull_chunk * chunks
    }

    /// Ticks of the internal bus for bytes `from..to` of a transfer.
    #[inline]
    pub(crate) fn bus(&self, from: usize, to: usize) -> u64 {
        if self.bus_kbyte == 0 {
            return 0;
        }
        let first = (to.min(1024) - from.min(1024)) as u64;
        let rest = (to - from) as u64 - first;
        (first * self.bus_kbyte + rest * self.bus_stream_kbyte) >> 10
    }

    /// From the receive unit's end with the last completion of a read to the read's.
    #[inline]
    pub(crate) fn stored(&self, len: usize, completions: u32) -> u64 {
        let later = self.store_completion * u64::from(completions.saturating_sub(1));
        self.finish_read + later + ((self.store_kbyte * len as u64) >> 10)
    }

    /// Bytes the receive unit moves for a read of `len` bytes, 256 at most, to a device address: whole lines, or, where the address is
    /// not a multiple of 8, whole chunks of device memory, as the pull unit does.
    #[inline]
    pub(crate) fn moved(&self, device: usize, len: usize) -> usize {
        len.next_multiple_of(if device.is_multiple_of(8) { 64 } else { CHUNK_BYTES })
    }

    /// What a read of `len` bytes from host to device address, in `requests` requests, costs the receive unit beside its
    /// bytes.
    #[inline]
    pub(crate) fn receive_extra(&self, host: u64, device: usize, len: usize, requests: u32) -> u64 {
        let unaligned = !device.is_multiple_of(8);
        if len > 256 {
            return match (unaligned, requests) {
                (true, _) => self.receive_unaligned_long,
                (false, 0 | 1) => 0,
                (false, _) => self.receive_split,
            };
        }
        let mut t = self.receive_pause + ((self.receive_pause_kbyte * len as u64) >> 10);
        if unaligned {
            t += self.receive_unaligned;
        }
        if !host.is_multiple_of(64) {
            t += self.receive_unaligned_host;
        }
        t
    }
}
