//! Actions of TC: what a filter does with a packet, one after the other, each ending in a verdict.
//!
//! [`TcAction`] is what is written and meant; [`ActionReport`] is what the kernel says of it besides, counters above all.
//! Options of the single kinds are in [`packet`] (gact, vlan, pedit, csum, mpls), [`path`] (mirred, skbedit, sample, police)
//! and [`state`] (tunnel_key, ct).

mod nests;
pub mod packet;
pub mod path;
pub mod state;
mod stats;

pub use nests::{get_action, get_actions, put_action, put_actions};
pub(crate) use nests::{get_terse, put_bits};
pub use packet::{PeditCmd, PeditHeader, PeditKey, VlanAction};
pub use path::{MirredMode, Police, Skbedit};
pub use state::{Ct, CtNat, TunnelSet};
pub use stats::{ActionReport, Counts};

use crate::error::CodecError;

/// Actions of one filter (TCA_ACT_MAX_PRIO).
pub const MAX_ACTIONS: usize = 32;

/// What happens after an action (`linux/pkt_cls.h`, TC_ACT_*).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Verdict {
    /// As the next filter says.
    Unspec,
    /// Goes on to where it was going: out of TC, to the packet's receiver.
    Pass,
    Reclassify,
    /// Is dropped.
    Drop,
    /// The next action.
    Pipe,
    /// The action has taken the packet.
    Stolen,
    Queued,
    Repeat,
    Redirect,
    /// From hardware to software.
    Trap,
    /// Skips actions.
    Jump(u32),
    /// Goes on in another chain.
    Goto(u32),
}

const OPCODE_SHIFT: u32 = 28;
/// Greatest number of a chain (TC_ACT_EXT_VAL_MASK).
pub const MAX_CHAIN: u32 = (1 << OPCODE_SHIFT) - 1;

impl Verdict {
    /// The kernel's number.
    pub fn raw(self) -> i32 {
        match self {
            Verdict::Unspec => -1,
            Verdict::Pass => 0,
            Verdict::Reclassify => 1,
            Verdict::Drop => 2,
            Verdict::Pipe => 3,
            Verdict::Stolen => 4,
            Verdict::Queued => 5,
            Verdict::Repeat => 6,
            Verdict::Redirect => 7,
            Verdict::Trap => 8,
            Verdict::Jump(n) => (1 << OPCODE_SHIFT | n & MAX_CHAIN) as i32,
            Verdict::Goto(n) => (2 << OPCODE_SHIFT | n & MAX_CHAIN) as i32,
        }
    }

    /// What a number of the kernel's means.
    ///
    /// # Errors
    /// [`CodecError::Value`].
    pub fn from_raw(n: i32) -> Result<Self, CodecError> {
        let low = n as u32 & MAX_CHAIN;
        Ok(match n {
            -1 => Verdict::Unspec,
            0 => Verdict::Pass,
            1 => Verdict::Reclassify,
            2 => Verdict::Drop,
            3 => Verdict::Pipe,
            4 => Verdict::Stolen,
            5 => Verdict::Queued,
            6 => Verdict::Repeat,
            7 => Verdict::Redirect,
            8 => Verdict::Trap,
            n if n > 0 && n as u32 >> OPCODE_SHIFT == 1 => Verdict::Jump(low),
            n if n > 0 && n as u32 >> OPCODE_SHIFT == 2 => Verdict::Goto(low),
            n => return Err(CodecError::Value { what: "verdict", value: n as u32 as u64 }),
        })
    }
}

/// What an action does.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum ActionSpec {
    /// Only its verdict.
    Gact,
    Mirred {
        mode: MirredMode,
        ifindex: u32,
    },
    Vlan(VlanAction),
    /// Writes bits of headers.
    Pedit(Vec<PeditKey>),
    /// Makes checksums right again: bits are [`packet::CSUM_IP4`] and its neighbours.
    Csum(u32),
    /// Takes the tunnel's key off the packet.
    TunnelUnset,
    TunnelSet(Box<TunnelSet>),
    Ct(Box<Ct>),
    Police(Police),
    Skbedit(Skbedit),
    MplsPop {
        proto: u16,
    },
    MplsPush {
        proto: u16,
        label: u32,
        tc: Option<u8>,
        ttl: Option<u8>,
        bos: Option<u8>,
    },
    MplsModify {
        label: Option<u32>,
        tc: Option<u8>,
        ttl: Option<u8>,
        bos: Option<u8>,
    },
    MplsDecTtl,
    Sample {
        rate: u32,
        group: u32,
        trunc: Option<u32>,
    },
}

