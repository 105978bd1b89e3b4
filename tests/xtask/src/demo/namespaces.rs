//! Network namespaces for the hosts and the switch, joined by veth pairs.

use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Hosts of the demo.
pub const HOSTS: u8 = 4;
/// Namespace of the switch: the NIC's wires end there.
pub const SWITCH: &str = "hoist-sw";

/// The namespaces. Removed when dropped.
pub struct Namespaces {
    remove: bool,
}

/// Namespace of host `n`, from 1.
pub fn host(n: u8) -> String {
    format!("hoist-h{n}")
}

/// Address of host `n`, from 1.
pub fn address(n: u8) -> String {
    format!("10.77.0.{n}")
}

/// A command that runs `program` in namespace `ns`.
pub fn inside(ns: &str, program: &str) -> Command {
    let mut c = Command::new("ip");
    c.args(["netns", "exec", ns, program]).stdin(Stdio::null());
    c
}

/// Runs a command to its end and gives its output; its failure is an error that shows what it said.
pub fn done(c: &mut Command) -> Result<Output> {
    let what = || {
        let args: Vec<_> = c.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        format!("{} {}", c.get_program().to_string_lossy(), args.join(" "))
    };
    let name = what();
    let o = c.stdin(Stdio::null()).output().with_context(|| format!("cannot start {name}"))?;
    if !o.status.success() {
        let said = [&o.stdout[..], &o.stderr[..]].concat();
        bail!("{name}: {}: {}", o.status, String::from_utf8_lossy(&said).trim());
    }
    Ok(o)
}

fn ip(args: &[&str]) -> Result<()> {
    done(Command::new("ip").args(args)).map(drop)
}

fn all() -> impl Iterator<Item = String> {
    (1..=HOSTS).map(host).chain([SWITCH.to_owned()])
}

/// Whether namespaces and veth pairs can be made.
///
/// # Errors
/// Why not.
pub fn possible() -> Result<()> {
    let probe = "hoist-probe";
    ip(&["netns", "add", probe])?;
    let made = ip(&["-n", probe, "link", "add", "name", "probe0", "type", "veth", "peer", "name", "probe1"]);
    let _ = ip(&["netns", "del", probe]);
    made
}

impl Namespaces {
    /// Makes them anew; leftovers of an earlier demo are removed first.
    pub fn create() -> Result<Namespaces> {
        for ns in all() {
            let _ = ip(&["netns", "del", &ns]);
        }
        let made = Namespaces { remove: true };
        for ns in all() {
            ip(&["netns", "add", &ns])?;
            // IPv6's own chatter would be traffic that nobody asked for.
            let quiet = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; \
                         echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6";
            let _ = done(inside(&ns, "sh").args(["-c", quiet]));
            ip(&["-n", &ns, "link", "set", "lo", "up"])?;
        }
        for n in 1..=HOSTS {
            let (ns, wire, mac) = (host(n), format!("w{n}"), format!("02:00:00:77:00:{n:02x}"));
            ip(&[
                "-n", SWITCH, "link", "add", "name", &wire, "type", "veth", "peer", "name", "eth0", "netns",
                &ns,
            ])?;
            ip(&["-n", &ns, "link", "set", "eth0", "address", &mac])?;
            ip(&["-n", &ns, "addr", "add", &format!("{}/24", address(n)), "dev", "eth0"])?;
            // A cable carries whole frames with their checksums: nothing may be left for a NIC to finish.
            done(
                inside(&ns, "ethtool")
                    .args(["-K", "eth0", "tx", "off", "tso", "off", "gso", "off", "gro", "off"]),
            )?;
            ip(&["-n", SWITCH, "link", "set", &wire, "up"])?;
            ip(&["-n", &ns, "link", "set", "eth0", "up"])?;
        }
        Ok(made)
    }

    /// Removes them.
    pub fn remove(self) {}

    /// Lets them stay.
    pub fn leave(mut self) {
        self.remove = false;
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        if self.remove {
            for ns in all() {
                let _ = ip(&["netns", "del", &ns]);
            }
        }
    }
}
