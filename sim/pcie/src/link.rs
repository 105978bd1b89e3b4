//! One direction of a link: TLPs one after the other at so many bytes per cycle, then in flight for some cycles.

use kernel::Cycles;

/// Parameters of the link and of the host's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkConfig {
    /// Bytes a direction carries per cycle.
    pub bytes_per_cycle: u32,
    /// Cycles from the last byte sent to arrival.
    pub latency_cycles: u32,
    /// Bytes a TLP takes beside its payload: header, sequence number, LCRC, framing.
    pub header_bytes: u32,
    /// Largest payload of a TLP in bytes: 128 to 4096, a power of two.
    pub max_payload_bytes: u32,
    /// Largest read request in bytes: 128 to 4096, a power of two.
    pub max_read_request_bytes: u32,
    /// Read requests that may be outstanding.
    pub read_tags: u32,
    /// Cycles the host's memory takes to answer a read.
    pub host_latency_cycles: u32,
    /// Requests a client may have in the engine.
    pub requests_per_client: u32,
}

/// A [`LinkConfig`] that cannot be.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
#[error("{key}: {reason}")]
pub struct LinkConfigError {
    /// Which value.
    pub key: &'static str,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl LinkConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first value that is out of range.
    pub fn check(&self) -> Result<(), LinkConfigError> {
        let err = |key, reason| Err(LinkConfigError { key, reason });
        let size = |v: u32| v.is_power_of_two() && (128..=4096).contains(&v);
        if self.bytes_per_cycle == 0 {
            return err("bytes_per_cycle", "must be at least 1");
        }
        if self.latency_cycles == 0 {
            return err("latency_cycles", "must be at least 1");
        }
        if !size(self.max_payload_bytes) {
            return err("max_payload_bytes", "must be a power of two from 128 to 4096");
        }
        if !size(self.max_read_request_bytes) {
            return err("max_read_request_bytes", "must be a power of two from 128 to 4096");
        }
        if self.read_tags == 0 || self.read_tags > 1024 {
            return err("read_tags", "must be from 1 to 1024");
        }
        if self.requests_per_client == 0 || self.requests_per_client > 1024 {
            return err("requests_per_client", "must be from 1 to 1024");
        }
        Ok(())
    }
}

/// Account of one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkStats {
    /// TLPs carried.
    pub tlps: u64,
    /// Payload bytes carried.
    pub payload_bytes: u64,
    /// Cycles in which it carried something.
    pub busy_cycles: u64,
}

/// One direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lane {
    free_at: u64,
    pub(crate) stats: LinkStats,
}

impl Lane {
    /// Whether a TLP can start in this cycle.
    #[inline]
    pub(crate) fn is_free(&self, now: Cycles) -> bool {
        self.free_at <= now.0
    }

    /// First cycle in which a TLP can start.
    pub(crate) fn free_at(&self) -> Cycles {
        Cycles(self.free_at)
    }

    /// Sends `tlps` TLPs with `payload` bytes in all as soon as possible from `now`; returns when the last arrives.
    #[inline]
    pub(crate) fn send(&mut self, now: Cycles, tlps: u32, payload: usize, c: &LinkConfig) -> Cycles {
        let bytes = u64::from(tlps) * u64::from(c.header_bytes) + payload as u64;
        let cycles = bytes.div_ceil(u64::from(c.bytes_per_cycle)).max(1);
        self.free_at = self.free_at.max(now.0) + cycles;
        self.stats.tlps += u64::from(tlps);
        self.stats.payload_bytes += payload as u64;
        self.stats.busy_cycles += cycles;
        Cycles(self.free_at + u64::from(c.latency_cycles))
    }

    pub(crate) fn reset(&mut self) {
        self.free_at = 0;
    }
}
