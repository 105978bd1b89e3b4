//! Failures by script: what goes wrong, and in which cycle.
//!
//! ```text
//!   # cycle  what           whom
//!   12000    link-down      0
//!   12500    link-up        0
//!   20000    bit-errors     1 3        # the next three frames on port 1's wire arrive damaged
//!   30000    stick          rx 0 1     # receive ring of port 0, queue 1, takes nothing up
//!   31000    release        rx 0 1
//!   40000    slow-commands  10         # commands take ten times as long; 1: as ever
//!   41000    fail-commands  2          # the next two commands are given up
//!   50000    parity         exact 17   # the entry in slot 17 cannot be read any more; exact, lpm, range or ternary
//!   60000    lose-interrupts 1         # the next interrupt message is lost
//!   70000    reset                     # function-level reset
//!   80000    remove                    # surprise removal
//!   90000    repair                    # back, as after power-on
//! ```
//!
//! A failure takes effect at the beginning of its cycle, whether the clock would have jumped over it or not. Two that are
//! due in one cycle take effect in the order of the script.
//!
//! Cycle-level: the cycle in which a failure takes effect. Behavioural: what it does then.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use simnic_defs::cmd::{TABLE_EXACT, TABLE_LPM, TABLE_RANGE, TABLE_TERNARY};

/// Tables, as scripts name them.
const TABLES: [(&str, u8); 4] =
    [("exact", TABLE_EXACT), ("lpm", TABLE_LPM), ("range", TABLE_RANGE), ("ternary", TABLE_TERNARY)];

/// Something that goes wrong, or right again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mishap {
    /// The wire of a port loses its carrier, or gets it back.
    Carrier {
        /// The port.
        port: u8,
        /// Whether it has one.
        up: bool,
    },
    /// Frames arrive at a port with a wrong checksum.
    BitErrors {
        /// The port.
        port: u8,
        /// How many.
        frames: u32,
    },
    /// A packet ring takes nothing up, or does again.
    Stuck {
        /// A receive ring; otherwise a transmit ring.
        receive: bool,
        /// Its port.
        port: u8,
        /// Its queue.
        queue: u8,
        /// Whether it is stuck.
        stuck: bool,
    },
    /// Commands take so many times as long.
    SlowCommands(u32),
    /// The next commands end as aborted.
    FailCommands(u32),
    /// An entry cannot be read any more: frames no longer find it, until it is replaced.
    Parity {
        /// The table's number.
        table: u8,
        /// The slot.
        slot: u32,
    },
    /// The next interrupt messages are lost.
    LoseInterrupts(u32),
    /// Function-level reset, as if the platform had done it.
    Reset,
    /// The device disappears from the bus.
    Remove,
    /// A removed device is back as after power-on; a failed one goes on.
    Repair,
}

kernel::state!(enum Mishap {
    0 => Carrier { port, up },
    1 => BitErrors { port, frames },
    2 => Stuck { receive, port, queue, stuck },
    3 => SlowCommands(a),
    4 => FailCommands(a),
    5 => Parity { table, slot },
    6 => LoseInterrupts(a),
    7 => Reset,
    8 => Remove,
    9 => Repair,
});

/// A mishap and its cycle.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Scripted {
    /// When.
    pub cycle: u64,
    /// What.
    pub what: Mishap,
}

kernel::state!(struct Scripted { cycle, what });

/// What is wrong with a script.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("line {line}: {reason}")]
pub struct ScriptError {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub reason: String,
}

/// Reads a script: see the module's text. Lines may be in any order of cycles.
///
/// # Errors
/// The first line that says nothing known.
pub fn parse_script(text: &str) -> Result<Vec<Scripted>, ScriptError> {
    let mut all = Vec::new();
    for (i, l) in text.lines().enumerate() {
        let words: Vec<&str> = l.split('#').next().unwrap_or("").split_whitespace().collect();
        let Some((cycle, rest)) = words.split_first() else { continue };
        let wrong = |reason: String| ScriptError { line: i + 1, reason };
        let cycle = cycle.parse().map_err(|_| wrong(format!("{cycle:?} is not a cycle")))?;
        all.push(Scripted { cycle, what: mishap(rest).map_err(wrong)? });
    }
    all.sort_by_key(|s| s.cycle);
    Ok(all)
}

