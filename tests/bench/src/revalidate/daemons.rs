//! Our daemon and Debian's in turn: the same rules, the same packets by `netdev-dummy/receive`, then `ovs-ofctl mod-flows` and
//! `revalidator/wait`. The figure is what the kernel accounts to the daemon's threads, divided by datapath flows, from before
//! the tool starts until every flow follows, which is looked at. What was asked of the one was asked of the other.

use std::path::Path;
use std::time::{Duration, Instant};

use lab::OvsSwitch;
use lab::ovs::STOCK_SWITCH;
use lab::process;
use lab::rpc::Rpc;
use serde_json::Value;

use super::{LAST, frame, pipeline_text};
use crate::contender::{Contender, Values, contenders, figures, in_scratch};
use crate::figure::{Figure, Unit, counted};
use crate::part::BenchError;
use crate::target::Target;

/// How often each is measured.
const REPEATS: usize = 5;
/// Packets in one command: a port's queue holds a hundred, and is read one by one.
const AT_ONCE: u32 = 10;
/// How long packets may take to become flows, of the host's time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon with datapath flows.
struct Daemon {
    switch: OvsSwitch,
    control: Rpc,
    flows: u32,
}

impl Daemon {
    fn start(c: &Contender, dir: &Path, flows: u32) -> Result<Daemon, BenchError> {
        let switch = OvsSwitch::start(&c.program, dir, ovsdb::vswitch::SCHEMA_TEXT)?;
        // Flows stay, whatever else the machine does.
        switch.vsctl(&["set", "Open_vSwitch", ".", "other_config:max-idle=3600000"])?;
        for n in ["1", "2", "3"] {
            let (port, request) = (format!("p{n}"), format!("ofport_request={n}"));
            let set = ["--", "set", "Interface", &port, "type=dummy", &request];
            switch.vsctl(&[&["add-port", "br0", &port][..], &set].concat())?;
        }
        let file = dir.join("flows");
        std::fs::write(&file, pipeline_text(flows))?;
        switch.ofctl(&["-O", "OpenFlow14", "--bundle", "add-flows", "br0", &file.to_string_lossy()])?;
        let control = Rpc::connect(&switch.control())?;
        let mut d = Daemon { switch, control, flows };
        d.fill()?;
        Ok(d)
    }

    fn command(&mut self, method: &str, params: Vec<Value>) -> Result<String, BenchError> {
        let said = self.control.call(method, Value::Array(params))?;
        Ok(said.as_str().unwrap_or_default().to_owned())
    }

    /// How many flows output to datapath port `to`.
    fn flows_to(&mut self, to: u32) -> Result<usize, BenchError> {
        let end = format!("actions:{to}");
        Ok(self
            .command("dpctl/dump-flows", Vec::new())?
            .lines()
            .filter(|l| l.trim_end().ends_with(&end))
            .count())
    }

    /// Has a packet of every flow received; again those that a full queue has dropped.
    fn fill(&mut self) -> Result<(), BenchError> {
        let began = Instant::now();
        let all: Vec<u32> = (0..self.flows).collect();
        while self.flows_to(2)? < self.flows as usize {
            if began.elapsed() > PATIENCE {
                return Err(BenchError::NoHit);
            }
            for some in all.chunks(AT_ONCE as usize) {
                let hex = |i: &u32| frame(*i).iter().map(|b| format!("{b:02x}")).collect::<String>();
                let params = std::iter::once("p1".to_owned()).chain(some.iter().map(hex)).map(Value::from);
                self.command("netdev-dummy/receive", params.collect())?;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// Microseconds of the daemon's processor time per flow, in which `f` has it do something.
    fn cost(&mut self, f: impl FnOnce(&mut Daemon) -> Result<(), BenchError>) -> Result<f64, BenchError> {
        let before = process::cpu(self.switch.pid())?;
        f(self)?;
        // A thread that has ended meanwhile, as some do while ports come, takes its time with it.
        let spent = process::cpu(self.switch.pid())?.saturating_sub(before);
        Ok(spent.as_secs_f64() * 1e6 / f64::from(self.flows))
    }

    fn wait(&mut self) -> Result<(), BenchError> {
        self.command("revalidator/wait", Vec::new()).map(drop)
    }

    /// Has every flow output to `to`.
    fn turn(&mut self, to: u32) -> Result<(), BenchError> {
        let rule = format!("table={LAST},ip,actions=output:{to}");
        self.switch.ofctl(&["-O", "OpenFlow14", "mod-flows", "br0", &rule])?;
        self.wait()
    }
}

/// Measures with `n` flows each.
///
/// # Errors
/// When a daemon cannot be started, or does not do what it is asked.
pub(super) fn run(n: u32) -> Result<Vec<Figure>, BenchError> {
    measure(&contenders("revalidate", ("vswitchd", "vswitchd"), STOCK_SWITCH)?, n)
}

fn measure(all: &[Contender], n: u32) -> Result<Vec<Figure>, BenchError> {
    in_scratch(|dir| {
        let start = |c: &Contender| Daemon::start(c, &dir.join(c.name.replace(' ', "-")), n);
        let mut daemons = all.iter().map(start).collect::<Result<Vec<_>, _>>()?;
        let (mut idle, mut turned): (Values, Values) =
            (vec![Vec::new(); all.len()], vec![Vec::new(); all.len()]);
        for repeat in 0..REPEATS {
            for (i, d) in daemons.iter_mut().enumerate() {
                idle[i].push(d.cost(Daemon::wait)?);
                let to = if repeat % 2 == 0 { 3 } else { 2 };
                turned[i].push(d.cost(|d| d.turn(to))?);
                let follow = d.flows_to(to)?;
                if follow != n as usize {
                    return Err(anyhow::anyhow!("{}: {follow} of {n} flows follow", all[i].name).into());
                }
            }
        }
        let what = |w: &str| format!("daemon, {}, {w}", counted(n, "flow"));
        let unit = Unit::MicrosPerFlow;
        let mut out = figures(all, &what("nothing changed"), unit, &idle, None);
        out.extend(figures(all, &what("new actions"), unit, &turned, Some(Target::RevalidationCpu)));
        Ok(out)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contender::stock_twice;

    #[test]
    fn both_are_asked_the_same_and_follow() {
        let Some(both) = stock_twice(STOCK_SWITCH) else { return };
        let figures = measure(&both, 50).unwrap();
        assert_eq!(figures.len(), 6);
        assert!(figures.iter().any(|f| f.target == Some(Target::RevalidationCpu)));
    }
}
