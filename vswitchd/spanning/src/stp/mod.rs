//! The spanning tree algorithm and protocol of IEEE 802.1D-1998 clause 8, as one bridge has its part in it.
//!
//! ```text
//!   run(elapsed) ─┐                                       ┌─► take_frames(): what to send, and out of which ports
//!   receive(port) ├─► what is known of each port ─► roles ┤
//!   enable(port) ─┘     (the best message so far)         ├─► state(port): whether it learns and forwards
//!                                                         └─► take_flush(): what was learned is to be forgotten
//! ```
//!
//! Procedures are named as in 8.6 and 8.7, and every one of them is there. Where the standard has learned addresses age faster while the
//! topology changes (8.5.3.14), whoever owns the tree is told to forget them at once.

mod port;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;

use crate::bpdu::{Bpdu, BridgeId, Config};
use crate::vector::Vector;
use port::{Port, Timer};

pub use port::{Counts, PortSettings, Role, State};

/// By how much a message is taken to be older when it is passed on (8.10.1, table 8-2).
const MESSAGE_AGE_INCREMENT_MS: u32 = 1000;
/// Least time between two messages of a port (table 8-3).
const HOLD_MS: u32 = 1000;
/// Most ports of a bridge: their numbers are 1 to this.
pub const MAX_PORTS: u8 = 255;

/// How a bridge is set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StpSettings {
    /// Its name among bridges.
    pub id: BridgeId,
    /// Between messages, if it is the root.
    pub hello_ms: u32,
    /// How old a message may become, if it is the root.
    pub max_age_ms: u32,
    /// How long ports listen, and learn, if it is the root.
    pub forward_delay_ms: u32,
}

impl StpSettings {
    /// Priority of a bridge unless configured otherwise.
    pub const USUAL_PRIORITY: u16 = 0x8000;

    /// As the standard recommends (table 8-3).
    pub fn new(id: BridgeId) -> StpSettings {
        StpSettings { id, hello_ms: 2000, max_age_ms: 20_000, forward_delay_ms: 15_000 }
    }

    /// Within what the standard allows (8.10.2): each in its range, and such that a message reaches everybody in time.
    pub(crate) fn allowed(mut self) -> StpSettings {
        self.hello_ms = self.hello_ms.clamp(1000, 10_000);
        self.max_age_ms = self.max_age_ms.clamp(6000, 40_000).max(2 * (self.hello_ms + 1000));
        self.forward_delay_ms = self.forward_delay_ms.clamp(4000, 30_000).max(self.max_age_ms / 2 + 1000);
        self
    }

    fn times(&self) -> Times {
        Times {
            hello_ms: self.hello_ms,
            max_age_ms: self.max_age_ms,
            forward_delay_ms: self.forward_delay_ms,
        }
    }
}

/// Times of the root, or its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Times {
    hello_ms: u32,
    max_age_ms: u32,
    forward_delay_ms: u32,
}

/// A bridge's part in a tree. See the module's text.
#[derive(Clone, Debug)]
pub struct Stp {
    name: String,
    own: StpSettings,
    times: Times,
    root: BridgeId,
    root_path_cost: u32,
    root_port: Option<u8>,
    change_detected: bool,
    change: bool,
    hello: Timer,
    tcn: Timer,
    change_timer: Timer,
    ports: BTreeMap<u8, Port>,
    frames: Vec<(u8, Bpdu)>,
    flush: bool,
    now_ms: u64,
}

impl Stp {
    /// A bridge without ports, which is the root as far as it knows. `name` is for the log.
    pub fn new(name: &str, settings: StpSettings) -> Stp {
        let own = settings.allowed();
        let mut s = Stp {
            name: name.to_owned(),
            own,
            times: own.times(),
            root: own.id,
            root_path_cost: 0,
            root_port: None,
            change_detected: false,
            change: false,
            hello: Timer::default(),
            tcn: Timer::default(),
            change_timer: Timer::default(),
            ports: BTreeMap::new(),
            frames: Vec::new(),
            flush: false,
            now_ms: 0,
        };
        s.hello.start(0);
        s
    }

    /// Sets it up otherwise (8.8.4).
    pub fn configure(&mut self, settings: StpSettings) {
        let settings = settings.allowed();
        if settings == self.own {
            return;
        }
        let was_root = self.is_root();
        let old = std::mem::replace(&mut self.own, settings);
        let designated: Vec<u8> = self.numbers().filter(|n| self.is_designated_of(*n, old.id)).collect();
        for n in designated {
            if let Some(p) = self.ports.get_mut(&n) {
                p.designated.bridge = settings.id;
            }
        }
        if was_root {
            self.root = settings.id;
            self.times = self.own.times();
            // What was said of the old name is not true of any bridge.
            for p in self.ports.values_mut().filter(|p| p.designated.root == old.id) {
                p.designated.root = settings.id;
            }
        }
        self.configuration_update();
        self.port_state_selection();
        self.after_update(was_root);
    }

