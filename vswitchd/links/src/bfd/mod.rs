//! A BFD session in asynchronous mode (RFC 5880 6), one hop away (RFC 5881), with what Open vSwitch adds to it.
//!
//! ```text
//!            neighbour Down                 neighbour Init or Up
//!   Down ────────────────────► Init ───────────────────────────► Up
//!    ▲ └──────────── neighbour Init ─────────────────────────────┘│
//!    └───────────── not heard in time, or neighbour Down ◄────────┘
//! ```
//!
//! A change of intervals takes effect by a poll (RFC 5880 6.5): what is new is announced with the Poll flag until the other end
//! answers with Final. Beside that:
//! * *decay*: while next to nothing but control packets comes in, they may come at a slower pace;
//! * *forwarding if rx*: packets of any kind are a sign of life, as long as a control packet comes now and then.
//!
//! Not there: authentication, the echo function, demand mode, sessions over several hops. A packet's discriminator does not
//! choose its session, the port that it came in on does.

pub mod message;
mod settings;
#[cfg(test)]
mod tests;

use std::fmt::Write;

use clock::Instant;

use message::{Addresses, Message};
pub use message::{Diagnostic, Flags, State};
pub use settings::{BfdMatch, BfdSettings};

use crate::millis::{ms, until};

/// Least interval at which a session that is not up sends, milliseconds (RFC 5880 6.8.3).
const SLOW_MS: u64 = 1000;
/// Least time over which other packets are counted, milliseconds.
const COUNTED_MS: u64 = 2000;
/// Least intervals in which a control packet has to come for other packets to count as signs of life.
const CONTROL_EVERY: u64 = 100;

/// What the database tells of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BfdStatus {
    /// The link carries.
    pub forwarding: bool,
    /// This end.
    pub state: State,
    /// Why.
    pub diagnostic: Diagnostic,
    /// The other end.
    pub remote_state: State,
    /// Why.
    pub remote_diagnostic: Diagnostic,
    /// How often the link began to carry or ceased to.
    pub flaps: u64,
}

/// What is known of the other end.
#[derive(Clone, Copy, Debug)]
struct Remote {
    state: State,
    diagnostic: Diagnostic,
    flags: Flags,
    discriminator: u32,
    min_rx_ms: u64,
    min_tx_ms: u64,
}

/// Before anything was heard, and after nothing is heard any more.
const UNKNOWN: Remote = Remote {
    state: State::Down,
    diagnostic: Diagnostic::NONE,
    flags: Flags(0),
    discriminator: 0,
    min_rx_ms: 1,
    min_tx_ms: 0,
};

/// A session.
#[derive(Debug)]
pub struct Bfd {
    name: String,
    settings: BfdSettings,
    discriminator: u32,
    udp_src: u16,
    /// For the jitter of what is sent.
    random: u64,
    state: State,
    diagnostic: Diagnostic,
    /// Poll or Final, in what is sent next.
    flags: Flags,
    /// Intervals that are in force, milliseconds.
    min_tx_ms: u64,
    min_rx_ms: u64,
    /// Intervals that the poll under way announces.
    polled: (u64, u64),
    remote: Remote,
    /// Of the last packet, whatever became of the session since.
    remote_multiplier: u8,
    last_tx: Instant,
    /// `None` sends at once.
    next_tx: Option<Instant>,
    /// When the other end counts as gone.
    detect: Instant,
    was_forwarding: bool,
    flaps: u64,
    /// What people want it to say, whatever it finds.
    forced: Option<bool>,
    /// Packets of the port at the last look.
    rx_packets: u64,
    /// Other packets are a sign of life until then.
    alive_until: Instant,
    /// A control packet has to have come by then.
    control_until: Instant,
    decay: Decay,
}

#[derive(Debug, Default)]
struct Decay {
    on: bool,
    /// Control packets since counting began.
    control: u64,
    /// The port's packets when counting began.
    since: u64,
    /// When it is decided again.
    due: Instant,
}

