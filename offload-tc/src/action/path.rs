//! Options of actions that decide where packets go and how many: mirred, skbedit, sample, police.

use super::packet::TC_GEN;
use super::{ActionSpec, Verdict};
use crate::error::CodecError;
use crate::wire::{Writer, attrs, read_u16, read_u32, read_u64, word};

/// What mirred does with a packet (TCA_EGRESS_REDIR and its neighbours).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum MirredMode {
    EgressRedirect = 1,
    EgressMirror = 2,
    IngressRedirect = 3,
    IngressMirror = 4,
}

impl MirredMode {
    /// Whether the packet itself goes, not a copy.
    pub fn takes_packet(self) -> bool {
        matches!(self, MirredMode::EgressRedirect | MirredMode::IngressRedirect)
    }
}

/// What skbedit sets in the packet's metadata.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Skbedit {
    /// Priority.
    pub priority: Option<u32>,
    /// Transmit queue.
    pub queue: Option<u16>,
    /// Mark and the bits of it that are set.
    pub mark: Option<(u32, u32)>,
    /// Packet type (`PACKET_HOST` is 0).
    pub ptype: Option<u16>,
}

/// One tick of the packet scheduler in nanoseconds: 2 to the power of `PSCHED_SHIFT`.
const TICK_NS: u64 = 64;
/// Cells of a rate table.
const CELLS: usize = 256;
/// Largest frame a rate table is made for when a policer does not say, as `tc` has it.
const DEFAULT_MTU: u32 = 2047;

/// A policer: a token bucket of bytes or of packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Police {
    /// Bytes per second, 0 when there is no limit.
    pub rate_bytes: u64,
    /// The bucket's size as time at that rate, in ticks of 64 ns.
    pub burst_ticks: u32,
    /// Longest frame that conforms, 0 for any.
    pub mtu: u32,
    /// Packets per second, 0 when there is no limit.
    pub rate_packets: u64,
    /// The bucket's size as time at that rate, in ticks of 64 ns.
    pub packet_burst_ticks: u64,
    /// Bytes that each packet counts for besides its own, against the rate of bytes.
    pub overhead: u16,
    /// What becomes of packets that conform; the action's verdict is for those that exceed.
    pub conform: Option<Verdict>,
}

fn ticks(amount: u64, rate: u64) -> u64 {
    let ns = u128::from(amount) * 1_000_000_000 / u128::from(rate.max(1));
    u64::try_from(ns / u128::from(TICK_NS)).unwrap_or(u64::MAX)
}

impl Police {
    /// At most `rate` bytes per second with a bucket of `burst` bytes.
    pub fn bytes(rate: u64, burst: u64) -> Self {
        let burst_ticks = u32::try_from(ticks(burst, rate)).unwrap_or(u32::MAX);
        let conform = Some(Verdict::Pipe);
        Police {
            rate_bytes: rate,
            burst_ticks,
            mtu: 0,
            rate_packets: 0,
            packet_burst_ticks: 0,
            overhead: 0,
            conform,
        }
    }

    /// At most `rate` packets per second with a bucket of `burst` packets.
    pub fn packets(rate: u64, burst: u64) -> Self {
        let packet_burst_ticks = ticks(burst, rate);
        Police { rate_packets: rate, packet_burst_ticks, rate_bytes: 0, burst_ticks: 0, ..Self::bytes(0, 0) }
    }

    /// One that nothing conforms to.
    pub fn closed() -> Self {
        Police { mtu: 1, ..Self::bytes(0, 0) }
    }

    fn cell_log(&self) -> u8 {
        let mtu = if self.mtu == 0 { DEFAULT_MTU } else { self.mtu };
        (0..16).find(|l| mtu >> l <= 255).unwrap_or(16)
    }

    /// The kernel wants the table to be there; what is in it mattered to kernels before 3.10 only.
    fn rate_table(&self) -> [u8; CELLS * 4] {
        let mut t = [0; CELLS * 4];
        for (i, cell) in t.chunks_exact_mut(4).enumerate() {
            let size = (i as u64 + 1) << self.cell_log();
            let v = u32::try_from(ticks(size, self.rate_bytes)).unwrap_or(u32::MAX);
            cell.copy_from_slice(&v.to_ne_bytes());
        }
        t
    }
}

/// Writes the options; `head` is the action's `struct tc_gen`.
pub(crate) fn put(w: &mut Writer, spec: &ActionSpec, head: &[u8; TC_GEN]) {
    match spec {
        ActionSpec::Mirred { mode, ifindex } => {
            let n = w.nest(2);
            w.raw(head);
            w.raw(&(*mode as u32).to_ne_bytes());
            w.raw(&ifindex.to_ne_bytes());
            w.end(n);
        }
        ActionSpec::Skbedit(s) => {
            w.attr(2, head);
            if let Some(v) = s.priority {
                w.u32(3, v);
            }
            if let Some(v) = s.queue {
                w.u16(4, v);
            }
            if let Some((v, mask)) = s.mark {
                w.u32(5, v);
                w.u32(8, mask);
            }
            if let Some(v) = s.ptype {
                w.u16(7, v);
            }
        }
        ActionSpec::Sample { rate, group, trunc } => {
            w.attr(2, head);
            w.u32(3, *rate);
            if let Some(v) = trunc {
                w.u32(4, *v);
            }
            w.u32(5, *group);
        }
        ActionSpec::Police(p) => put_police(w, p, head),
        _ => {}
    }
}

