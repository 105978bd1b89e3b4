//! Four hosts in memory behind the simulated NIC of a switch that runs in this process.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use daemon::report::{Flow, WhyReport};
use vswitchd::{Config, Switch, SwitchOptions};

use crate::host::Host;

/// Hosts, and ports of the NIC.
pub const HOSTS: u8 = 4;
/// How long anything may take.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The flows of the demonstration: ARP is flooded, IPv4 routed to the host's port by a second table; pings from host 1 to
/// host 4 go to the controller as well, which only software can do; whatever else comes from host 3 goes to host 4.
pub const FLOWS: &[&str] = &[
    "table=0,priority=100,arp,actions=FLOOD",
    "table=0,priority=50,ip,actions=goto_table:1",
    "table=1,priority=10,ip,nw_dst=10.77.0.1,actions=output:1",
    "table=1,priority=10,ip,nw_dst=10.77.0.2,actions=output:2",
    "table=1,priority=10,ip,nw_dst=10.77.0.3,actions=output:3",
    "table=1,priority=10,ip,nw_dst=10.77.0.4,actions=output:4",
    "table=1,cookie=0xbad,priority=20,icmp,nw_src=10.77.0.1,nw_dst=10.77.0.4,actions=controller,output:4",
    "table=0,priority=1,in_port=3,actions=output:4",
    "table=1,priority=1,in_port=3,actions=output:4",
];

/// See the module's text.
pub struct Lan {
    /// The hosts; host `n` of the demonstration is element `n - 1`.
    pub hosts: Vec<Host>,
    /// The switch.
    pub switch: Switch,
}

/// Address of host `n`, from 1.
pub fn address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, n)
}

/// Packets of some flow records, by who forwarded them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Share {
    /// Flow records.
    pub flows: usize,
    /// Of these, in hardware.
    pub in_hardware: usize,
    /// Packets.
    pub packets: u64,
    /// Of these, forwarded by hardware.
    pub hardware: u64,
}

/// Calls `f` until it gives something; `None` after [`DEADLINE`].
pub fn eventually<T>(mut f: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(v) = f() {
            return Some(v);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

impl Lan {
    /// Starts the switch in `run_dir`, with `more` added to its configuration, and the hosts.
    ///
    /// # Errors
    /// What keeps either from starting.
    pub fn start(run_dir: &Path, more: &str) -> Result<Lan> {
        let wires = vec!["\"memory\""; HOSTS.into()].join(", ");
        let mut text = format!(
            "{more}\n[[device]]\nname = \"sim0\"\ntype = \"sim\"\nwires = [{wires}]\n\
             [[bridge]]\nname = \"br0\"\ndatapath_id = \"77\"\n"
        );
        for n in 1..=HOSTS {
            let port = n - 1;
            text.push_str(&format!(
                "[[bridge.port]]\nname = \"p{n}\"\nofport = {n}\ntype = \"sim\"\ndevice = \"sim0\"\nport = {port}\n"
            ));
        }
        let mut config = Config::parse(&text, &run_dir.join("lan.toml"))?;
        config.daemon.run_dir = Some(run_dir.to_owned());
        let mut switch = Switch::start(config, SwitchOptions::default())?;
        let mut hosts = Vec::new();
        for n in 1..=HOSTS {
            let end = switch.take_memory_port(&format!("sim0:{}", n - 1)).context("a wire is missing")?;
            hosts.push(Host::start(n, address(n), end)?);
        }
        Ok(Lan { hosts, switch })
    }

    /// Runs stock `ovs-ofctl -O OpenFlow13` against the bridge and gives its output.
    ///
    /// # Errors
    /// That it cannot be started, or what it said when it failed.
    pub fn ofctl(&self, args: &[&str]) -> Result<String> {
        let o = Command::new("ovs-ofctl")
            .args(["-O", "OpenFlow13"])
            .args(args)
            .env("OVS_RUNDIR", self.switch.run_dir())
            .output()
            .context("cannot start ovs-ofctl (cargo xtask setup installs it)")?;
        if !o.status.success() {
            bail!("ovs-ofctl {args:?}: {}: {}", o.status, String::from_utf8_lossy(&o.stderr));
        }
        Ok(String::from_utf8_lossy(&o.stdout).into_owned())
    }

    /// Loads flows.
    ///
    /// # Errors
    /// As [`Lan::ofctl`].
    pub fn add_flows(&self, flows: &[&str]) -> Result<()> {
        let file = self.switch.run_dir().join("flows.txt");
        std::fs::write(&file, flows.join("\n"))?;
        self.ofctl(&["add-flows", "br0", file.to_str().context("path is not UTF-8")?]).map(drop)
    }

    /// Runs a unixctl command.
    ///
    /// # Errors
    /// The command's words.
    pub fn command(&self, name: &str, args: &[&str]) -> Result<String> {
        let args: Vec<_> = args.iter().map(|a| (*a).to_owned()).collect();
        self.switch.commands().run(name, &args).map_err(anyhow::Error::msg)
    }

    /// Flow records that packets like these use.
    ///
    /// # Errors
    /// A malformed filter.
    pub fn flows(&self, filter: &str) -> Result<Vec<Flow>> {
        Ok(serde_json::from_str(&self.command("hoist/flows", &[filter])?)?)
    }

    /// Why they are not in hardware.
    ///
    /// # Errors
    /// A malformed filter.
    pub fn why(&self, filter: &str) -> Result<WhyReport> {
        Ok(serde_json::from_str(&self.command("hoist/why", &[filter])?)?)
    }

    /// Who forwarded the packets of these flows.
    ///
    /// # Errors
    /// A malformed filter.
    pub fn share(&self, filter: &str) -> Result<Share> {
        let mut s = Share::default();
        for f in self.flows(filter)? {
            s.flows += 1;
            s.in_hardware += usize::from(f.placement == "hardware");
            s.packets += f.packets;
            s.hardware += f.hardware_packets;
        }
        Ok(s)
    }
}