fn mishap(words: &[&str]) -> Result<Mishap, String> {
    fn number<T: std::str::FromStr>(w: &str) -> Result<T, String> {
        w.parse().map_err(|_| format!("{w:?} is not a number in range"))
    }
    let ring = |dir: &str, port, queue, stuck| {
        let receive = match dir {
            "rx" => true,
            "tx" => false,
            d => return Err(format!("{d:?} is neither rx nor tx")),
        };
        Ok(Mishap::Stuck { receive, port: number(port)?, queue: number(queue)?, stuck })
    };
    Ok(match words {
        ["link-down", p] => Mishap::Carrier { port: number(p)?, up: false },
        ["link-up", p] => Mishap::Carrier { port: number(p)?, up: true },
        ["bit-errors", p, n] => Mishap::BitErrors { port: number(p)?, frames: number(n)? },
        ["stick", d, p, q] => ring(d, p, q, true)?,
        ["release", d, p, q] => ring(d, p, q, false)?,
        ["slow-commands", n] => match number(n)? {
            0 => return Err("commands cannot take no time".into()),
            n => Mishap::SlowCommands(n),
        },
        ["fail-commands", n] => Mishap::FailCommands(number(n)?),
        ["parity", table, s] => match TABLES.iter().find(|(name, _)| name == table) {
            Some((_, table)) => Mishap::Parity { table: *table, slot: number(s)? },
            None => return Err(format!("{table:?} is no table: exact, lpm, range or ternary")),
        },
        ["lose-interrupts", n] => Mishap::LoseInterrupts(number(n)?),
        ["reset"] => Mishap::Reset,
        ["remove"] => Mishap::Remove,
        ["repair"] => Mishap::Repair,
        [] => return Err("nothing after the cycle".into()),
        [what, ..] => {
            return Err(format!(
                "{what:?} with {} arguments is none of link-down PORT, link-up PORT, bit-errors PORT FRAMES, \
                 stick rx|tx PORT QUEUE, release rx|tx PORT QUEUE, slow-commands TIMES, fail-commands COUNT, \
                 parity exact|lpm|range|ternary SLOT, lose-interrupts COUNT, reset, remove, repair",
                words.len() - 1
            ));
        }
    })
}

/// What is still to come, in order.
#[derive(Clone, Default, Debug)]
pub(crate) struct Script(VecDeque<Scripted>);

kernel::state!(struct Script(all));

impl Script {
    pub fn add(&mut self, all: &[Scripted]) {
        self.0.extend(all);
        self.0.make_contiguous().sort_by_key(|s| s.cycle);
    }

    /// The next one that is due in cycle `now` or was before.
    pub fn due(&mut self, now: u64) -> Option<Mishap> {
        self.0.front().filter(|s| s.cycle <= now)?;
        self.0.pop_front().map(|s| s.what)
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<u64> {
        self.0.front().map(|s| s.cycle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_read_and_their_errors_name_the_line() {
        let s = parse_script("# nothing\n90 repair\n10 link-down 2 # a port\n20 stick tx 0 1\n").unwrap();
        assert_eq!(s[0], Scripted { cycle: 10, what: Mishap::Carrier { port: 2, up: false } });
        assert_eq!(s[2].what, Mishap::Repair);
        let err = |t| parse_script(t).unwrap_err().to_string();
        assert_eq!(err("x reset"), "line 1: \"x\" is not a cycle");
        assert_eq!(err("\n5 stick up 0 0"), "line 2: \"up\" is neither rx nor tx");
        assert!(err("5 explode").starts_with("line 1: \"explode\" with 0 arguments is none of link-down"));
        assert_eq!(err("5 parity big 1"), "line 1: \"big\" is no table: exact, lpm, range or ternary");
        for (name, table) in TABLES {
            let s = parse_script(&format!("7 parity {name} 3")).unwrap();
            assert_eq!(s[0].what, Mishap::Parity { table, slot: 3 });
        }
        assert_eq!(err("5 slow-commands 0"), "line 1: commands cannot take no time");
        assert_eq!(err("5 link-up 700"), "line 1: \"700\" is not a number in range");
    }
}
