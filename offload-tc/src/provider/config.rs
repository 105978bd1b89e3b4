//! How a provider is to behave.

use std::time::Duration;

use crate::action::act_flags;
use crate::filter::flags;
use crate::lower_match::Can;
use crate::misses::Misses;

/// Where filters may be (`other_config:tc-policy`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TcPolicy {
    /// In hardware when it takes them, and in the kernel.
    #[default]
    None,
    /// In hardware only; what it does not take is refused.
    SkipSw,
    /// In the kernel only.
    SkipHw,
}

impl TcPolicy {
    /// The policy of that name, as Open vSwitch has it.
    pub fn by_name(name: &str) -> Option<TcPolicy> {
        match name {
            "none" => Some(TcPolicy::None),
            "skip_sw" => Some(TcPolicy::SkipSw),
            "skip_hw" => Some(TcPolicy::SkipHw),
            _ => None,
        }
    }

    /// Flags of an action that filters share.
    pub fn action_flags(self) -> u32 {
        match self {
            TcPolicy::None => 0,
            TcPolicy::SkipSw => act_flags::SKIP_SW,
            TcPolicy::SkipHw => act_flags::SKIP_HW,
        }
    }

    /// Flags of a filter. A driver's words are wanted where its refusal leaves the filter in the kernel.
    pub fn flags(self) -> u32 {
        match self {
            TcPolicy::None => flags::VERBOSE,
            TcPolicy::SkipSw => flags::SKIP_SW,
            TcPolicy::SkipHw => flags::SKIP_HW,
        }
    }
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct TcConfig {
    /// Name as shown to people.
    pub name: String,
    /// Tells this switch's filters from another's; the same after a restart.
    pub owner: u32,
    /// Where filters may be.
    pub policy: TcPolicy,
    /// How long an answer is waited for.
    pub timeout: Duration,
    /// How long after a failure the kernel is asked again.
    pub retry: Duration,
    /// The first of the priorities that filters take: two for each protocol.
    pub first_prio: u16,
    /// Filters at most.
    pub entries: usize,
    /// Operations that may be outstanding.
    pub queue_depth: usize,
    /// Whether the kernel tells each filter back, to be compared with what was meant.
    pub read_back: bool,
    /// Where frames go that no filter catches. Without it, or with a policy that leaves nothing to the kernel, records that go
    /// on in another chain stay in software: what such a chain does not catch would lose its place.
    pub misses: Option<Misses>,
    /// Whether what a chain does not catch goes on in the kernel's own datapath with the chain's number as its recirculation id, so
    /// that chains need nobody to catch the rest.
    pub recirc_sharing: bool,
    /// Whether every packet of the ports' connections meets the kernel's connection tracking and no other, so that `ct` may be
    /// done by filters.
    pub conntrack: bool,
}

impl TcConfig {
    /// What suits most, for the switch named `name`.
    pub fn new(name: &str) -> Self {
        // FNV-1a, so that the same name is the same owner after a restart.
        let owner = name.bytes().fold(0x811c_9dc5u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
        TcConfig {
            name: name.to_owned(),
            owner,
            policy: TcPolicy::None,
            timeout: Duration::from_secs(2),
            retry: Duration::from_secs(1),
            first_prio: 0x2000,
            entries: 200_000,
            queue_depth: 256,
            read_back: true,
            misses: None,
            recirc_sharing: false,
            conntrack: false,
        }
    }

    /// What there is beside plain filters.
    pub(super) fn can(&self) -> Can {
        let chains = (self.misses.is_some() || self.recirc_sharing) && self.policy != TcPolicy::SkipSw;
        Can { chains, conntrack: chains && self.conntrack }
    }
}
