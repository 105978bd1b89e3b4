//! Levels per module and destination, and the `vlog/set` syntax for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::modules;

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
    /// The system's log.
    Syslog,
    /// The log file.
    File,
}

impl Destination {
    /// In the order in which patterns are listed.
    pub const ALL: [Destination; 3] = [Destination::Syslog, Destination::Console, Destination::File];

    pub(super) fn parse(word: &str) -> Option<Destination> {
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
    /// The word is neither a level nor a destination nor a module.
    #[error("no destination, level, or module \"{0}\"")]
    Unknown(String),
    /// Two levels, destinations or modules.
    #[error("cannot specify multiple {0}")]
    Twice(&'static str),
    /// `PATTERN` without a destination.
    #[error("missing destination")]
    MissingDestination,
    /// `PATTERN` with something else for a destination.
    #[error("unknown destination \"{0}\"")]
    UnknownDestination(String),
    /// `FACILITY` with something else for a facility.
    #[error("invalid facility")]
    Facility,
    /// A module that there is not.
    #[error("unknown module")]
    UnknownModule,
}

/// Something for each destination, by [`Destination`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Each<T> {
    pub console: T,
    pub syslog: T,
    pub file: T,
}

impl<T: Clone> Each<T> {
    pub(super) fn set(&mut self, to: Option<Destination>, v: T) {
        match to {
            Some(Destination::Console) => self.console = v,
            Some(Destination::File) => self.file = v,
            Some(Destination::Syslog) => self.syslog = v,
            None => *self = Each { console: v.clone(), syslog: v.clone(), file: v },
        }
    }

