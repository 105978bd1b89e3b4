//! The rapid spanning tree algorithm and protocol of IEEE 802.1D-2004 clause 17, as one bridge has its part in it.
//!
//! Used as [`crate::stp`] is, and understood by bridges that know only that: a port that hears them speaks as they do.
//!
//! ```text
//!  receive ─► receive.rs: migration, port information ─► roles.rs: role selection ─► transitions.rs: roles, states
//!                                                              change.rs: topology changes ◄──┘
//!  run(elapsed) ─► timers ─► all of these, until nothing changes ─► transmit ─► take_frames()
//! ```
//!
//! State machines, variables and procedures are those of the standard, by section. Where the standard has a state that is left at
//! once, there is a transition. Timers count milliseconds down, so that a bridge which is looked at seldom does what it would
//! have done.

mod change;
mod port;
mod receive;
mod roles;
#[cfg(test)]
mod tests;
mod text;
mod transitions;

use std::collections::BTreeMap;

use crate::bpdu::{Bpdu, BridgeId, Config, Rapid};
use crate::stp::{self, Counts, StpSettings};
use crate::vector::Vector;
use port::{Change, Flags, InfoIs, Message, Migration, Port, Timers, Times};

pub use port::{PortSettings, Role};

/// By how much a message is taken to be older when it is passed on.
const MESSAGE_AGE_INCREMENT_MS: u32 = 1000;
/// `Migrate Time` (table 17-1).
const MIGRATE_MS: u32 = 3000;
/// `Transmit Hold Count`: messages of a port at once; one more each second.
const TX_HOLD: u32 = 6;
/// Turns of all machines after one event at most. More than any event takes; a bound all the same.
const MOST_TURNS: usize = 1000;

/// What a port does with packets, in the words of the standard (table 17-1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It has no part in the tree.
    Disabled,
    /// Nothing.
    Discarding,
    /// It learns where stations are.
    Learning,
    /// It forwards.
    Forwarding,
}

impl State {
    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            State::Disabled => "Disabled",
            State::Discarding => "Discarding",
            State::Learning => "Learning",
            State::Forwarding => "Forwarding",
        }
    }
}

/// In the words of 1998. One that discards takes and sends messages, as one that listens does.
impl From<State> for stp::State {
    fn from(s: State) -> stp::State {
        match s {
            State::Disabled => stp::State::Disabled,
            State::Discarding => stp::State::Listening,
            State::Learning => stp::State::Learning,
            State::Forwarding => stp::State::Forwarding,
        }
    }
}

/// In the words of 2004, which do not tell why a port does nothing.
impl From<stp::State> for State {
    fn from(s: stp::State) -> State {
        match s {
            stp::State::Disabled => State::Disabled,
            stp::State::Listening | stp::State::Blocking => State::Discarding,
            stp::State::Learning => State::Learning,
            stp::State::Forwarding => State::Forwarding,
        }
    }
}

/// A bridge's part in a tree. See the module's text.
#[derive(Clone, Debug)]
pub struct Rstp {
    name: String,
    own: StpSettings,
    root: BridgeId,
    root_path_cost: u32,
    root_port: Option<u8>,
    root_times: Times,
    ports: BTreeMap<u8, Port>,
    frames: Vec<(u8, Bpdu)>,
    flush: bool,
    now_ms: u64,
}

impl Rstp {
    /// A bridge without ports, which is the root as far as it knows. `name` is for people.
    pub fn new(name: &str, settings: StpSettings) -> Rstp {
        let own = settings.allowed();
        let mut r = Rstp {
            name: name.to_owned(),
            own,
            root: own.id,
            root_path_cost: 0,
            root_port: None,
            root_times: Times { message_age_ms: 0, max_age_ms: 0, forward_delay_ms: 0, hello_ms: 0 },
            ports: BTreeMap::new(),
            frames: Vec::new(),
            flush: false,
            now_ms: 0,
        };
        r.root_times = r.own_times();
        r
    }

    fn own_times(&self) -> Times {
        Times {
            message_age_ms: 0,
            max_age_ms: self.own.max_age_ms,
            forward_delay_ms: self.own.forward_delay_ms,
            hello_ms: self.own.hello_ms,
        }
    }

    /// Sets it up otherwise (17.13): roles are selected anew.
    pub fn configure(&mut self, settings: StpSettings) {
        let settings = settings.allowed();
        if settings == self.own {
            return;
        }
        self.own = settings;
        self.ports.values_mut().for_each(|p| (p.reselect, p.selected) = (true, false));
        self.settle();
    }

