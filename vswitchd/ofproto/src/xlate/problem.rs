//! What can go wrong in a translation.

/// Why a translation did not do what the rules ask. The packet is dropped then.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Problem {
    /// Resubmits nest deeper than [`super::MAX_DEPTH`] or [`super::MAX_NESTING`].
    TooDeep,
    /// More than [`super::MAX_LOOKUPS`] table lookups.
    TooManyLookups,
    /// More than [`super::MAX_ACTIONS`] datapath actions.
    TooManyActions,
    /// The rules look below a header that was removed and that the key does not cover.
    NeedsReparse,
    /// The ingress port belongs to no bridge.
    UnknownPort,
    /// The packet came back from the datapath with an id that nobody knows any more.
    NoRecircContext,
    /// More than [`crate::recirc::MAX_RECIRCS`] translations wait for packets to come back.
    TooManyRecircs,
    /// More than [`super::MAX_STACK`] values on the stack.
    StackTooDeep,
    /// A label would be pushed onto more than Open vSwitch knows of.
    MplsPush,
    /// A label would be popped off more than Open vSwitch knows of.
    MplsPop,
    /// As [`Problem::MplsPop`], by `decap`.
    MplsDecap,
    /// A header would be pushed onto or taken off a packet that begins with something else.
    PacketType,
    /// Congestion was experienced outside a tunnel that the packet inside cannot be told of (RFC 6040 4.2).
    Congestion,
}

impl Problem {
    /// All of them, in order of their numbers.
    pub const ALL: [Problem; 13] = [
        Problem::TooDeep,
        Problem::TooManyLookups,
        Problem::TooManyActions,
        Problem::NeedsReparse,
        Problem::UnknownPort,
        Problem::NoRecircContext,
        Problem::TooManyRecircs,
        Problem::StackTooDeep,
        Problem::MplsPush,
        Problem::MplsPop,
        Problem::MplsDecap,
        Problem::PacketType,
        Problem::Congestion,
    ];

    /// What a trace says of it: Open vSwitch's words where it knows the problem.
    pub fn text(self) -> &'static str {
        match self {
            Problem::TooDeep => "over max translation depth 64",
            Problem::TooManyLookups => "over 4096 resubmit actions",
            Problem::TooManyActions => "over 4096 datapath actions",
            Problem::NeedsReparse => "headers below the one that was removed are not known",
            Problem::UnknownPort => "the ingress port belongs to no bridge",
            Problem::NoRecircContext => "no recirculation context",
            Problem::TooManyRecircs => "Failed to allocate recirculation id",
            Problem::StackTooDeep => "resubmits yielded over 64 kB of stack",
            Problem::PacketType => "Unsupported packet type",
            Problem::Congestion => "dropping tunnel packet marked ECN CE but is not ECN capable",
            Problem::MplsDecap => {
                "dropping packet on which an MPLS decap can't be performed as it has more MPLS LSEs than the 3 supported."
            }
            Problem::MplsPush => {
                "dropping packet on which an MPLS push action can't be performed as it would have more MPLS LSEs than the 3 supported."
            }
            Problem::MplsPop => {
                "dropping packet on which an MPLS pop action can't be performed as it has more MPLS LSEs than the 3 supported."
            }
        }
    }

    /// What ends a trace, in Open vSwitch's words where it knows the problem.
    pub fn cause(self) -> &'static str {
        match self {
            Problem::TooDeep => "Recursion too deep",
            Problem::TooManyLookups => "Too many resubmits",
            Problem::StackTooDeep => "Stack too deep",
            Problem::MplsPush | Problem::MplsPop | Problem::MplsDecap => "Too many MPLS labels",
            other => other.text(),
        }
    }

    /// Whether a translation failed by it: that of a packet which is dropped because of what is around it did not.
    pub fn is_failure(self) -> bool {
        self != Problem::Congestion
    }

    /// Whether it is for the administrator to hear of: the rules are at fault.
    pub fn is_the_rules(self) -> bool {
        use Problem::*;
        matches!(self, TooDeep | TooManyLookups | StackTooDeep | MplsPush | MplsPop | MplsDecap)
    }

    /// The coverage counter of packets dropped for it, Open vSwitch's where it has one.
    pub fn drop_counter(self) -> &'static str {
        match self {
            Problem::TooDeep => "drop_action_recursion_too_deep",
            Problem::TooManyLookups => "drop_action_too_many_resubmit",
            Problem::StackTooDeep => "drop_action_stack_too_deep",
            Problem::MplsPush | Problem::MplsPop | Problem::MplsDecap => "drop_action_too_many_mpls_labels",
            Problem::NoRecircContext => "drop_action_no_recirculation_context",
            Problem::TooManyActions | Problem::TooManyRecircs | Problem::Congestion => {
                "drop_action_congestion"
            }
            Problem::NeedsReparse => "drop_action_needs_reparse",
            Problem::UnknownPort => "drop_action_unknown_port",
            Problem::PacketType => "drop_action_unsupported_packet_type",
        }
    }

    /// A name for counters.
    pub fn name(self) -> &'static str {
        match self {
            Problem::TooDeep => "xlate_too_deep",
            Problem::TooManyLookups => "xlate_too_many_lookups",
            Problem::TooManyActions => "xlate_too_many_actions",
            Problem::NeedsReparse => "xlate_needs_reparse",
            Problem::UnknownPort => "xlate_unknown_port",
            Problem::NoRecircContext => "xlate_no_recirc_context",
            Problem::TooManyRecircs => "xlate_too_many_recircs",
            Problem::StackTooDeep => "xlate_stack_too_deep",
            Problem::MplsPush => "xlate_mpls_push",
            Problem::MplsPop => "xlate_mpls_pop",
            Problem::MplsDecap => "xlate_mpls_decap",
            Problem::PacketType => "xlate_packet_type",
            Problem::Congestion => "xlate_congestion",
        }
    }
}
