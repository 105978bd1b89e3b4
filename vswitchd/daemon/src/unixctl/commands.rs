//! The commands a daemon offers: name, usage, number of arguments, what to do.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::coverage;
use crate::log::Logging;
use crate::signals::StopRequest;

/// What a command does with its arguments: text for stdout, or an error text. Called where it may block.
pub type Handler = dyn Fn(&[String]) -> Result<String, String> + Send + Sync;

struct Command {
    usage: &'static str,
    min_args: usize,
    max_args: usize,
    run: Arc<Handler>,
}

/// A set of commands. Clones share it; commands may be added while the server runs.
#[derive(Clone, Default)]
pub struct Commands(Arc<RwLock<BTreeMap<&'static str, Command>>>);

impl std::fmt::Debug for Commands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.read().keys()).finish()
    }
}

impl Commands {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Offers a command with `args` arguments. `usage` names the arguments. A command of the same name is replaced.
    pub fn register(
        &self,
        name: &'static str,
        usage: &'static str,
        args: std::ops::RangeInclusive<usize>,
        run: impl Fn(&[String]) -> Result<String, String> + Send + Sync + 'static,
    ) {
        let (min_args, max_args) = args.into_inner();
        self.0.write().insert(name, Command { usage, min_args, max_args, run: Arc::new(run) });
    }

    /// Withdraws a command; one that runs is not interrupted.
    pub fn unregister(&self, name: &str) {
        self.0.write().remove(name);
    }

    /// Runs a command.
    ///
    /// # Errors
    /// The command's own error text, or Open vSwitch's words for an unknown command or a wrong number of arguments.
    pub fn run(&self, name: &str, args: &[String]) -> Result<String, String> {
        let run = {
            let commands = self.0.read();
            let Some(c) = commands.get(name) else {
                return Err(format!(
                    "\"{name}\" is not a valid command (use \"list-commands\" to see a list of valid commands)"
                ));
            };
            if args.len() < c.min_args {
                return Err(format!("\"{name}\" command requires at least {} arguments", c.min_args));
            }
            if args.len() > c.max_args {
                return Err(format!("\"{name}\" command takes at most {} arguments", c.max_args));
            }
            Arc::clone(&c.run)
        };
        run(args)
    }

    /// The text of `list-commands`.
    pub fn list(&self) -> String {
        self.list_of("")
    }

    /// Registers a command that lists those whose names begin with `prefix`.
    pub fn register_list(&self, name: &'static str, prefix: &'static str) {
        // What is registered must not keep the register.
        let weak = Arc::downgrade(&self.0);
        self.register(name, "", 0..=0, move |_| {
            Ok(weak.upgrade().map(|c| Commands(c).list_of(prefix)).unwrap_or_default())
        });
    }

    fn list_of(&self, prefix: &str) -> String {
        let mut out = String::from("The available commands are:\n");
        for (name, c) in self.0.read().iter().filter(|(name, _)| name.starts_with(prefix)) {
            // The blank at the end where there is no usage is Open vSwitch's.
            let _ = writeln!(out, "  {name:<23} {}", c.usage);
        }
        out
    }
}

/// Registers what every daemon has: `list-commands`, `version`, `exit`, `coverage/*`, and `vlog/*` with a log.
/// `version` is the answer to `version`.
pub fn builtin(commands: &Commands, version: &'static str, stop: StopRequest, logging: Option<Logging>) {
    commands.register_list("list-commands", "");
    commands.register("version", "", 0..=0, move |_| Ok(format!("{version}\n")));
    // Whatever the argument: the datapath is this process's own and goes with it, asked for or not.
    commands.register("exit", "[--cleanup]", 0..=1, move |_| {
        stop.stop();
        Ok(String::new())
    });
    commands.register("coverage/show", "", 0..=0, |_| Ok(coverage::show()));
    commands.register("coverage/read-counter", "COUNTER", 1..=1, |a| {
        coverage::read(&a[0]).map(|n| format!("{n}\n")).ok_or_else(|| "No such counter".to_owned())
    });
    let Some(log) = logging else { return };
    let l = log.clone();
    commands.register("vlog/list", "", 0..=0, move |_| Ok(l.list()));
    let l = log.clone();
    commands.register("vlog/list-pattern", "", 0..=0, move |_| Ok(l.list_patterns()));
    for (name, limited) in [("vlog/enable-rate-limit", true), ("vlog/disable-rate-limit", false)] {
        let l = log.clone();
        commands.register(name, "[module]...", 0..=usize::MAX, move |args| {
            l.limit_rate(args, limited).map(|()| String::new()).map_err(|e| e.to_string())
        });
    }
    let l = log.clone();
    commands.register("vlog/close", "", 0..=0, move |_| {
        l.close();
        Ok(String::new())
    });
    let l = log.clone();
    commands.register("vlog/set", "{spec | PATTERN:destination:pattern}", 0..=usize::MAX, move |args| {
        for a in args {
            l.set(a).map_err(|e| e.to_string())?;
        }
        Ok(String::new())
    });
    commands.register("vlog/reopen", "", 0..=0, move |_| {
        log.reopen().map(|()| String::new()).map_err(|e| e.to_string())
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::stop_channel;

    fn strings(a: &[&str]) -> Vec<String> {
        a.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn errors_are_in_open_vswitchs_words() {
        let c = Commands::new();
        c.register("echo", "TEXT", 1..=2, |a| Ok(a.join(" ")));
        assert_eq!(c.run("echo", &strings(&["a", "b"])).unwrap(), "a b");
        assert_eq!(
            c.run("ech", &[]).unwrap_err(),
            "\"ech\" is not a valid command (use \"list-commands\" to see a list of valid commands)"
        );
        assert_eq!(c.run("echo", &[]).unwrap_err(), "\"echo\" command requires at least 1 arguments");
        assert_eq!(
            c.run("echo", &strings(&["1", "2", "3"])).unwrap_err(),
            "\"echo\" command takes at most 2 arguments"
        );
    }

    #[test]
    fn commands_are_listed_sorted_with_usage() {
        let c = Commands::new();
        let (stop, stopped) = stop_channel();
        builtin(&c, "test 1", stop, None);
        assert_eq!(
            c.run("list-commands", &[]).unwrap(),
            "The available commands are:\n  coverage/read-counter   COUNTER\n  coverage/show           \n  exit                    [--cleanup]\n  \
             list-commands           \n  version                 \n"
        );
        assert_eq!(c.run("version", &[]).unwrap(), "test 1\n");
        assert_eq!(c.run("coverage/read-counter", &strings(&["nosuch"])).unwrap_err(), "No such counter");
        assert!(c.run("exit", &strings(&["--cleanup", "--more"])).is_err());
        assert!(!stopped.is_stopped());
        c.run("exit", &strings(&["--cleanup"])).unwrap();
        assert!(stopped.is_stopped());
    }

    #[test]
    fn a_withdrawn_command_is_unknown() {
        let c = Commands::new();
        c.register("x", "", 0..=0, |_| Ok(String::new()));
        c.unregister("x");
        assert!(c.run("x", &[]).is_err());
    }
}