    /// Adds a port, without a part in the tree yet, or changes one (8.8.5, 8.8.6). Numbers are 1 to 255; 0 is ignored.
    pub fn set_port(&mut self, number: u8, settings: PortSettings) {
        if number == 0 {
            return;
        }
        let settings = PortSettings { path_cost: settings.path_cost.max(1), ..settings };
        let id = u16::from(settings.priority) << 8 | u16::from(number);
        let own = Vector { root: self.root, cost: self.root_path_cost, bridge: self.own.id, port: id };
        let now_ms = self.now_ms;
        let Some(p) = self.ports.get_mut(&number) else {
            let p = Port {
                settings,
                id,
                state: State::Disabled,
                designated: own,
                acknowledge: false,
                pending: false,
                message_age: Timer::default(),
                forward_delay: Timer::default(),
                hold: Timer::default(),
                since_ms: now_ms,
                counts: Counts::default(),
            };
            self.ports.insert(number, p);
            return;
        };
        if p.settings == settings {
            return;
        }
        let designated = p.designated.bridge == self.own.id && p.designated.port == p.id;
        let better = designated && id < p.id;
        (p.settings, p.id) = (settings, id);
        if designated {
            p.designated.port = id;
        }
        if better {
            self.become_designated(number);
        }
        self.configuration_update();
        self.port_state_selection();
    }

    /// Takes a port away.
    pub fn remove_port(&mut self, number: u8) {
        self.enable(number, false);
        self.ports.remove(&number);
    }

    /// Gives a port its part in the tree, or takes it: whether its link is up (8.8.2, 8.8.3).
    pub fn enable(&mut self, number: u8, on: bool) {
        let Some(p) = self.ports.get_mut(&number).filter(|p| (p.state == State::Disabled) == on) else {
            return;
        };
        p.message_age.stop();
        p.forward_delay.stop();
        p.hold.stop();
        (p.acknowledge, p.pending) = (false, false);
        if on {
            self.become_designated(number);
            self.set_state(number, State::Blocking);
            self.port_state_selection();
            return;
        }
        let was_root = self.is_root();
        self.become_designated(number);
        self.set_state(number, State::Disabled);
        self.configuration_update();
        self.port_state_selection();
        self.after_update(was_root);
    }

    /// Time has passed: does what is due.
    pub fn run(&mut self, elapsed_ms: u32) {
        self.now_ms = self.now_ms.saturating_add(elapsed_ms.into());
        let t = self.times;
        if self.hello.run(elapsed_ms, t.hello_ms) {
            self.config_bpdu_generation();
            self.hello.start(0);
        }
        if self.tcn.run(elapsed_ms, t.hello_ms) {
            self.transmit_tcn();
            self.tcn.start(0);
        }
        // Its own times: it runs at the root alone.
        if self.change_timer.run(elapsed_ms, self.own.max_age_ms + self.own.forward_delay_ms) {
            (self.change_detected, self.change) = (false, false);
        }
        let numbers: Vec<u8> = self.numbers().collect();
        for &n in &numbers {
            if self.ports.get_mut(&n).is_some_and(|p| p.message_age.run(elapsed_ms, t.max_age_ms)) {
                self.message_age_expired(n);
            }
        }
        for &n in &numbers {
            if self.ports.get_mut(&n).is_some_and(|p| p.forward_delay.run(elapsed_ms, t.forward_delay_ms)) {
                self.forward_delay_expired(n);
            }
            let Some(p) = self.ports.get_mut(&n) else { continue };
            if p.hold.run(elapsed_ms, HOLD_MS) && p.pending {
                self.transmit_config(n);
            }
        }
    }

    /// A message has come in on a port (8.7.1, 8.7.2).
    pub fn receive(&mut self, number: u8, b: &Bpdu) {
        let Some(p) = self.ports.get_mut(&number) else { return };
        if let Bpdu::Rapid(_) = b {
            // It will find out that this end does not know them, and speak as this end does (IEEE 802.1D-2004 17.24).
            p.counts.errors += 1;
            return;
        }
        p.counts.received += 1;
        if p.state == State::Disabled {
            return;
        }
        match b {
            Bpdu::Config(c) => self.received_config(number, c),
            Bpdu::Rapid(_) => {}
            Bpdu::TopologyChange => {
                if self.is_designated(number) {
                    self.topology_change_detection();
                    if let Some(p) = self.ports.get_mut(&number) {
                        p.acknowledge = true;
                    }
                    self.transmit_config(number);
                }
            }
        }
    }