impl Bfd {
    /// A session of the port called `name`, which has received `rx_packets` so far. `discriminator` is its name among all
    /// sessions and not zero; `number` counts sessions; `seed` is for jitter.
    pub fn new(
        name: &str,
        settings: BfdSettings,
        ids: (u32, u16, u64),
        rx_packets: u64,
        now: Instant,
    ) -> Bfd {
        let (discriminator, number, seed) = ids;
        let mut b = Bfd {
            name: name.to_owned(),
            discriminator: discriminator.max(1),
            // RFC 5881 4: from the upper range, the same for all packets of a session.
            udp_src: 49_152 + number % 16_384,
            random: seed | 1,
            state: State::Down,
            diagnostic: Diagnostic::NONE,
            flags: Flags(0),
            min_tx_ms: settings.min_tx_ms,
            min_rx_ms: settings.min_rx_ms,
            polled: (0, 0),
            remote: UNKNOWN,
            remote_multiplier: 0,
            last_tx: now,
            next_tx: None,
            detect: now,
            was_forwarding: false,
            flaps: 0,
            forced: None,
            rx_packets,
            alive_until: Instant::ZERO,
            control_until: Instant::ZERO,
            decay: Decay::default(),
            settings,
        };
        b.count_anew(now);
        if b.settings.concatenated_path_down {
            b.diagnostic = Diagnostic::CONCATENATED_DOWN;
        }
        b
    }

    /// Gives it other settings.
    pub fn configure(&mut self, s: BfdSettings, now: Instant) {
        if s == self.settings {
            return;
        }
        let old = std::mem::replace(&mut self.settings, s.clone());
        let up = self.state == State::Up;
        if s.min_tx_ms != old.min_tx_ms && (!up || !self.in_poll() && s.min_tx_ms < self.min_tx_ms) {
            self.min_tx_ms = s.min_tx_ms;
        }
        if s.min_rx_ms != old.min_rx_ms && (!up || !self.in_poll() && s.min_rx_ms > self.min_rx_ms) {
            self.min_rx_ms = s.min_rx_ms;
        }
        let paces = |s: &BfdSettings| (s.min_rx_ms, s.decay_min_rx_ms);
        if paces(&s) != paces(&old) {
            self.decay.on = false;
            self.count_anew(now);
        }
        if s.concatenated_path_down != old.concatenated_path_down {
            self.enter(self.state, Diagnostic::NONE, now);
        }
        if s.forwarding_if_rx && up && (!old.forwarding_if_rx || s.multiplier != old.multiplier) {
            self.seen_alive(now);
        } else if s.forwarding_if_rx != old.forwarding_if_rx {
            self.alive_until = Instant::ZERO;
        }
        let announced = |s: &BfdSettings| (paces(s), s.min_tx_ms, s.concatenated_path_down);
        if announced(&s) != announced(&old) {
            self.poll();
        }
    }

    /// Its name among all sessions.
    pub fn discriminator(&self) -> u32 {
        self.discriminator
    }

    /// Settings.
    pub fn settings(&self) -> &BfdSettings {
        &self.settings
    }

    /// Does what is due. `rx_packets` is what the port has received by now.
    pub fn run(&mut self, now: Instant, rx_packets: u64) {
        self.see(now, rx_packets);
        let decayed = self.decay.on;
        if self.state > State::Down && now >= self.detect {
            self.enter(State::Down, Diagnostic::EXPIRED, now);
        }
        self.is_forwarding(now);
        if self.state == State::Up && self.settings.decay_min_rx_ms > 0 && now >= self.decay.due {
            // The port's packets are counted elsewhere than its control packets: some room for what is on its way.
            let other = self.rx_packets.saturating_sub(self.decay.since);
            self.decay.on = other <= 2 * self.decay.control.max(1);
            self.count_anew(now);
        }
        let s = &self.settings;
        let rx_as_wanted = self.min_rx_ms == s.min_rx_ms || self.min_rx_ms == s.decay_min_rx_ms;
        if self.min_tx_ms != s.min_tx_ms || !rx_as_wanted || self.decay.on != decayed {
            self.poll();
        }
    }

    /// Takes note of what the port has received by now: a sign of life, if they are to count.
    pub fn see(&mut self, now: Instant, rx_packets: u64) {
        let more = rx_packets > self.rx_packets;
        self.rx_packets = rx_packets;
        if more && self.settings.forwarding_if_rx {
            self.is_forwarding(now);
            self.seen_alive(now);
            self.is_forwarding(now);
        }
    }

    /// Whether a packet is to be sent now.
    pub fn due(&self, now: Instant) -> bool {
        self.flags.has(Flags::FINAL) || self.next_tx.is_none_or(|t| now >= t)
    }

