//! What a rapid tree knows of one of its ports (IEEE 802.1D-2004 17.19), by the names of the standard.

use crate::bpdu::{Config, RapidRole};
use crate::stp::Counts;
use crate::vector::Vector;

impl Vector {
    /// Whether it takes the place of `known` (17.6): it is better, or from the same port.
    pub(super) fn is_superior_to(&self, known: &Vector) -> bool {
        let same_port = self.bridge.mac() == known.bridge.mac() && self.port & 0xfff == known.port & 0xfff;
        self < known || same_port && self != known
    }
}

/// Times of a root (17.13), in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Times {
    pub(super) message_age_ms: u32,
    pub(super) max_age_ms: u32,
    pub(super) forward_delay_ms: u32,
    pub(super) hello_ms: u32,
}

impl Times {
    pub(super) fn of(c: &Config) -> Times {
        Times {
            message_age_ms: c.message_age_ms,
            max_age_ms: c.max_age_ms,
            forward_delay_ms: c.forward_delay_ms,
            hello_ms: c.hello_ms.max(1000),
        }
    }
}

/// What a port is for (17.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// None: its link is down.
    Disabled,
    /// The way to the root.
    Root,
    /// The way to the root for those behind it.
    Designated,
    /// Another way to the root.
    Alternate,
    /// Another way to where a port of this bridge is designated.
    Backup,
}

impl Role {
    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Disabled => "Disabled",
            Role::Root => "Root",
            Role::Designated => "Designated",
            Role::Alternate => "Alternate",
            Role::Backup => "Backup",
        }
    }

    pub(super) fn on_the_wire(self) -> RapidRole {
        match self {
            Role::Disabled => RapidRole::Unknown,
            Role::Root => RapidRole::Root,
            Role::Designated => RapidRole::Designated,
            Role::Alternate | Role::Backup => RapidRole::Alternate,
        }
    }
}

/// Where what is known of a port comes from (17.19.10).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum InfoIs {
    Disabled,
    Aged,
    Mine,
    Received,
}

/// What a message is to what is known (17.21.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Info {
    SuperiorDesignated,
    RepeatedDesignated,
    InferiorDesignated,
    InferiorRootAlternate,
    Other,
}

/// How a port is set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortSettings {
    /// Of two ways that cost the same, the one by the port with the lesser priority is taken; a multiple of 16.
    pub priority: u8,
    /// What the way out of it costs, at least 1.
    pub path_cost: u32,
    /// Nobody but stations is there: it forwards at once, until a message comes.
    pub admin_edge: bool,
    /// It is taken for such a port when no message comes.
    pub auto_edge: bool,
    /// One bridge at most is at the other end.
    pub point_to_point: bool,
    /// Looks once whether the other end speaks rapidly by now.
    pub mcheck: bool,
}

impl PortSettings {
    /// As the standard recommends (table 17-2), for a link of unknown speed.
    pub const USUAL: PortSettings = PortSettings {
        priority: 128,
        path_cost: 2000,
        admin_edge: false,
        auto_edge: true,
        point_to_point: true,
        mcheck: false,
    };

    /// What a way costs over a link of that speed, in megabits per second (table 17-3). 0 is a speed that nobody knows, taken for
    /// 10 Gb/s.
    pub fn cost_of_speed(mbps: u32) -> u32 {
        match mbps {
            0 => 2000,
            1.. => (20_000_000 / mbps).max(1),
        }
    }
}

/// Timers, in milliseconds that are left (17.17).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Timers {
    pub(super) edge_delay: u32,
    pub(super) forward: u32,
    pub(super) hello: u32,
    pub(super) migrate: u32,
    pub(super) recent_backup: u32,
    pub(super) received_info: u32,
    pub(super) recent_root: u32,
    pub(super) topology_change: u32,
    /// Until one fewer message counts against the limit.
    pub(super) hold: u32,
}

impl Timers {
    pub(super) fn run(&mut self, ms: u32) {
        for t in [
            &mut self.edge_delay,
            &mut self.forward,
            &mut self.hello,
            &mut self.migrate,
            &mut self.recent_backup,
            &mut self.received_info,
            &mut self.recent_root,
            &mut self.topology_change,
        ] {
            *t = t.saturating_sub(ms);
        }
    }
}

/// States of the port protocol migration machine (17.24).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Migration {
    CheckingRstp,
    Sensing,
    SelectingStp,
}

/// States of the topology change machine (17.31), but for those that are left at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    Inactive,
    Learning,
    Active,
}

/// A message that has come in and has not been looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Message {
    pub(super) vector: Vector,
    pub(super) times: Times,
    /// `None` for a configuration message, which is of a designated port.
    pub(super) rapid: Option<Flags>,
    pub(super) topology_change: bool,
    pub(super) acknowledge: bool,
}

/// What only a rapid message says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Flags {
    pub(super) proposal: bool,
    pub(super) agreement: bool,
    pub(super) role: RapidRole,
    pub(super) learning: bool,
}

/// A port.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) settings: PortSettings,
    pub(super) id: u16,
    pub(super) enabled: bool,
    pub(super) info_is: InfoIs,
    pub(super) role: Role,
    pub(super) selected_role: Role,
    pub(super) port_priority: Vector,
    pub(super) port_times: Times,
    pub(super) designated_priority: Vector,
    pub(super) designated_times: Times,
    pub(super) message: Option<Message>,
    pub(super) agree: bool,
    pub(super) agreed: bool,
    pub(super) disputed: bool,
    pub(super) flush: bool,
    pub(super) forward: bool,
    pub(super) forwarding: bool,
    pub(super) learn: bool,
    pub(super) learning: bool,
    pub(super) mcheck: bool,
    pub(super) new_info: bool,
    pub(super) oper_edge: bool,
    pub(super) proposed: bool,
    pub(super) proposing: bool,
    pub(super) rcvd_rstp: bool,
    pub(super) rcvd_stp: bool,
    pub(super) rcvd_tc: bool,
    pub(super) rcvd_tc_ack: bool,
    pub(super) rcvd_tcn: bool,
    pub(super) re_root: bool,
    pub(super) reselect: bool,
    pub(super) selected: bool,
    pub(super) send_rstp: bool,
    pub(super) sync: bool,
    pub(super) synced: bool,
    pub(super) tc_ack: bool,
    pub(super) tc_prop: bool,
    pub(super) updt_info: bool,
    pub(super) tx_count: u32,
    pub(super) migration: Migration,
    pub(super) change: Change,
    pub(super) t: Timers,
    pub(super) since_ms: u64,
    pub(super) up_since_ms: u64,
    pub(super) counts: Counts,
}

impl Port {
    /// Whether it has found its role and lets it be acted on.
    pub(super) fn is_settled(&self) -> bool {
        self.selected && !self.updt_info
    }

    pub(super) fn is_root_or_designated(&self) -> bool {
        matches!(self.role, Role::Root | Role::Designated)
    }
}
