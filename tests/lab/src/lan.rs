//! Network namespaces for hosts and switch, joined by veth pairs.
//!
//! ```text
//!   ns NAME-h1        ns NAME-h2        ...           10.77.0.1, 10.77.0.2, ...
//!     eth0              eth0
//!   ───┼─────────────────┼──── veth
//!     w1                w2              ...           ns NAME-sw
//! ```

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::command::{done, inside, ip};

/// Hosts around a switch. Its namespaces are removed when it is dropped.
pub struct Lan {
    name: String,
    hosts: u8,
    remove: bool,
}

/// A name that no other process and no other caller in this one has: `NAME-<process>-<number>`.
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Address of host `n`, from 1.
pub fn address(n: u8) -> String {
    format!("10.77.0.{n}")
}

/// Ethernet address of host `n`, from 1.
pub fn mac(n: u8) -> String {
    format!("02:00:00:77:00:{n:02x}")
}

/// The switch's end of the cable to host `n`, an interface in the switch's namespace.
pub fn wire(n: u8) -> String {
    format!("w{n}")
}

/// Whether namespaces and veth pairs can be made.
///
/// # Errors
/// Why not.
pub fn possible() -> Result<()> {
    let probe = unique("hoist-probe");
    ip(&["netns", "add", &probe])?;
    let made = ip(&["-n", &probe, "link", "add", "name", "probe0", "type", "veth", "peer", "name", "probe1"]);
    let _ = ip(&["netns", "del", &probe]);
    made
}

impl Lan {
    /// Makes namespaces called `NAME-h1`, `NAME-h2`, ... and `NAME-sw`. Those of the same names are removed first: they are
    /// left over.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn create(name: &str, hosts: u8) -> Result<Lan> {
        let lan = Lan { name: name.to_owned(), hosts, remove: true };
        for ns in lan.namespaces() {
            let _ = ip(&["netns", "del", &ns]);
        }
        for ns in lan.namespaces() {
            ip(&["netns", "add", &ns])?;
            // IPv6's own chatter would be traffic that nobody asked for.
            let quiet = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; \
                         echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6";
            let _ = done(inside(&ns, "sh").args(["-c", quiet]));
            ip(&["-n", &ns, "link", "set", "lo", "up"])?;
        }
        let switch = lan.switch();
        for n in 1..=hosts {
            let (ns, wire) = (lan.host(n), wire(n));
            ip(&[
                "-n", &switch, "link", "add", "name", &wire, "type", "veth", "peer", "name", "eth0", "netns",
                &ns,
            ])?;
            ip(&["-n", &ns, "link", "set", "eth0", "address", &mac(n)])?;
            ip(&["-n", &ns, "addr", "add", &format!("{}/24", address(n)), "dev", "eth0"])?;
            // A cable carries whole frames with their checksums: nothing may be left for a NIC to finish.
            let off = ["-K", "eth0", "tx", "off", "tso", "off", "gso", "off", "gro", "off"];
            done(inside(&ns, "ethtool").args(off))?;
            ip(&["-n", &switch, "link", "set", &wire, "up"])?;
            ip(&["-n", &ns, "link", "set", "eth0", "up"])?;
        }
        Ok(lan)
    }

    /// Namespace of host `n`, from 1.
    pub fn host(&self, n: u8) -> String {
        format!("{}-h{n}", self.name)
    }

    /// Namespace of the switch.
    pub fn switch(&self) -> String {
        format!("{}-sw", self.name)
    }

    /// How many hosts there are.
    pub fn hosts(&self) -> u8 {
        self.hosts
    }

    fn namespaces(&self) -> Vec<String> {
        (1..=self.hosts).map(|n| self.host(n)).chain([self.switch()]).collect()
    }

    /// Host `from` pings host `to` `count` times, one each `interval`; how many answers came within two seconds.
    ///
    /// # Errors
    /// When ping does not run.
    pub fn ping(&self, from: u8, to: u8, count: u32, interval: Duration) -> Result<u32> {
        self.ping_address(from, &address(to), count, interval)
    }

    /// The same to any address.
    ///
    /// # Errors
    /// When ping does not run, or has no route.
    pub fn ping_address(&self, from: u8, to: &str, count: u32, interval: Duration) -> Result<u32> {
        let o = inside(&self.host(from), "ping")
            .args(["-n", "-q", "-W", "2", "-c", &count.to_string()])
            .args(["-i", &interval.as_secs_f64().to_string(), to])
            .output()
            .context("cannot start ping")?;
        let text = String::from_utf8_lossy(&o.stdout);
        // "5 packets transmitted, 5 received, 0% packet loss, time 4005ms"
        let received =
            text.split(", ").find_map(|p| p.strip_suffix(" received")).and_then(|n| n.parse().ok());
        received.with_context(|| {
            format!("ping says nothing about packets: {text}{}", String::from_utf8_lossy(&o.stderr))
        })
    }

    /// Gives host `n` `address` (with its prefix length) in place of its own, and `gateway` as the way to everywhere else.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn set_address(&self, n: u8, address: &str, gateway: &str) -> Result<()> {
        let ns = self.host(n);
        ip(&["-n", &ns, "addr", "flush", "dev", "eth0"])?;
        ip(&["-n", &ns, "addr", "add", address, "dev", "eth0"])?;
        ip(&["-n", &ns, "route", "add", "default", "via", gateway])
    }

    /// Plugs the cable of host `n` in or out, at the host's end; the carrier at the switch's end follows.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn set_link(&self, n: u8, up: bool) -> Result<()> {
        ip(&["-n", &self.host(n), "link", "set", "eth0", if up { "up" } else { "down" }])
    }

    /// Makes address resolution of every host permanent, so that no ARP adds to what is counted later.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn fix_neighbours(&self) -> Result<()> {
        for n in 1..=self.hosts {
            for to in (1..=self.hosts).filter(|to| *to != n) {
                let (ns, address, mac) = (self.host(n), address(to), mac(to));
                let entry = ["neigh", "replace", &address, "lladdr", &mac, "dev", "eth0", "nud", "permanent"];
                done(Command::new("ip").args(["-n", &ns]).args(entry))?;
            }
        }
        Ok(())
    }

    /// Lets the namespaces stay.
    pub fn leave(mut self) {
        self.remove = false;
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        if self.remove {
            for ns in self.namespaces() {
                let _ = ip(&["netns", "del", &ns]);
            }
        }
    }
}