    /// A frame has come in on a port that is no message.
    pub fn received_wrong(&mut self, number: u8) {
        if let Some(p) = self.ports.get_mut(&number) {
            p.counts.errors += 1;
        }
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
        self.ports.get(&number).map_or(State::Disabled, |p| p.state)
    }

    /// What a port is for.
    pub fn role(&self, number: u8) -> Role {
        match self.ports.get(&number) {
            None => Role::Disabled,
            Some(p) if p.state == State::Disabled => Role::Disabled,
            Some(_) if self.root_port == Some(number) => Role::Root,
            Some(_) if self.is_designated(number) => Role::Designated,
            Some(_) => Role::Alternate,
        }
    }

    /// Priority and number of a port.
    pub fn port_id(&self, number: u8) -> Option<u16> {
        self.ports.get(&number).map(|p| p.id)
    }

    /// For how long a port has been in its state, in milliseconds of [`Stp::run`].
    pub fn in_state_ms(&self, number: u8) -> u64 {
        self.ports.get(&number).map_or(0, |p| self.now_ms - p.since_ms)
    }

    /// What a port has sent and received.
    pub fn counts(&self, number: u8) -> Counts {
        self.ports.get(&number).map(|p| p.counts).unwrap_or_default()
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

    /// Says that the topology has changed (8.6.14).
    pub fn topology_change_detection(&mut self) {
        if self.is_root() {
            self.change = true;
            self.change_timer.start(0);
        } else if !self.change_detected {
            self.transmit_tcn();
            self.tcn.start(0);
        }
        self.change_detected = true;
        self.flush = true;
        tracing::info!(target: "stp", "{}: detected topology change.", self.name);
    }

    fn numbers(&self) -> impl Iterator<Item = u8> + use<'_> {
        self.ports.keys().copied()
    }

    fn is_designated_of(&self, number: u8, bridge: BridgeId) -> bool {
        self.ports.get(&number).is_some_and(|p| p.designated.bridge == bridge && p.designated.port == p.id)
    }

    fn is_designated(&self, number: u8) -> bool {
        self.is_designated_of(number, self.own.id)
    }

    fn set_state(&mut self, number: u8, state: State) {
        if let Some(p) = self.ports.get_mut(&number).filter(|p| p.state != state) {
            (p.state, p.since_ms) = (state, self.now_ms);
        }
    }

    fn received_config(&mut self, number: u8, c: &Config) {
        let was_root = self.is_root();
        if self.supersedes(number, c) {
            // 8.6.2: what is said of the network behind the port is this now.
            if let Some(p) = self.ports.get_mut(&number) {
                p.designated = Vector::of(c);
                p.message_age.start(c.message_age_ms);
            }
            self.configuration_update();
            self.port_state_selection();
            if !self.is_root() && was_root {
                self.hello.stop();
                if self.change_detected {
                    self.change_timer.stop();
                    self.transmit_tcn();
                    self.tcn.start(0);
                }
            }
            if self.root_port == Some(number) {
                // 8.6.3, and 8.6.15 where that is said.
                self.times = Times {
                    hello_ms: c.hello_ms.max(1),
                    max_age_ms: c.max_age_ms,
                    forward_delay_ms: c.forward_delay_ms,
                };
                self.change = c.topology_change;
                self.flush |= c.topology_change;
                self.config_bpdu_generation();
                if c.acknowledge {
                    self.change_detected = false;
                    self.tcn.stop();
                }
            }
        } else if self.is_designated(number) {
            // 8.6.5: they are to hear of what is better.
            self.transmit_config(number);
        }
    }

    /// 8.6.2.2: whether what a message says is better than, or as good as, what is known, or from the same bridge.
    fn supersedes(&self, number: u8, c: &Config) -> bool {
        let Some(p) = self.ports.get(&number) else { return false };
        let (new, old) = (Vector::of(c), p.designated);
        let (path, old_path) = ((new.root, new.cost, new.bridge), (old.root, old.cost, old.bridge));
        path < old_path || path == old_path && (new.bridge != self.own.id || new.port <= old.port)
    }

    /// 8.6.1.
    fn transmit_config(&mut self, number: u8) {
        let message_age_ms = match self.root_port.and_then(|n| self.ports.get(&n)) {
            Some(root_port) if !self.is_root() => {
                root_port.message_age.value_ms().saturating_add(MESSAGE_AGE_INCREMENT_MS)
            }
            _ => 0,
        };
        let Some(p) = self.ports.get_mut(&number).filter(|p| p.state != State::Disabled) else { return };
        if p.hold.runs() {
            p.pending = true;
            return;
        }
        if message_age_ms >= self.times.max_age_ms {
            return;
        }
        let c = Config {
            topology_change: self.change,
            acknowledge: std::mem::take(&mut p.acknowledge),
            root: self.root,
            root_path_cost: self.root_path_cost,
            bridge: self.own.id,
            port: p.id,
            message_age_ms,
            max_age_ms: self.times.max_age_ms,
            hello_ms: self.times.hello_ms,
            forward_delay_ms: self.times.forward_delay_ms,
        };
        p.pending = false;
        p.hold.start(0);
        p.counts.sent += 1;
        self.frames.push((number, Bpdu::Config(c)));
    }