    /// Adds a port, whose link is down, or changes one. Numbers are 1 to 255; 0 is ignored.
    pub fn set_port(&mut self, number: u8, settings: PortSettings) {
        if number == 0 {
            return;
        }
        let settings = PortSettings { path_cost: settings.path_cost.max(1), ..settings };
        let id = u16::from(settings.priority & 0xf0) << 8 | u16::from(number);
        if let Some(p) = self.ports.get_mut(&number) {
            if p.settings == settings {
                return;
            }
            p.mcheck |= settings.mcheck && !p.settings.mcheck;
            (p.settings, p.id) = (settings, id);
            (p.reselect, p.selected) = (true, false);
            return self.settle();
        }
        let own = Vector { root: self.own.id, cost: 0, bridge: self.own.id, port: id };
        let p = Port {
            settings,
            id,
            enabled: false,
            info_is: InfoIs::Disabled,
            role: Role::Disabled,
            selected_role: Role::Disabled,
            port_priority: own,
            port_times: self.own_times(),
            designated_priority: own,
            designated_times: self.own_times(),
            message: None,
            agree: false,
            agreed: false,
            disputed: false,
            flush: false,
            forward: false,
            forwarding: false,
            learn: false,
            learning: false,
            mcheck: false,
            new_info: true,
            oper_edge: settings.admin_edge,
            proposed: false,
            proposing: false,
            rcvd_rstp: false,
            rcvd_stp: false,
            rcvd_tc: false,
            rcvd_tc_ack: false,
            rcvd_tcn: false,
            re_root: true,
            reselect: true,
            selected: false,
            send_rstp: true,
            sync: true,
            synced: false,
            tc_ack: false,
            tc_prop: false,
            updt_info: false,
            tx_count: 0,
            migration: Migration::CheckingRstp,
            change: Change::Inactive,
            t: Timers {
                edge_delay: MIGRATE_MS,
                migrate: MIGRATE_MS,
                forward: self.own.max_age_ms,
                hello: self.own.hello_ms,
                ..Timers::default()
            },
            since_ms: self.now_ms,
            up_since_ms: self.now_ms,
            counts: Counts::default(),
        };
        self.ports.insert(number, p);
        self.settle();
    }

    /// Takes a port away.
    pub fn remove_port(&mut self, number: u8) {
        self.enable(number, false);
        self.ports.remove(&number);
        self.ports.values_mut().for_each(|p| (p.reselect, p.selected) = (true, false));
        self.settle();
    }

    /// Whether the link of a port is up.
    pub fn enable(&mut self, number: u8, on: bool) {
        let (now, admin) = (self.now_ms, |p: &Port| p.settings.admin_edge);
        let Some(p) = self.ports.get_mut(&number).filter(|p| p.enabled != on) else { return };
        p.enabled = on;
        (p.since_ms, p.up_since_ms) = (now, now);
        p.t.edge_delay = MIGRATE_MS;
        p.message = None;
        if !on {
            p.oper_edge = admin(p);
        }
        self.settle();
    }

    /// Time has passed: does what is due.
    pub fn run(&mut self, elapsed_ms: u32) {
        // A long time is as many short ones: messages are due again and again.
        let mut left = elapsed_ms;
        for _ in 0..60 {
            let step = left.min(1000);
            self.step(step);
            left -= step;
            if left == 0 {
                return;
            }
        }
        self.step(left);
    }

    fn step(&mut self, ms: u32) {
        self.now_ms = self.now_ms.saturating_add(ms.into());
        for p in self.ports.values_mut() {
            p.t.run(ms);
            p.t.hold += ms;
            p.tx_count = p.tx_count.saturating_sub(p.t.hold / 1000);
            p.t.hold %= 1000;
        }
        self.settle();
    }

    /// A message has come in on a port (17.23).
    pub fn receive(&mut self, number: u8, b: &Bpdu) {
        let Some(p) = self.ports.get_mut(&number) else { return };
        p.counts.received += 1;
        if !p.enabled {
            return;
        }
        p.oper_edge = false;
        p.t.edge_delay = MIGRATE_MS;
        // 17.21.22.
        match b {
            Bpdu::Rapid(_) => p.rcvd_rstp = true,
            Bpdu::Config(_) | Bpdu::TopologyChange => p.rcvd_stp = true,
        }
        let message = |c: &Config, rapid| Message {
            vector: Vector::of(c),
            times: Times::of(c),
            rapid,
            topology_change: c.topology_change,
            acknowledge: c.acknowledge,
        };
        match b {
            Bpdu::TopologyChange => p.rcvd_tcn = true,
            Bpdu::Config(c) => p.message = Some(message(c, None)),
            Bpdu::Rapid(r) => {
                let flags = Flags {
                    proposal: r.proposal,
                    agreement: r.agreement,
                    role: r.role,
                    learning: r.learning,
                };
                p.message = Some(message(&r.config, Some(flags)));
            }
        }
        self.settle();
    }

    /// A frame has come in on a port that is no message.
    pub fn received_wrong(&mut self, number: u8) {
        if let Some(p) = self.ports.get_mut(&number) {
            p.counts.errors += 1;
        }
    }

    /// Says on every port that the topology has changed.
    pub fn topology_change_detection(&mut self) {
        let hello_ms = self.own.hello_ms;
        for p in self.ports.values_mut().filter(|p| p.is_root_or_designated() && p.forwarding) {
            (p.t.topology_change, p.new_info) = (hello_ms + 1000, true);
        }
        self.flush = true;
        self.settle();
    }