    /// The packet to be sent now, from a port with that address.
    pub fn emit(&mut self, now: Instant, port: [u8; 6]) -> Vec<u8> {
        let (min_tx, min_rx) =
            if self.in_poll() { self.polled } else { (self.own_min_tx_ms(), self.min_rx_ms) };
        let us = |ms: u64| u32::try_from(ms.saturating_mul(1000)).unwrap_or(u32::MAX);
        let message = Message {
            diagnostic: self.diagnostic,
            state: self.state,
            flags: self.flags,
            multiplier: self.settings.multiplier,
            mine: self.discriminator,
            yours: self.remote.discriminator,
            min_tx_us: us(min_tx),
            min_rx_us: us(min_rx),
        };
        self.flags.0 &= !Flags::FINAL;
        self.last_tx = now;
        self.schedule();
        message.frame(&Addresses {
            eth_src: self.settings.local_src_mac.unwrap_or(port),
            eth_dst: self.settings.local_dst_mac,
            ip_src: self.settings.src_ip,
            ip_dst: self.settings.dst_ip,
            udp_src: self.udp_src,
        })
    }

    /// Takes a frame that came in (RFC 5880 6.8.6).
    pub fn receive(&mut self, frame: &[u8], now: Instant) {
        self.decay.control += 1;
        self.is_forwarding(now);
        match Message::parse(frame) {
            Ok(m) => self.hear(m, now),
            Err(why) => {
                tracing::info!(target: "bfd", "{}: BFD control message not taken ({why:?})", self.name)
            }
        }
        self.is_forwarding(now);
    }

