//! What the kernel says of an action besides what it was told: counters, age, hardware (`linux/gen_stats.h`,
//! `struct tcf_t` of `linux/pkt_cls.h`).

use crate::error::CodecError;
use crate::wire::{attrs, read_u32, read_u64};

/// Packets and bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Counts {
    pub packets: u64,
    pub bytes: u64,
}

/// See the module's text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ActionReport {
    /// All that went through, in software and in hardware.
    pub total: Counts,
    /// Of these, what hardware says it did.
    pub hardware: Counts,
    /// Packets dropped by the action.
    pub drops: u32,
    /// Packets over a policer's rate.
    pub overlimits: u32,
    /// Clock ticks (hundredths of a second) since the action was last used, `None` when the kernel did not say.
    pub idle_ticks: Option<u64>,
    /// Ticks since it was made.
    pub age_ticks: u64,
    /// Kinds of hardware statistics in use.
    pub used_hw_stats: u8,
    /// Devices that have it as an offloaded action of its own.
    pub in_hw_count: u32,
    /// Its number.
    pub index: u32,
    /// References and bindings.
    pub users: (u32, u32),
}

impl ActionReport {
    /// What software did.
    pub fn software(&self) -> Counts {
        Counts {
            packets: self.total.packets.saturating_sub(self.hardware.packets),
            bytes: self.total.bytes.saturating_sub(self.hardware.bytes),
        }
    }

    /// Takes in TCA_ACT_STATS.
    pub(crate) fn read_stats(&mut self, b: &[u8]) -> Result<(), CodecError> {
        let (mut wide, mut narrow) = (None, 0);
        for a in attrs(b) {
            match a? {
                // TCA_STATS_BASIC: struct gnet_stats_basic, 64-bit bytes and 32-bit packets, sometimes padded.
                (1, v) => (self.total.bytes, narrow) = basic(v)?,
                // TCA_STATS_QUEUE: qlen, backlog, drops, requeues, overlimits.
                (3, v) if v.len() >= 20 => {
                    self.drops = read_u32("drops", &v[8..12])?;
                    self.overlimits = read_u32("overlimits", &v[16..20])?;
                }
                (7, v) => {
                    let (bytes, packets) = basic(v)?;
                    self.hardware = Counts { packets: packets.into(), bytes };
                }
                (8, v) => wide = Some(read_u64("packets", v)?),
                _ => {}
            }
        }
        self.total.packets = wide.unwrap_or(narrow.into());
        Ok(())
    }

    /// Takes in `struct tcf_t`: install, lastuse, expires, firstuse.
    pub(crate) fn read_times(&mut self, b: &[u8]) -> Result<(), CodecError> {
        if b.len() >= 16 {
            self.age_ticks = read_u64("age", &b[..8])?;
            self.idle_ticks = Some(read_u64("idle time", &b[8..16])?);
        }
        Ok(())
    }
}

fn basic(b: &[u8]) -> Result<(u64, u32), CodecError> {
    if b.len() < 12 {
        return Err(CodecError::Length { what: "basic statistics", wanted: 12, found: b.len() });
    }
    Ok((read_u64("bytes", &b[..8])?, read_u32("packets", &b[8..12])?))
}