impl ActionSpec {
    /// The kernel's name of the kind.
    pub fn kind(&self) -> &'static str {
        match self {
            ActionSpec::Gact => "gact",
            ActionSpec::Mirred { .. } => "mirred",
            ActionSpec::Vlan(_) => "vlan",
            ActionSpec::Pedit(_) => "pedit",
            ActionSpec::Csum(_) => "csum",
            ActionSpec::TunnelUnset | ActionSpec::TunnelSet(_) => "tunnel_key",
            ActionSpec::Ct(_) => "ct",
            ActionSpec::Police(_) => "police",
            ActionSpec::Skbedit(_) => "skbedit",
            ActionSpec::MplsPop { .. }
            | ActionSpec::MplsPush { .. }
            | ActionSpec::MplsModify { .. }
            | ActionSpec::MplsDecTtl => "mpls",
            ActionSpec::Sample { .. } => "sample",
        }
    }
}

/// A cookie: up to 16 bytes that the kernel keeps with an action for whoever wrote them (TCA_ACT_COOKIE).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cookie {
    bytes: [u8; 16],
    len: u8,
}

impl Cookie {
    /// `b` as a cookie; `None` when it is empty or too long.
    pub fn new(b: &[u8]) -> Option<Cookie> {
        let mut bytes = [0; 16];
        bytes.get_mut(..b.len())?.copy_from_slice(b);
        (!b.is_empty()).then_some(Cookie { bytes, len: b.len() as u8 })
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Which statistics of hardware an action is to have (TCA_ACT_HW_STATS bits).
pub mod hw_stats {
    /// Counted at once.
    pub const IMMEDIATE: u8 = 1;
    /// Counted now and then.
    pub const DELAYED: u8 = 2;
}

/// Bits of an action's flags (TCA_ACT_FLAGS_*).
pub mod act_flags {
    /// Not for hardware.
    pub const SKIP_HW: u32 = 2;
    /// For hardware only.
    pub const SKIP_SW: u32 = 4;
    /// What whoever writes an action may set.
    pub const ALL: u32 = 7;
}

/// One action.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TcAction {
    /// What it does.
    pub spec: ActionSpec,
    /// What happens next.
    pub verdict: Verdict,
    /// Its number among actions of its kind; 0 lets the kernel choose. A number that exists binds to that action, which
    /// is then shared.
    pub index: u32,
    /// For whoever wrote it.
    pub cookie: Option<Cookie>,
    /// Which hardware statistics it is to have; `None` lets the driver choose. See [`hw_stats`].
    pub hw_stats: Option<u8>,
    /// [`act_flags`]. A shared action must agree with the filters that use it.
    pub flags: u32,
}

impl TcAction {
    /// `spec`, then the next action.
    pub fn pipe(spec: ActionSpec) -> Self {
        TcAction { spec, verdict: Verdict::Pipe, index: 0, cookie: None, hw_stats: None, flags: 0 }
    }

    /// Only a verdict.
    pub fn verdict(verdict: Verdict) -> Self {
        TcAction { verdict, ..Self::pipe(ActionSpec::Gact) }
    }

    /// Sends the packet itself, or a copy.
    pub fn mirred(mode: MirredMode, ifindex: u32) -> Self {
        let verdict = if mode.takes_packet() { Verdict::Stolen } else { Verdict::Pipe };
        TcAction { verdict, ..Self::pipe(ActionSpec::Mirred { mode, ifindex }) }
    }

    /// The same with a cookie.
    pub fn with_cookie(self, cookie: Cookie) -> Self {
        TcAction { cookie: Some(cookie), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_have_the_kernels_numbers() {
        assert_eq!(Verdict::Goto(5).raw(), 0x2000_0005);
        for n in (-1..=8).chain([0x1000_0002, 0x2000_0000, 0x2fff_ffff]) {
            assert_eq!(Verdict::from_raw(n).map(Verdict::raw), Ok(n));
        }
        assert!(Verdict::from_raw(9).is_err() && Verdict::from_raw(-2).is_err());
        assert!(Verdict::from_raw(0x3000_0001).is_err());
    }

    #[test]
    fn cookies_hold_one_to_sixteen_bytes() {
        assert!(Cookie::new(&[]).is_none() && Cookie::new(&[0; 17]).is_none());
        assert_eq!(Cookie::new(&[1, 2]).map(|c| c.bytes().to_vec()), Some(vec![1, 2]));
    }
}
