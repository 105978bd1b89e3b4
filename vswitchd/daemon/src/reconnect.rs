//! When to connect, to probe and to give a connection up: the reconnect state machine of Open vSwitch.
//!
//! ```text
//!               enable                backoff over            connected
//!   VOID ------------------> BACKOFF ------------> CONNECTING ---------> ACTIVE <--any byte-- IDLE
//!                              ^  ^                    |                  |  |   silence -->   |
//!                              |  +--failed, too long--+     dropped      |  |                 |
//!                              +----------------------------------------- +  +   no answer ----+
//! ```
//!
//! It does no I/O. The owner asks [`Reconnect::run`] what to do and tells it what happened; time is an argument. A pause
//! begins at [`Options::min_backoff`] and doubles up to [`Options::max_backoff`]; a connection that lived longer than the
//! pause before it sets it back. A passive one (a listener that wants one peer) listens again at once.
//!
//! [`Status`] is what status columns show of it (ovs-vswitchd.conf.db(5), Manager and Controller `status`).

use std::time::Duration;

use clock::Instant;

/// How patient it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// First pause before connecting again.
    pub min_backoff: Duration,
    /// Longest pause.
    pub max_backoff: Duration,
    /// Silence after which the peer is probed, and after the probe given up; `None` never probes.
    pub probe_interval: Option<Duration>,
    /// Waits for the peer to connect.
    pub passive: bool,
    /// Give up after this many attempts; `None` never.
    pub max_tries: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            min_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(8),
            probe_interval: Some(Duration::from_secs(5)),
            passive: false,
            max_tries: None,
        }
    }
}

/// Shortest time a connection attempt gets.
const MIN_CONNECT: Duration = Duration::from_secs(1);

/// Where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Not wanted, or given up.
    Void,
    /// Waits before the next attempt.
    Backoff,
    /// An attempt is under way.
    Connecting,
    /// Waits for the peer to connect.
    Listening,
    /// Connected.
    Active,
    /// Connected, silent, and probed.
    Idle,
}

impl State {
    /// The name in status columns.
    pub fn name(self) -> &'static str {
        match self {
            State::Void => "VOID",
            State::Backoff => "BACKOFF",
            State::Connecting => "CONNECTING",
            State::Listening => "LISTENING",
            State::Active => "ACTIVE",
            State::Idle => "IDLE",
        }
    }

    /// Whether there is a connection.
    pub fn is_connected(self) -> bool {
        matches!(self, State::Active | State::Idle)
    }
}

/// What the owner has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Begin to connect (or to listen), then say [`Reconnect::connecting`].
    Connect,
    /// End the connection or the attempt, then say [`Reconnect::disconnected`].
    Disconnect,
    /// Ask the peer for a sign of life.
    Probe,
}

/// What there is to show.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// Where it is.
    pub state: State,
    /// Why the last connection or attempt ended; `None` before the first and while connected.
    pub last_error: Option<String>,
    /// Since the last connection began.
    pub since_connect: Option<Duration>,
    /// Since the last connection ended.
    pub since_disconnect: Option<Duration>,
    /// The pause before the next attempt.
    pub backoff: Duration,
    /// Attempts so far.
    pub attempts: u64,
    /// Attempts that succeeded.
    pub connections: u64,
}

/// The state machine of one connection.
#[derive(Debug)]
pub struct Reconnect {
    name: String,
    options: Options,
    state: State,
    entered: Instant,
    backoff: Duration,
    last_activity: Instant,
    last_connected: Option<Instant>,
    last_disconnected: Option<Instant>,
    last_error: Option<String>,
    attempts: u64,
    connections: u64,
    tries_left: Option<u32>,
    /// [`Reconnect::force`] was called.
    forced: bool,
    free_tries: u32,
}

impl Reconnect {
    /// The state machine of the connection `name`, which stands still until it is enabled.
    pub fn new(name: impl Into<String>, options: Options, now: Instant) -> Self {
        Reconnect {
            name: name.into(),
            options,
            state: State::Void,
            entered: now,
            backoff: Duration::ZERO,
            last_activity: now,
            last_connected: None,
            last_disconnected: None,
            last_error: None,
            attempts: 0,
            connections: 0,
            tries_left: options.max_tries,
            forced: false,
            free_tries: 0,
        }
    }

