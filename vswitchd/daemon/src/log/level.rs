//! Levels per module and destination, and the `vlog/set` syntax for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Severity, most severe first. As a threshold: this and more severe.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs)]
pub enum Level {
    Off,
    Emer,
    Err,
    Warn,
    Info,
    Dbg,
}

impl Level {
    /// The level of a `tracing` event; TRACE is DBG.
    pub fn of(l: &tracing::Level) -> Level {
        match *l {
            tracing::Level::ERROR => Level::Err,
            tracing::Level::WARN => Level::Warn,
            tracing::Level::INFO => Level::Info,
            _ => Level::Dbg,
        }
    }

    /// As written in lines and lists.
    pub fn name(self) -> &'static str {
        match self {
            Level::Off => "OFF",
            Level::Emer => "EMER",
            Level::Err => "ERR",
            Level::Warn => "WARN",
            Level::Info => "INFO",
            Level::Dbg => "DBG",
        }
    }

    fn parse(word: &str) -> Option<Level> {
        [Level::Off, Level::Emer, Level::Err, Level::Warn, Level::Info, Level::Dbg]
            .into_iter()
            .find(|l| l.name().eq_ignore_ascii_case(word))
    }
}

/// Where lines go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// Standard error.
    Console,
    /// Accepted for compatibility; nothing is sent there.
    Syslog,
    /// The log file.
    File,
}

impl Destination {
    fn parse(word: &str) -> Option<Destination> {
        match word.to_ascii_lowercase().as_str() {
            "console" => Some(Destination::Console),
            "syslog" => Some(Destination::Syslog),
            "file" => Some(Destination::File),
            _ => None,
        }
    }
}

/// Why a `vlog/set` argument is wrong.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum SpecError {
    /// The word is neither a level nor a destination nor can it be a module.
    #[error("no destination, level, or module \"{0}\"")]
    Unknown(String),
    /// Two levels, destinations or modules.
    #[error("cannot specify multiple {0}")]
    Twice(&'static str),
    /// Patterns and facilities are fixed.
    #[error("the log's pattern and syslog facility are fixed")]
    Fixed,
}

/// Thresholds of the two destinations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Thresholds {
    console: Level,
    file: Level,
}

impl Thresholds {
    fn set(&mut self, to: Option<Destination>, level: Level) {
        match to {
            Some(Destination::Console) => self.console = level,
            Some(Destination::File) => self.file = level,
            Some(Destination::Syslog) => {}
            None => (self.console, self.file) = (level, level),
        }
    }
}

/// All thresholds.
pub(super) struct Levels {
    general: Thresholds,
    /// By module name; covers modules below it (`a` covers `a_b`), the longest name wins.
    modules: BTreeMap<String, Thresholds>,
    /// Modules that have spoken or were set, for the list.
    known: BTreeSet<String>,
    /// Whether there is a file at all.
    pub(super) has_file: bool,
}

/// A target as a module name: `ofproto::bridge` is `ofproto_bridge`.
pub(super) struct ModuleName<'a>(pub &'a str);

impl fmt::Display for ModuleName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in self.0.split("::").enumerate() {
            if i > 0 {
                f.write_str("_")?;
            }
            f.write_str(part)?;
        }
        Ok(())
    }
}

impl Levels {
    pub(super) fn new(console: Level, file: Level) -> Self {
        Levels {
            general: Thresholds { console, file },
            modules: BTreeMap::new(),
            known: BTreeSet::new(),
            has_file: false,
        }
    }

    fn of(&self, target: &str) -> Thresholds {
        if self.modules.is_empty() {
            return self.general;
        }
        let name = ModuleName(target).to_string();
        let mut part = name.as_str();
        loop {
            if let Some(t) = self.modules.get(part) {
                return *t;
            }
            match part.rfind('_') {
                Some(i) => part = &part[..i],
                None => return self.general,
            }
        }
    }

    /// Whether any destination takes an event of this target and level. Remembers the module.
    pub(super) fn wants(&mut self, target: &str, level: Level) -> bool {
        self.known.insert(ModuleName(target).to_string());
        let (console, file) = self.destinations(target, level);
        console || file
    }

    /// Whether console and file take an event of this target and level.
    pub(super) fn destinations(&self, target: &str, level: Level) -> (bool, bool) {
        let t = self.of(target);
        (level <= t.console, self.has_file && level <= t.file)
    }