    /// 8.6.4.
    fn config_bpdu_generation(&mut self) {
        let to: Vec<u8> = self.numbers().filter(|n| self.is_designated(*n)).collect();
        to.into_iter().for_each(|n| self.transmit_config(n));
    }

    /// 8.6.6.
    fn transmit_tcn(&mut self) {
        let Some((number, p)) = self.root_port.and_then(|n| Some((n, self.ports.get_mut(&n)?))) else {
            return;
        };
        p.counts.sent += 1;
        self.frames.push((number, Bpdu::TopologyChange));
    }

    /// 8.6.7: which port is the way to the root, and which ports are that for others.
    fn configuration_update(&mut self) {
        self.root_selection();
        self.designated_port_selection();
    }

    /// 8.6.8.
    fn root_selection(&mut self) {
        let way = |(n, p): (&u8, &Port)| {
            let d = p.designated;
            let cost = d.cost.saturating_add(p.settings.path_cost.into());
            ((d.root, cost, d.bridge, d.port, p.id), *n)
        };
        let leads = |(n, p): &(&u8, &Port)| {
            p.state != State::Disabled && !self.is_designated(**n) && p.designated.root < self.own.id
        };
        let best = self.ports.iter().filter(leads).map(way).min();
        match best {
            Some(((root, cost, ..), n)) => {
                (self.root, self.root_path_cost, self.root_port) = (root, cost, Some(n));
            }
            None => (self.root, self.root_path_cost, self.root_port) = (self.own.id, 0, None),
        }
    }

    /// 8.6.9.
    fn designated_port_selection(&mut self) {
        let is = |n: u8, p: &Port| {
            let d = p.designated;
            self.is_designated(n)
                || d.root != self.root
                || (self.root_path_cost, self.own.id, p.id) < (d.cost, d.bridge, d.port)
        };
        let all: Vec<u8> = self.ports.iter().filter(|(n, p)| is(**n, p)).map(|(n, _)| *n).collect();
        all.into_iter().for_each(|n| self.become_designated(n));
    }

    /// 8.6.10.
    fn become_designated(&mut self, number: u8) {
        let (root, cost, bridge) = (self.root, self.root_path_cost, self.own.id);
        if let Some(p) = self.ports.get_mut(&number) {
            p.designated = Vector { root, cost, bridge, port: p.id };
        }
    }

    /// 8.6.11.
    fn port_state_selection(&mut self) {
        let numbers: Vec<u8> = self.numbers().collect();
        for n in numbers {
            let (is_root_port, designated) = (self.root_port == Some(n), self.is_designated(n));
            let Some(p) = self.ports.get_mut(&n) else { continue };
            if !is_root_port && designated {
                p.message_age.stop();
            } else {
                (p.pending, p.acknowledge) = (false, false);
            }
            if is_root_port || designated {
                // 8.6.12.
                if p.state == State::Blocking {
                    p.forward_delay.start(0);
                    self.set_state(n, State::Listening);
                }
                continue;
            }
            // 8.6.13.
            if matches!(p.state, State::Disabled | State::Blocking) {
                continue;
            }
            p.forward_delay.stop();
            let learned = p.state.learns();
            self.set_state(n, State::Blocking);
            if learned {
                self.topology_change_detection();
            }
        }
    }

    /// 8.7.5.
    fn message_age_expired(&mut self, number: u8) {
        let was_root = self.is_root();
        self.become_designated(number);
        self.configuration_update();
        self.port_state_selection();
        self.after_update(was_root);
    }

    /// What else is to be done when it is the root now, and was not before (8.7.5, 8.8.3, 8.8.4).
    fn after_update(&mut self, was_root: bool) {
        if !self.is_root() || was_root {
            return;
        }
        self.times = self.own.times();
        self.topology_change_detection();
        self.tcn.stop();
        self.config_bpdu_generation();
        self.hello.start(0);
    }

    /// 8.7.6.
    fn forward_delay_expired(&mut self, number: u8) {
        match self.state(number) {
            State::Listening => {
                self.set_state(number, State::Learning);
                if let Some(p) = self.ports.get_mut(&number) {
                    p.forward_delay.start(0);
                }
            }
            State::Learning => {
                self.set_state(number, State::Forwarding);
                let own = self.own.id;
                if self.ports.values().any(|p| p.state != State::Disabled && p.designated.bridge == own) {
                    self.topology_change_detection();
                }
            }
            _ => {}
        }
    }
}