    /// The name for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Another address; the next attempt goes there.
    pub fn set_name(&mut self, name: impl Into<String>) {
        self.name = name.into();
    }

    /// Changes how patient it is, from now on.
    pub fn set_options(&mut self, options: Options) {
        if self.options.max_tries != options.max_tries {
            self.tries_left = options.max_tries;
        }
        self.options = options;
        self.backoff = self.backoff.min(options.max_backoff);
    }

    /// The next `n` failures are not followed by a pause: for a client that has `n` other addresses to try.
    pub fn set_free_tries(&mut self, n: u32) {
        self.free_tries = n;
    }

    /// Where it is.
    pub fn state(&self) -> State {
        self.state
    }

    fn enter(&mut self, state: State, now: Instant) {
        self.state = state;
        self.entered = now;
    }

    /// Begins; the first attempt is due at once.
    pub fn enable(&mut self, now: Instant) {
        if self.state == State::Void && self.tries_left != Some(0) {
            self.backoff = Duration::ZERO;
            self.enter(State::Backoff, now);
        }
    }

    /// Ends. The owner closes what is open by itself.
    pub fn disable(&mut self, now: Instant) {
        self.enter(State::Void, now);
    }

    /// Makes the next [`Reconnect::run`] end what is up and connect again without a pause.
    pub fn force(&mut self) {
        if !matches!(self.state, State::Void | State::Backoff) {
            self.forced = true;
        }
    }

    /// When [`Reconnect::run`] has something to say next, if nothing happens before; `None` for never.
    pub fn deadline(&self) -> Option<Instant> {
        if self.forced {
            return Some(self.entered);
        }
        match self.state {
            State::Void | State::Listening => None,
            State::Backoff => Some(self.entered + self.backoff),
            State::Connecting => Some(self.entered + self.backoff.max(MIN_CONNECT)),
            State::Active => Some(self.last_activity.max(self.entered) + self.options.probe_interval?),
            State::Idle => Some(self.entered + self.options.probe_interval?),
        }
    }

    /// What is to be done now.
    pub fn run(&mut self, now: Instant) -> Option<Action> {
        if self.deadline().is_none_or(|d| now < d) {
            return None;
        }
        if self.forced {
            return Some(Action::Disconnect);
        }
        match self.state {
            State::Void | State::Listening => None,
            State::Backoff => Some(Action::Connect),
            State::Connecting => Some(Action::Disconnect),
            State::Active => {
                let silent = now.since(self.last_activity.max(self.entered)).as_millis();
                tracing::debug!(target: "reconnect", "{}: idle {silent} ms, sending inactivity probe", self.name);
                self.enter(State::Idle, now);
                Some(Action::Probe)
            }
            State::Idle => {
                let waited = now.since(self.entered).as_secs();
                tracing::error!(
                    target: "reconnect",
                    "{}: no response to inactivity probe after {waited} seconds, disconnecting", self.name
                );
                Some(Action::Disconnect)
            }
        }
    }

    /// An attempt began.
    pub fn connecting(&mut self, now: Instant) {
        self.attempts += 1;
        if let Some(n) = &mut self.tries_left {
            *n = n.saturating_sub(1);
        }
        if self.options.passive {
            tracing::info!(target: "reconnect", "{}: listening...", self.name);
            self.enter(State::Listening, now);
        } else {
            if self.backoff < self.options.max_backoff {
                tracing::info!(target: "reconnect", "{}: connecting...", self.name);
            } else {
                tracing::debug!(target: "reconnect", "{}: connecting...", self.name);
            }
            self.enter(State::Connecting, now);
        }
    }

    /// The attempt succeeded.
    pub fn connected(&mut self, now: Instant) {
        if self.state.is_connected() {
            return;
        }
        tracing::info!(target: "reconnect", "{}: connected", self.name);
        self.connections += 1;
        self.last_connected = Some(now);
        self.last_activity = now;
        self.last_error = None;
        self.enter(State::Active, now);
    }

