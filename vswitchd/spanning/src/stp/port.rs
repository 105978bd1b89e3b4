//! What a tree knows of one of its ports (IEEE 802.1D-1998 8.5.5), and timers.

use crate::vector::Vector;

/// What a port does with packets (8.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It has no part in the tree: its link is down.
    Disabled,
    /// It waits to see who else is there.
    Listening,
    /// It learns where stations are, and forwards nothing yet.
    Learning,
    /// It forwards.
    Forwarding,
    /// Another way leads there.
    Blocking,
}

impl State {
    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            State::Disabled => "disabled",
            State::Listening => "listening",
            State::Learning => "learning",
            State::Forwarding => "forwarding",
            State::Blocking => "blocking",
        }
    }

    /// Whether packets may come in and go out.
    pub fn forwards(self) -> bool {
        self == State::Forwarding
    }

    /// Whether addresses of what comes in are learned.
    pub fn learns(self) -> bool {
        matches!(self, State::Learning | State::Forwarding)
    }

    /// Whether the tree's messages go out of it.
    pub fn sends_bpdus(self) -> bool {
        !matches!(self, State::Disabled | State::Blocking)
    }
}

/// What a port is for the bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The way to the root.
    Root,
    /// The way to the root for those behind it.
    Designated,
    /// Another way to the root.
    Alternate,
    /// None.
    Disabled,
}

impl Role {
    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Root => "root",
            Role::Designated => "designated",
            Role::Alternate => "alternate",
            Role::Disabled => "disabled",
        }
    }
}

/// How a port is set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortSettings {
    /// Of two ways that cost the same, the one by the port with the lesser priority is taken.
    pub priority: u8,
    /// What the way out of it costs, at least 1.
    pub path_cost: u16,
}

impl PortSettings {
    /// Priority unless configured otherwise.
    pub const USUAL_PRIORITY: u8 = 128;

    /// What a way costs over a link of that speed, in megabits per second (8.10.2, table 8-5 as of 1998). 0 is a speed that nobody
    /// knows, taken for the fastest.
    pub fn cost_of_speed(mbps: u32) -> u16 {
        match mbps {
            0 | 10_000.. => 2,
            1000.. => 4,
            100.. => 19,
            16.. => 62,
            10.. => 100,
            4.. => 250,
            _ => 19,
        }
    }
}

/// Counts milliseconds up from where it was started, while it runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Timer(Option<u32>);

impl Timer {
    pub(super) fn start(&mut self, at_ms: u32) {
        self.0 = Some(at_ms);
    }

    pub(super) fn stop(&mut self) {
        self.0 = None;
    }

    pub(super) fn runs(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn value_ms(&self) -> u32 {
        self.0.unwrap_or(0)
    }

    /// Moves on. Whether it has come to its end, at which it stops.
    pub(super) fn run(&mut self, elapsed_ms: u32, end_ms: u32) -> bool {
        let Some(v) = &mut self.0 else { return false };
        *v = v.saturating_add(elapsed_ms);
        if *v < end_ms {
            return false;
        }
        self.0 = None;
        true
    }
}

/// A port.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) settings: PortSettings,
    /// Priority and number.
    pub(super) id: u16,
    pub(super) state: State,
    /// What was said last of the network behind it.
    pub(super) designated: Vector,
    /// To be said with the next message.
    pub(super) acknowledge: bool,
    /// A message is to be sent once the hold timer has run out.
    pub(super) pending: bool,
    pub(super) message_age: Timer,
    pub(super) forward_delay: Timer,
    pub(super) hold: Timer,
    /// When it came into its state, in milliseconds of the tree's time.
    pub(super) since_ms: u64,
    pub(super) counts: Counts,
}

/// What a port has sent and received.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Messages sent.
    pub sent: u64,
    /// Messages received.
    pub received: u64,
    /// Frames received that are no messages.
    pub errors: u64,
}