    fn hear(&mut self, m: Message, now: Instant) {
        let mine = m.yours == self.discriminator || m.yours == 0 && m.state <= State::Down;
        if !mine {
            tracing::info!(target: "bfd", "{}: BFD control message of another session ({:#x})", self.name, m.yours);
            return;
        }
        self.remote = Remote {
            state: m.state,
            diagnostic: m.diagnostic,
            flags: m.flags,
            discriminator: m.mine,
            min_tx_ms: u64::from(m.min_tx_us / 1000).max(1),
            ..self.remote
        };
        if m.flags.has(Flags::FINAL) && self.in_poll() {
            (self.min_tx_ms, self.min_rx_ms) = self.polled;
            self.flags.0 &= !Flags::POLL;
        }
        if m.flags.has(Flags::POLL) {
            // Never both: the answer goes first.
            self.flags.0 = self.flags.0 & !Flags::POLL | Flags::FINAL;
        }
        self.remote_multiplier = m.multiplier;
        let min_rx_ms = u64::from(m.min_rx_us / 1000).max(1);
        if min_rx_ms != self.remote.min_rx_ms {
            self.remote.min_rx_ms = min_rx_ms;
            if self.next_tx.is_some() {
                self.schedule();
            }
        }
        self.detect = now + ms(self.rx_interval_ms() * u64::from(m.multiplier));
        match (self.state, m.state) {
            (State::AdminDown, _) => return,
            (State::Down, State::AdminDown | State::Up) => {}
            (State::Down, State::Down) => self.enter(State::Init, self.diagnostic, now),
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                self.enter(State::Up, self.diagnostic, now);
            }
            (State::Init, State::Down) | (State::Up, State::Init | State::Up) => {}
            (State::Init, State::AdminDown) | (State::Up, State::AdminDown | State::Down) => {
                self.enter(State::Down, Diagnostic::NEIGHBOUR_DOWN, now);
            }
        }
        if self.settings.forwarding_if_rx {
            self.control_until = now + ms(CONTROL_EVERY * self.settings.min_rx_ms);
        }
    }

    fn enter(&mut self, state: State, diagnostic: Diagnostic, now: Instant) {
        let path_down = self.settings.concatenated_path_down;
        let diagnostic = if path_down { Diagnostic::CONCATENATED_DOWN } else { diagnostic };
        if (self.state, self.diagnostic) == (state, diagnostic) {
            return;
        }
        tracing::info!(
            target: "bfd",
            "{}: BFD state change: {}->{} \"{}\"->\"{}\".",
            self.name,
            self.state.name(),
            state.name(),
            self.diagnostic.words(),
            diagnostic.words()
        );
        (self.state, self.diagnostic) = (state, diagnostic);
        if state <= State::Down {
            self.remote = UNKNOWN;
            if std::mem::take(&mut self.decay.on) {
                self.min_rx_ms = self.settings.min_rx_ms;
            }
        }
        if state == State::Up {
            self.count_anew(now);
        }
    }

    /// Begins to announce the intervals that are wanted.
    fn poll(&mut self) {
        if self.state > State::Down && !self.flags.has(Flags::POLL | Flags::FINAL) {
            let s = &self.settings;
            self.polled = (s.min_tx_ms, if self.decay.on { s.decay_min_rx_ms } else { s.min_rx_ms });
            self.flags.0 |= Flags::POLL;
            self.next_tx = None;
        }
    }

    fn in_poll(&self) -> bool {
        self.flags.has(Flags::POLL)
    }

    fn own_min_tx_ms(&self) -> u64 {
        if self.state == State::Up { self.min_tx_ms } else { self.min_tx_ms.max(SLOW_MS) }
    }

    fn tx_interval_ms(&self) -> u64 {
        self.own_min_tx_ms().max(self.remote.min_rx_ms)
    }

    fn rx_interval_ms(&self) -> u64 {
        self.min_rx_ms.max(self.remote.min_tx_ms)
    }

    /// When the next packet goes: up to a quarter early, so that sessions do not fall into step; a tenth early at least where
    /// each packet counts (RFC 5880 6.8.7).
    fn schedule(&mut self) {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let early = if self.settings.multiplier == 1 { 10 + self.random % 16 } else { self.random % 26 };
        let interval = self.tx_interval_ms();
        self.next_tx = Some(self.last_tx + ms(interval - interval * early / 100));
    }

    fn count_anew(&mut self, now: Instant) {
        let due = now + ms(self.settings.decay_min_rx_ms.max(COUNTED_MS));
        self.decay = Decay { on: self.decay.on, control: 0, since: self.rx_packets, due };
    }

    fn seen_alive(&mut self, now: Instant) {
        let interval = self.rx_interval_ms() * u64::from(self.settings.multiplier);
        self.alive_until = now + ms(interval.max(COUNTED_MS));
    }

    /// Whether the link carries. Counts it when that has changed since the last time.
    pub fn is_forwarding(&mut self, now: Instant) -> bool {
        if let Some(f) = self.forced {
            return f;
        }
        let alive = self.settings.forwarding_if_rx && self.alive_until > now && self.control_until > now;
        let is = (self.state == State::Up || alive) && !self.remote.diagnostic.is_of_the_path();
        if is != self.was_forwarding {
            self.flaps += 1;
            self.was_forwarding = is;
        }
        is
    }

    /// Has it say that the link carries or not, whatever it finds; `None` ends that.
    pub fn force(&mut self, forwarding: Option<bool>) {
        self.forced = forwarding;
    }

    /// How it is.
    pub fn status(&mut self, now: Instant) -> BfdStatus {
        BfdStatus {
            forwarding: self.is_forwarding(now),
            state: self.state,
            diagnostic: self.diagnostic,
            remote_state: self.remote.state,
            remote_diagnostic: self.remote.diagnostic,
            flaps: self.flaps,
        }
    }

    /// The text of `bfd/show`.
    pub fn text(&mut self, now: Instant) -> String {
        let (forwarding, path_down) = (self.is_forwarding(now), self.settings.concatenated_path_down);
        let next = self.next_tx.unwrap_or(Instant::ZERO);
        let r = &self.remote;
        let mut out = String::new();
        let _ = write!(
            out,
            "  Forwarding: {forwarding}\n  Detect Multiplier: {}\n  Concatenated Path Down: {path_down}\n  \
             TX Interval: Approx {}ms\n  RX Interval: Approx {}ms\n  Detect Time: now {:+}ms\n  \
             Next TX Time: now {:+}ms\n  Last TX Time: now {:+}ms\n\n",
            self.settings.multiplier,
            self.tx_interval_ms(),
            self.rx_interval_ms(),
            until(now, self.detect),
            until(now, next),
            until(now, self.last_tx),
        );
        let _ = write!(
            out,
            "  Local Flags: {}\n  Local Session State: {}\n  Local Diagnostic: {}\n  Local Discriminator: {:#x}\n  \
             Local Minimum TX Interval: {}ms\n  Local Minimum RX Interval: {}ms\n\n",
            self.flags.words(),
            self.state.name(),
            self.diagnostic.words(),
            self.discriminator,
            self.own_min_tx_ms(),
            self.min_rx_ms,
        );
        let _ = write!(
            out,
            "  Remote Flags: {}\n  Remote Session State: {}\n  Remote Diagnostic: {}\n  Remote Discriminator: {:#x}\n  \
             Remote Minimum TX Interval: {}ms\n  Remote Minimum RX Interval: {}ms\n  Remote Detect Multiplier: {}\n",
            r.flags.words(),
            r.state.name(),
            r.diagnostic.words(),
            r.discriminator,
            r.min_tx_ms,
            r.min_rx_ms,
            self.remote_multiplier,
        );
        out
    }
}