    /// Takes the messages that are to be sent, and the ports that they go out of.
    pub fn take_frames(&mut self) -> Vec<(u8, Bpdu)> {
        std::mem::take(&mut self.frames)
    }

    /// Whether what was learned is to be forgotten; once.
    pub fn take_flush(&mut self) -> bool {
        std::mem::take(&mut self.flush)
    }

    /// What a port does with packets.
    pub fn state(&self, number: u8) -> State {
        match self.ports.get(&number) {
            None => State::Disabled,
            Some(p) if !p.enabled => State::Disabled,
            Some(p) if p.forwarding => State::Forwarding,
            Some(p) if p.learning => State::Learning,
            Some(_) => State::Discarding,
        }
    }

    /// What a port is for.
    pub fn role(&self, number: u8) -> Role {
        self.ports.get(&number).filter(|p| p.enabled).map_or(Role::Disabled, |p| p.role)
    }

    /// What a port has sent and received.
    pub fn counts(&self, number: u8) -> Counts {
        self.ports.get(&number).map(|p| p.counts).unwrap_or_default()
    }

    /// For how long the link of a port has been as it is, in milliseconds of [`Rstp::run`].
    pub fn up_ms(&self, number: u8) -> u64 {
        self.ports.get(&number).map_or(0, |p| self.now_ms - p.up_since_ms)
    }

    /// For how long a port has been in its state, in milliseconds of [`Rstp::run`].
    pub fn in_state_ms(&self, number: u8) -> u64 {
        self.ports.get(&number).map_or(0, |p| self.now_ms - p.since_ms)
    }

    /// Priority and number of a port.
    pub fn port_id(&self, number: u8) -> Option<u16> {
        self.ports.get(&number).map(|p| p.id)
    }

    /// What is designated on the segment of a port: the bridge, its port, and what the way to the root costs from there.
    pub fn designated(&self, number: u8) -> Option<(BridgeId, u16, u32)> {
        self.ports.get(&number).map(|p| {
            let v = p.port_priority;
            (v.bridge, v.port, v.cost)
        })
    }

    /// Its name among bridges, the root's, and what the way there costs.
    pub fn seen(&self) -> (BridgeId, BridgeId, u32) {
        (self.own.id, self.root, self.root_path_cost)
    }

    /// The number of the port that is the way to the root.
    pub fn root_port(&self) -> Option<u8> {
        self.root_port
    }

    /// Whether it is the root, as far as it knows.
    pub fn is_root(&self) -> bool {
        self.root == self.own.id
    }

    /// Has every machine do what it has to, until none has anything to do.
    fn settle(&mut self) {
        let numbers: Vec<u8> = self.ports.keys().copied().collect();
        for _ in 0..MOST_TURNS {
            let mut moved = false;
            for &n in &numbers {
                if let Some(p) = self.ports.get_mut(&n) {
                    moved |= p.migrate();
                    moved |= p.detect_bridges();
                }
                moved |= self.port_information(n);
            }
            moved |= self.role_selection();
            for &n in &numbers {
                moved |= self.role_transition(n);
                moved |= self.state_transition(n);
                moved |= self.topology_change(n);
                if let Some(p) = self.ports.get_mut(&n)
                    && std::mem::take(&mut p.flush)
                {
                    self.flush = true;
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
        numbers.into_iter().for_each(|n| self.transmit(n));
    }

    /// The port transmit state machine (17.26).
    fn transmit(&mut self, n: u8) {
        let hello_ms = self.own.hello_ms;
        let Some(p) = self.ports.get_mut(&n).filter(|p| p.enabled && p.is_settled()) else { return };
        if p.t.hello == 0 {
            p.new_info |= p.role == Role::Designated || p.role == Role::Root && p.t.topology_change > 0;
            p.t.hello = hello_ms;
        }
        if !p.new_info || p.tx_count >= TX_HOLD || p.role == Role::Disabled {
            return;
        }
        let times = p.designated_times;
        let v = p.designated_priority;
        let config = Config {
            topology_change: p.t.topology_change > 0,
            acknowledge: p.tc_ack,
            root: v.root,
            root_path_cost: v.cost,
            bridge: v.bridge,
            port: p.id,
            message_age_ms: times.message_age_ms,
            max_age_ms: times.max_age_ms,
            hello_ms: times.hello_ms,
            forward_delay_ms: times.forward_delay_ms,
        };
        let m = match p.role {
            _ if p.send_rstp => Bpdu::Rapid(Rapid {
                config: Config { acknowledge: false, ..config },
                proposal: p.role == Role::Designated && p.proposing,
                agreement: p.agree,
                role: p.role.on_the_wire(),
                learning: p.learning,
                forwarding: p.forwarding,
            }),
            Role::Root => Bpdu::TopologyChange,
            Role::Designated => Bpdu::Config(config),
            _ => {
                p.new_info = false;
                return;
            }
        };
        p.new_info = false;
        p.tc_ack = false;
        p.tx_count += 1;
        p.counts.sent += 1;
        if config.message_age_ms < config.max_age_ms {
            self.frames.push((n, m));
        }
    }
}