fn put_police(w: &mut Writer, p: &Police, head: &[u8; TC_GEN]) {
    // struct tc_police: index, action, limit, burst, mtu, two struct tc_ratespec, refcnt, bindcnt, capab.
    let n = w.nest(1);
    w.raw(&head[..4]);
    w.raw(&head[8..12]);
    w.raw(&[0; 4]);
    w.raw(&p.burst_ticks.to_ne_bytes());
    w.raw(&p.mtu.to_ne_bytes());
    if p.rate_bytes > 0 {
        // Ethernet link layer; cell_align is -1, as in tc.
        w.raw(&[p.cell_log(), 1]);
        w.raw(&p.overhead.to_ne_bytes());
        w.raw(&[0xff, 0xff, 0, 0]);
        w.raw(&u32::try_from(p.rate_bytes).unwrap_or(u32::MAX).to_ne_bytes());
    } else {
        w.raw(&[0; 12]);
    }
    w.raw(&[0; 24]);
    w.end(n);
    if p.rate_bytes > 0 {
        w.attr(2, &p.rate_table());
        if p.rate_bytes > u64::from(u32::MAX) {
            w.u64(8, p.rate_bytes);
        }
    }
    if p.rate_packets > 0 {
        w.u64(10, p.rate_packets);
        w.u64(11, p.packet_burst_ticks);
    }
    if let Some(v) = p.conform {
        w.attr(5, &v.raw().to_ne_bytes());
    }
}

pub(crate) fn get_mirred(params: &[u8]) -> Result<ActionSpec, CodecError> {
    let mode = match word("mirred parameters", params, 5)? {
        1 => MirredMode::EgressRedirect,
        2 => MirredMode::EgressMirror,
        3 => MirredMode::IngressRedirect,
        4 => MirredMode::IngressMirror,
        n => return Err(CodecError::Value { what: "mirred action", value: n.into() }),
    };
    Ok(ActionSpec::Mirred { mode, ifindex: word("mirred parameters", params, 6)? })
}

pub(crate) fn get_skbedit(b: &[u8]) -> Result<ActionSpec, CodecError> {
    let mut s = Skbedit::default();
    let (mut mark, mut mask) = (None, u32::MAX);
    for a in attrs(b) {
        match a? {
            (3, v) => s.priority = Some(read_u32("skbedit priority", v)?),
            (4, v) => s.queue = Some(read_u16("skbedit queue", v)?),
            (5, v) => mark = Some(read_u32("skbedit mark", v)?),
            (7, v) => s.ptype = Some(read_u16("skbedit packet type", v)?),
            (8, v) => mask = read_u32("skbedit mask", v)?,
            _ => {}
        }
    }
    s.mark = mark.map(|m| (m, mask));
    Ok(ActionSpec::Skbedit(s))
}

pub(crate) fn get_sample(b: &[u8]) -> Result<ActionSpec, CodecError> {
    let (mut rate, mut group, mut trunc) = (0, 0, None);
    for a in attrs(b) {
        match a? {
            (3, v) => rate = read_u32("sample rate", v)?,
            (4, v) => trunc = Some(read_u32("sample size", v)?),
            (5, v) => group = read_u32("sample group", v)?,
            _ => {}
        }
    }
    Ok(ActionSpec::Sample { rate, group, trunc })
}

/// A policer, the verdict on what exceeds, its number, and (references, bindings).
pub(crate) fn get_police(b: &[u8]) -> Result<(Police, Verdict, u32, (u32, u32)), CodecError> {
    let what = "police parameters";
    let mut p = Police::bytes(0, 0);
    p.conform = None;
    let mut head = None;
    for a in attrs(b) {
        match a? {
            (1, v) => {
                p.burst_ticks = word(what, v, 3)?;
                p.mtu = word(what, v, 4)?;
                if p.rate_bytes == 0 {
                    p.rate_bytes = word(what, v, 7)?.into();
                }
                p.overhead = read_u16(what, v.get(22..24).unwrap_or_default())?;
                let users = (word(what, v, 11)?, word(what, v, 12)?);
                head = Some((Verdict::from_raw(word(what, v, 1)? as i32)?, word(what, v, 0)?, users));
            }
            (5, v) => p.conform = Some(Verdict::from_raw(read_u32("police result", v)? as i32)?),
            (8, v) => p.rate_bytes = read_u64("police rate", v)?,
            (10, v) => p.rate_packets = read_u64("police packet rate", v)?,
            (11, v) => p.packet_burst_ticks = read_u64("police packet burst", v)?,
            _ => {}
        }
    }
    let (verdict, index, users) = head.ok_or(CodecError::Missing(what))?;
    Ok((p, verdict, index, users))
}