    /// Something arrived.
    pub fn activity(&mut self, now: Instant) {
        self.last_activity = now;
        if self.state == State::Idle {
            self.enter(State::Active, now);
        }
    }

    /// The attempt failed, or the connection is over, with a reason if it is not simply the end of the stream.
    pub fn disconnected(&mut self, now: Instant, error: Option<&str>) {
        if matches!(self.state, State::Void | State::Backoff) {
            return;
        }
        let quiet = !self.state.is_connected() && self.backoff >= self.options.max_backoff;
        let words = match (self.state, error) {
            (State::Active | State::Idle, Some(e)) => format!("connection dropped ({e})"),
            (State::Active | State::Idle, None) => "connection closed by peer".to_owned(),
            (State::Listening, e) => format!("error listening for connections ({})", e.unwrap_or("unknown")),
            (_, Some(e)) => format!("connection attempt failed ({e})"),
            (_, None) if self.deadline().is_some_and(|d| now >= d) => {
                "connection attempt timed out".to_owned()
            }
            (_, None) => "connection attempt failed".to_owned(),
        };
        if quiet {
            tracing::debug!(target: "reconnect", "{}: {words}", self.name);
        } else if self.state.is_connected() && error.is_some() {
            tracing::warn!(target: "reconnect", "{}: {words}", self.name);
        } else {
            tracing::info!(target: "reconnect", "{}: {words}", self.name);
        }
        let lived = self.state.is_connected().then(|| self.last_activity.since(self.entered_connection()));
        if self.state.is_connected() {
            self.last_disconnected = Some(now);
        }
        self.last_error = Some(error.map_or_else(
            || if lived.is_some() { "End of file".to_owned() } else { "Connection timed out".to_owned() },
            str::to_owned,
        ));
        let o = self.options;
        self.backoff = if self.forced || o.passive && lived.is_some() || self.free_tries > 0 {
            self.free_tries = self.free_tries.saturating_sub(1);
            Duration::ZERO
        } else if lived.is_some_and(|d| d >= self.backoff) || self.backoff < o.min_backoff {
            o.min_backoff
        } else if self.backoff >= o.max_backoff / 2 {
            o.max_backoff
        } else {
            self.backoff * 2
        };
        self.forced = false;
        if self.tries_left == Some(0) {
            self.enter(State::Void, now);
            return;
        }
        if !quiet && !self.backoff.is_zero() && !o.passive {
            let seconds = self.backoff.as_secs_f64();
            if self.backoff >= o.max_backoff && lived.is_none() {
                tracing::info!(
                    target: "reconnect",
                    "{}: continuing to reconnect in the background but suppressing further logging", self.name
                );
            } else {
                tracing::info!(target: "reconnect", "{}: waiting {seconds} seconds before reconnect", self.name);
            }
        }
        self.enter(State::Backoff, now);
    }

    /// When the connection that is up began.
    fn entered_connection(&self) -> Instant {
        self.last_connected.unwrap_or(self.entered)
    }