    pub(super) fn get(&self, of: Destination) -> &T {
        match of {
            Destination::Console => &self.console,
            Destination::Syslog => &self.syslog,
            Destination::File => &self.file,
        }
    }
}

/// Thresholds of the destinations.
type Thresholds = Each<Level>;

/// All thresholds.
pub(super) struct Levels {
    general: Thresholds,
    /// By module name; covers modules below it (`a` covers `a_b`), the longest name wins.
    modules: BTreeMap<String, Thresholds>,
    /// Modules for the list: Open vSwitch's, and those that have spoken or were set.
    known: BTreeSet<String>,
    /// Whether the rate of messages is limited.
    limited: bool,
    /// Modules for which the opposite holds.
    otherwise: BTreeSet<String>,
    /// Whether there is a file at all, and a way to the system's log.
    pub(super) has_file: bool,
    pub(super) has_syslog: bool,
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
            general: Thresholds { console, syslog: Level::Info, file },
            modules: BTreeMap::new(),
            known: modules::STOCK.iter().map(|m| (*m).to_owned()).collect(),
            limited: true,
            otherwise: BTreeSet::new(),
            has_file: false,
            has_syslog: false,
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
            // Names of Open vSwitch's stand for themselves alone.
            match part.rfind('_').filter(|_| modules::stock(part).is_none()) {
                Some(i) => part = &part[..i],
                None => return self.general,
            }
        }
    }

    /// Whether any destination takes an event of this target and level. Remembers the module.
    pub(super) fn wants(&mut self, target: &str, level: Level) -> bool {
        self.known.insert(ModuleName(target).to_string());
        let to = self.destinations(target, level);
        to.console || to.syslog || to.file
    }

    /// Which destinations take an event of this target and level.
    pub(super) fn destinations(&self, target: &str, level: Level) -> Each<bool> {
        let t = self.of(target);
        Each {
            console: level <= t.console,
            syslog: self.has_syslog && level <= t.syslog,
            file: self.has_file && level <= t.file,
        }
    }

    /// Whether messages of this target are limited in their rate.
    pub(super) fn is_limited(&self, target: &str) -> bool {
        self.limited
            != (!self.otherwise.is_empty() && self.otherwise.contains(&ModuleName(target).to_string()))
    }

    /// Limits the rate of messages of these modules or of all, or does not.
    pub(super) fn limit(&mut self, names: &[String], limited: bool) -> Result<(), SpecError> {
        let mut all = names.is_empty();
        let mut named = Vec::new();
        for n in names {
            if n.eq_ignore_ascii_case("any") {
                all = true;
            } else {
                named.push(self.module(n).ok_or(SpecError::UnknownModule)?);
            }
        }
        if all {
            self.limited = limited;
            self.otherwise.clear();
        }
        for n in named {
            if limited == self.limited {
                self.otherwise.remove(&n);
            } else {
                self.otherwise.insert(n);
            }
        }
        Ok(())
    }

    /// The module that a word names.
    fn module(&self, word: &str) -> Option<String> {
        let spoken = || (self.known.contains(word) || modules::may_be_ours(word)).then(|| word.to_owned());
        modules::stock(word).map(str::to_owned).or_else(spoken)
    }

    pub(super) fn set(&mut self, spec: &str) -> Result<(), SpecError> {
        let (mut module, mut to, mut level) = (None, None, None);
        for word in spec.split([' ', ',', ':', '\t']).filter(|w| !w.is_empty()) {
            if let Some(l) = Level::parse(word) {
                if level.replace(l).is_some() {
                    return Err(SpecError::Twice("levels"));
                }
            } else if let Some(d) = Destination::parse(word) {
                if to.replace(d).is_some() {
                    return Err(SpecError::Twice("destinations"));
                }
            } else if !word.eq_ignore_ascii_case("any") {
                let m = self.module(word).ok_or_else(|| SpecError::Unknown(word.to_owned()))?;
                if module.replace(m).is_some() {
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
                let is_below = |n: &str| n.starts_with(&below) && modules::stock(n).is_none();
                for (_, t) in self.modules.iter_mut().filter(|(n, _)| is_below(n)) {
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
                t.syslog.name(),
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
        l.wants("other", Level::Info);
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
        assert_eq!(l.of("other").syslog, Level::Dbg);
        l.set("OFPROTO:off").unwrap();
        assert_eq!(at(&l, "ofproto_dpif"), (Level::Err, Level::Info), "a stock module of its own");
        l.set("").unwrap();
        assert_eq!(at(&l, "ofproto_dpif"), (Level::Dbg, Level::Dbg));
    }

    #[test]
    fn rate_limits_are_lifted_by_module() {
        let mut l = Levels::new(Level::Warn, Level::Info);
        assert!(l.is_limited("vconn"));
        l.limit(&["vconn".to_owned()], false).unwrap();
        assert!(!l.is_limited("vconn") && l.is_limited("bridge"));
        assert_eq!(l.limit(&["nosuch".to_owned()], false), Err(SpecError::UnknownModule));
        l.limit(&[], false).unwrap();
        assert!(!l.is_limited("bridge"));
        l.limit(&["ANY".to_owned()], true).unwrap();
        assert!(l.is_limited("vconn") && l.is_limited("bridge"));
    }

    #[test]
    fn a_wrong_spec_changes_nothing() {
        let mut l = Levels::new(Level::Warn, Level::Info);
        assert_eq!(l.set("a-b:dbg"), Err(SpecError::Unknown("a-b".into())));
        assert_eq!(l.set("dbg:info"), Err(SpecError::Twice("levels")));
        assert_eq!(l.set("file,console"), Err(SpecError::Twice("destinations")));
        assert_eq!(l.set("vconn ofproto"), Err(SpecError::Twice("modules")));
        assert_eq!(l.set("vcon:dbg"), Err(SpecError::Unknown("vcon".into())));
        assert_eq!(l.of("vconn"), l.general);
    }

    #[test]
    fn the_list_has_open_vswitchs_columns() {
        let mut l = Levels::new(Level::Off, Level::Info);
        l.set("vconn:dbg").unwrap();
        let list = l.list();
        let line = |name: &str| list.lines().find(|l| l.starts_with(name)).unwrap().to_owned();
        assert_eq!(line("vconn "), "vconn              DBG        DBG        DBG");
        assert_eq!(line("dpif_netlink_rtnl"), "dpif_netlink_rtnl   OFF       INFO       INFO");
    }
}