    pub(super) fn set(&mut self, spec: &str) -> Result<(), SpecError> {
        let upper = spec.to_ascii_uppercase();
        if upper.starts_with("PATTERN:") || upper.starts_with("FACILITY:") {
            return Err(SpecError::Fixed);
        }
        let (mut module, mut to, mut level) = (None, None, None);
        for word in spec.split([' ', ',', ':']).filter(|w| !w.is_empty()) {
            if let Some(l) = Level::parse(word) {
                if level.replace(l).is_some() {
                    return Err(SpecError::Twice("levels"));
                }
            } else if let Some(d) = Destination::parse(word) {
                if to.replace(d).is_some() {
                    return Err(SpecError::Twice("destinations"));
                }
            } else if !word.eq_ignore_ascii_case("any") {
                // Modules are known only once they have spoken, so any name that could be one is taken.
                if !word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                    return Err(SpecError::Unknown(word.to_owned()));
                }
                if module.replace(word.to_owned()).is_some() {
                    return Err(SpecError::Twice("modules"));
                }
            }
        }
        let level = level.unwrap_or(Level::Dbg);
        match module {
            None => {
                self.general.set(to, level);
                self.modules.values_mut().for_each(|t| t.set(to, level));
            }
            Some(m) => {
                // Modules below it follow.
                let below = format!("{m}_");
                for (_, t) in self.modules.iter_mut().filter(|(n, _)| n.starts_with(&below)) {
                    t.set(to, level);
                }
                let mut t = self.of(&m);
                t.set(to, level);
                self.known.insert(m.clone());
                self.modules.insert(m, t);
            }
        }
        Ok(())
    }

    pub(super) fn list(&self) -> String {
        let mut out = String::from(
            "                 console    syslog    file\n                 -------    ------    ------\n",
        );
        for name in &self.known {
            let t = self.of(name);
            out.push_str(&format!(
                "{name:<16}  {:>4}       {:>4}       {:>4}\n",
                t.console.name(),
                Level::Off.name(),
                t.file.name()
            ));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_sets_what_it_names() {
        let mut l = Levels::new(Level::Warn, Level::Info);
        let at = |l: &Levels, t| {
            let t = l.of(t);
            (t.console, t.file)
        };
        l.set("ofproto:file:dbg").unwrap();
        assert_eq!(at(&l, "ofproto"), (Level::Warn, Level::Dbg));
        assert_eq!(at(&l, "ofproto::bridge"), (Level::Warn, Level::Dbg), "modules below follow");
        assert_eq!(at(&l, "ofprotox"), (Level::Warn, Level::Info));
        l.set("ofproto_bridge off").unwrap();
        assert_eq!(at(&l, "ofproto::bridge"), (Level::Off, Level::Off));
        assert_eq!(at(&l, "ofproto"), (Level::Warn, Level::Dbg));
        l.set("ANY:console:err").unwrap();
        assert_eq!(at(&l, "ofproto::bridge"), (Level::Err, Level::Off));
        assert_eq!(at(&l, "other"), (Level::Err, Level::Info));
        l.set("vconn").unwrap();
        assert_eq!(at(&l, "vconn"), (Level::Dbg, Level::Dbg), "no level means DBG");
        l.set("syslog:dbg").unwrap();
        assert_eq!(at(&l, "other"), (Level::Err, Level::Info));
    }

    #[test]
    fn a_wrong_spec_changes_nothing() {
        let mut l = Levels::new(Level::Warn, Level::Info);
        assert_eq!(l.set("a-b:dbg"), Err(SpecError::Unknown("a-b".into())));
        assert_eq!(l.set("dbg:info"), Err(SpecError::Twice("levels")));
        assert_eq!(l.set("file,console"), Err(SpecError::Twice("destinations")));
        assert_eq!(l.set("x y"), Err(SpecError::Twice("modules")));
        assert_eq!(l.set("PATTERN:file:%m"), Err(SpecError::Fixed));
        assert_eq!(l.of("x"), l.general);
    }

    #[test]
    fn the_list_has_open_vswitchs_columns() {
        let mut l = Levels::new(Level::Off, Level::Info);
        l.set("vconn:dbg").unwrap();
        let list = l.list();
        assert_eq!(list.lines().last().unwrap(), "vconn              DBG        OFF        DBG");
    }
}
