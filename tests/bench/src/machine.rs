//! The machine that the figures are of.

use std::fmt;
use std::fs::read_to_string;

use serde::Serialize;

use crate::cycles::counter_hz;

/// What a reader has to know about the machine. What cannot be found out is "unknown" or zero.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Machine {
    /// Processor, as it calls itself.
    pub cpu: String,
    /// Processors that may be used.
    pub processors: usize,
    /// Rate of the time-stamp counter: what a cycle is.
    pub counter_hz: f64,
    /// Operating system and architecture.
    pub system: String,
    /// Processes that wanted to run in the last minute, on average: above the number of processors, figures of host time
    /// are of a machine that was doing something else too.
    pub load: f64,
    /// Whether the program was built optimised.
    pub optimised: bool,
}

impl Machine {
    /// This machine, now.
    pub fn here() -> Self {
        let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let release = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let load = read_to_string("/proc/loadavg").unwrap_or_default();
        Machine {
            cpu: cpu_model(&info).unwrap_or("unknown").to_owned(),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            counter_hz: counter_hz(),
            system: format!("{} {} {}", std::env::consts::OS, release.trim(), std::env::consts::ARCH),
            load: load.split(' ').next().and_then(|l| l.parse().ok()).unwrap_or(0.0),
            optimised: !cfg!(debug_assertions),
        }
    }
}

/// The first model name in the text of `/proc/cpuinfo`.
fn cpu_model(info: &str) -> Option<&str> {
    let line = info.lines().find(|l| l.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim())
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "machine: {}, {} processors, time-stamp counter {:.0} MHz, {}, load {:.1}",
            self.cpu,
            self.processors,
            self.counter_hz / 1e6,
            self.system,
            self.load
        )?;
        if !self.optimised {
            writeln!(f, "NOT OPTIMISED: this build's figures say nothing about speed")?;
        }
        if self.load > self.processors as f64 {
            writeln!(f, "the machine is busy with something else: expect wide ranges")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named() {
        let info = "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nflags\t: x\n";
        assert_eq!(cpu_model(info), Some("Some CPU @ 2.00GHz"));
        assert_eq!(cpu_model("processor : 0\n"), None);
        let m = Machine::here();
        assert!(m.processors > 0 && m.counter_hz > 1e6);
        assert!(m.to_string().contains(&m.cpu));
    }
}