    /// What there is to show.
    pub fn status(&self, now: Instant) -> Status {
        Status {
            state: self.state,
            last_error: self.last_error.clone(),
            since_connect: self.last_connected.map(|t| now.since(t)),
            since_disconnect: self.last_disconnected.map(|t| now.since(t)),
            backoff: self.backoff,
            attempts: self.attempts,
            connections: self.connections,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn enabled() -> Reconnect {
        let mut r = Reconnect::new("tcp:test", Options::default(), at(0));
        assert_eq!(r.deadline(), None);
        r.enable(at(0));
        r
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut r = enabled();
        let mut now = 0;
        for pause in [1000, 2000, 4000, 8000, 8000] {
            assert_eq!(r.run(at(now)), Some(Action::Connect));
            r.connecting(at(now));
            assert_eq!(r.run(at(now)), None);
            r.disconnected(at(now), Some("Connection refused"));
            assert_eq!(r.status(at(now)).state, State::Backoff);
            assert_eq!(r.deadline(), Some(at(now + pause)));
            assert_eq!(r.run(at(now + pause - 1)), None);
            now += pause;
        }
        let s = r.status(at(now));
        assert_eq!((s.attempts, s.connections), (5, 0));
        assert_eq!(s.last_error.as_deref(), Some("Connection refused"));
        assert_eq!((s.since_connect, s.since_disconnect), (None, None));
    }

    #[test]
    fn an_attempt_may_take_as_long_as_the_pause_before_it_but_at_least_a_second() {
        let mut r = enabled();
        r.connecting(at(0));
        assert_eq!(r.run(at(999)), None);
        assert_eq!(r.run(at(1000)), Some(Action::Disconnect));
        r.disconnected(at(1000), None);
        assert_eq!(r.status(at(1000)).last_error.as_deref(), Some("Connection timed out"));
        r.connecting(at(2000));
        r.disconnected(at(2000), Some("no"));
        r.connecting(at(4000));
        assert_eq!(r.deadline(), Some(at(6000)));
    }

    #[test]
    fn silence_is_probed_and_then_ends_the_connection() {
        let mut r = enabled();
        r.connecting(at(0));
        r.connected(at(10));
        assert_eq!(r.run(at(5009)), None);
        assert_eq!(r.run(at(5010)), Some(Action::Probe));
        assert_eq!(r.state(), State::Idle);
        r.activity(at(5500));
        assert_eq!(r.state(), State::Active);
        assert_eq!(r.deadline(), Some(at(10_500)));
        assert_eq!(r.run(at(10_500)), Some(Action::Probe));
        assert_eq!(r.run(at(15_499)), None);
        assert_eq!(r.run(at(15_500)), Some(Action::Disconnect));
        r.disconnected(at(15_500), Some("no answer"));
        let s = r.status(at(16_000));
        assert_eq!(s.backoff, Duration::from_secs(1), "it lived longer than the pause before it");
        assert_eq!(s.since_connect, Some(Duration::from_millis(15_990)));
        assert_eq!(s.since_disconnect, Some(Duration::from_millis(500)));
    }

    #[test]
    fn without_an_interval_nothing_is_probed() {
        let mut r = enabled();
        r.set_options(Options { probe_interval: None, ..Options::default() });
        r.connecting(at(0));
        r.connected(at(0));
        assert_eq!(r.deadline(), None);
        assert_eq!(r.run(Instant::FAR_FUTURE), None);
    }

    #[test]
    fn a_connection_that_is_dropped_at_once_does_not_set_the_pause_back() {
        let mut r = enabled();
        let mut now = 0;
        for pause in [1000, 2000, 4000] {
            r.connecting(at(now));
            r.connected(at(now));
            r.disconnected(at(now), None);
            assert_eq!(r.deadline(), Some(at(now + pause)));
            now += pause;
        }
    }

    #[test]
    fn other_addresses_are_tried_without_a_pause() {
        let mut r = enabled();
        r.set_free_tries(2);
        for pause in [0, 0, 1000] {
            r.connecting(at(0));
            r.disconnected(at(0), Some("no"));
            assert_eq!(r.deadline(), Some(at(pause)));
        }
    }

    #[test]
    fn a_forced_reconnect_does_not_wait() {
        let mut r = enabled();
        r.connecting(at(0));
        r.connected(at(0));
        r.force();
        assert_eq!(r.run(at(1)), Some(Action::Disconnect));
        r.disconnected(at(1), None);
        assert_eq!(r.run(at(1)), Some(Action::Connect));
    }

    #[test]
    fn passive_ones_listen_again_at_once_and_tries_run_out() {
        let o = Options { passive: true, ..Options::default() };
        let mut r = Reconnect::new("ptcp:", o, at(0));
        r.enable(at(0));
        r.connecting(at(0));
        assert_eq!((r.state(), r.deadline()), (State::Listening, None));
        r.connected(at(5000));
        r.disconnected(at(5000), None);
        assert_eq!(r.run(at(5000)), Some(Action::Connect));

        let o = Options { max_tries: Some(1), ..Options::default() };
        let mut r = Reconnect::new("tcp:once", o, at(0));
        r.enable(at(0));
        r.connecting(at(0));
        r.disconnected(at(0), Some("no"));
        assert_eq!((r.state(), r.deadline()), (State::Void, None));
        r.enable(at(1));
        assert_eq!(r.state(), State::Void);
    }
}
