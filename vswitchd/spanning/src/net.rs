//! Networks of bridges of either kind, for tests.

use crate::bpdu::Bpdu;
use crate::{BridgeId, Rstp, Stp, StpSettings, rstp, stp};

/// What a way out of a port costs where nothing else is said.
pub(crate) const COST: u16 = 10;

/// A bridge of either kind.
#[allow(clippy::large_enum_variant)] // few, in tests
pub(crate) enum Bridge {
    Rapid(Rstp),
    Old(Stp),
}

/// Does the same with either.
macro_rules! either {
    ($bridge:expr, $b:ident => $do:expr) => {
        match $bridge {
            Bridge::Rapid($b) => $do,
            Bridge::Old($b) => $do,
        }
    };
}

/// Bridges and the segments that their ports are on, by letter; `0` is a segment with nobody else on it, and `X` a link that is down.
pub(crate) struct Net {
    pub(crate) bridges: Vec<(Bridge, Vec<char>)>,
    /// By how much time moves on at once.
    pub(crate) step_ms: u32,
    /// Messages are carried as soon as ports come, rather than with time.
    pub(crate) at_once: bool,
}

/// `a b:5`: a port on segment `a`, and one on `b` by which the way costs 5.
fn ports(words: &str) -> Vec<(char, u16)> {
    let port = |w: &str| {
        let (segment, cost) = w.split_once(':').unwrap_or((w, ""));
        (segment.chars().next().unwrap(), cost.parse().unwrap_or(COST))
    };
    words.split_whitespace().map(port).collect()
}

impl Net {
    /// Adds bridges; those that are `old` know the protocol of 1998 alone.
    pub(crate) fn with(mut self, bridges: &[(u64, &str)], old: impl Fn(u64) -> bool) -> Net {
        for (id, words) in bridges {
            let (name, settings) = (format!("{id:x}"), StpSettings::new(BridgeId(*id)));
            let b = match old(*id) {
                true => Bridge::Old(Stp::new(&name, settings)),
                false => Bridge::Rapid(Rstp::new(&name, settings)),
            };
            self.bridges.push((b, Vec::new()));
            self.rewire(self.bridges.len() - 1, words);
        }
        self
    }

    /// Puts the ports of a bridge on these segments.
    pub(crate) fn rewire(&mut self, bridge: usize, words: &str) {
        let (b, segments) = &mut self.bridges[bridge];
        let wanted = ports(words);
        for (n, (segment, path_cost)) in (1..).zip(wanted.iter().copied()) {
            match b {
                Bridge::Rapid(r) => {
                    let path_cost = path_cost.into();
                    r.set_port(n, rstp::PortSettings { path_cost, ..rstp::PortSettings::USUAL });
                }
                Bridge::Old(s) => {
                    let priority = stp::PortSettings::USUAL_PRIORITY;
                    s.set_port(n, stp::PortSettings { priority, path_cost });
                }
            }
            either!(b, b => b.enable(n, segment != 'X'));
        }
        *segments = wanted.into_iter().map(|(s, _)| s).collect();
        if self.at_once {
            self.carry();
        }
    }

    /// Carries messages, and answers to answers, until nobody has anything to say: a port says something a few times a second at most.
    fn carry(&mut self) {
        for round in 0.. {
            assert!(round < 100, "they do not come to rest");
            let mut sent = Vec::new();
            for (i, (b, segments)) in self.bridges.iter_mut().enumerate() {
                let frames = either!(b, b => b.take_frames());
                sent.extend(frames.into_iter().map(|(n, m)| (i, n, segments[usize::from(n) - 1], m)));
            }
            if sent.is_empty() {
                return;
            }
            for (from, out_of, segment, m) in sent {
                // As it is on the wire.
                let m = Bpdu::parse(&m.emit([2; 6])).unwrap();
                self.deliver((from, out_of), segment, &m);
            }
        }
    }

    fn deliver(&mut self, from: (usize, u8), segment: char, m: &Bpdu) {
        for (i, (b, segments)) in self.bridges.iter_mut().enumerate() {
            for (n, s) in (1..).zip(segments.iter()) {
                if *s == segment && segment != '0' && (i, n) != from {
                    either!(b, b => b.receive(n, m));
                }
            }
        }
    }

    pub(crate) fn run_ms(&mut self, ms: u32) {
        for _ in 0..ms / self.step_ms {
            let step_ms = self.step_ms;
            self.bridges.iter_mut().for_each(|(b, _)| either!(b, b => b.run(step_ms)));
            self.carry();
        }
    }

    /// For each port: `F` where it forwards, with the cost of the way to the root where that is by it, `B` where it is another way, `D`
    /// where it is down, `?` where it is none of these.
    pub(crate) fn is(&self, bridge: usize) -> String {
        let (b, segments) = &self.bridges[bridge];
        let port = |n: u8| {
            let (is, cost) = match b {
                Bridge::Rapid(r) => {
                    use rstp::{Role, State};
                    let is = match (r.state(n), r.role(n)) {
                        (State::Forwarding, Role::Root) => "F:",
                        (State::Forwarding, Role::Designated) => "F",
                        (State::Discarding, Role::Alternate | Role::Backup) => "B",
                        (State::Disabled, Role::Disabled) => "D",
                        _ => "?",
                    };
                    (is, r.seen().2)
                }
                Bridge::Old(s) => {
                    use stp::{Role, State};
                    let is = match (s.state(n), s.role(n)) {
                        (State::Forwarding, Role::Root) => "F:",
                        (State::Forwarding, Role::Designated) => "F",
                        (State::Blocking, Role::Alternate) => "B",
                        (State::Disabled, Role::Disabled) => "D",
                        _ => "?",
                    };
                    (is, s.seen().2)
                }
            };
            if is == "F:" { format!("F:{cost}") } else { is.to_owned() }
        };
        (1..=segments.len() as u8).map(port).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn are(&self) -> Vec<String> {
        (0..self.bridges.len()).map(|b| self.is(b)).collect()
    }

    pub(crate) fn flushed(&mut self) -> Vec<bool> {
        self.bridges.iter_mut().map(|(b, _)| either!(b, b => b.take_flush())).collect()
    }

    /// A bridge that knows the protocol of 1998 alone.
    pub(crate) fn old(&mut self, bridge: usize) -> &mut Stp {
        let Bridge::Old(b) = &mut self.bridges[bridge].0 else { panic!("{bridge} is rapid") };
        b
    }

    /// A rapid bridge.
    pub(crate) fn rapid(&mut self, bridge: usize) -> &mut Rstp {
        let Bridge::Rapid(b) = &mut self.bridges[bridge].0 else { panic!("{bridge} is old") };
        b
    }
}
