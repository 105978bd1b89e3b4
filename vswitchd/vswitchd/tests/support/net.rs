//! Network namespaces of a test's own: one with the switch, one for each host. Needs root.

use std::process::{Command, Output};

use super::require;

fn run(args: &[&str]) -> Output {
    Command::new("ip").args(args).output().unwrap()
}

/// `ip ...`, which must succeed; its output.
pub fn ip(args: &[&str]) -> String {
    let o = run(args);
    assert!(o.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&o.stderr));
    String::from_utf8_lossy(&o.stdout).into_owned()
}

/// Namespaces named after this process, removed at the end: 0 has the switch, the others a host each.
pub struct Net {
    pub names: Vec<String>,
}

impl Net {
    /// `None`, and a line that says so, where namespaces cannot be made.
    pub fn create(test: &str, hosts: usize) -> Option<Net> {
        for tool in ["ovs-vsctl", "ovs-ofctl", "ovs-appctl"] {
            require(tool);
        }
        let names: Vec<_> = (0..=hosts).map(|i| format!("hoist-{test}-{}-{i}", std::process::id())).collect();
        let o = run(&["netns", "add", &names[0]]);
        if !o.status.success() {
            println!(
                "SKIP {test}: network namespaces need root: {}",
                String::from_utf8_lossy(&o.stderr).trim()
            );
            return None;
        }
        let net = Net { names };
        ip(&["-n", &net.names[0], "link", "set", "lo", "up"]);
        net.names[1..].iter().for_each(|n| drop(ip(&["netns", "add", n])));
        Some(net)
    }

    /// The same, with every host connected.
    pub fn with_hosts(test: &str, hosts: usize) -> Option<Net> {
        let net = Net::create(test, hosts)?;
        (1..=hosts).for_each(|n| net.host(n));
        Some(net)
    }

    /// A veth pair: `wN` in the switch's namespace, `eth0` with address 10.99.0.N in that of host `n`.
    pub fn host(&self, n: usize) {
        let (sw, ns, wire) = (&self.names[0], &self.names[n], format!("w{n}"));
        ip(&["-n", sw, "link", "add", "name", &wire, "type", "veth", "peer", "name", "eth0", "netns", ns]);
        ip(&["-n", ns, "addr", "add", &format!("10.99.0.{n}/24"), "dev", "eth0"]);
        ip(&["-n", ns, "link", "set", "eth0", "up"]);
    }

    /// `ip ...` in the switch's namespace.
    pub fn ip(&self, args: &[&str]) -> String {
        ip(&[&["-n", &self.names[0]], args].concat())
    }

    /// Runs a program in namespace `n` and gives its output.
    pub fn inside(&self, n: usize, args: &[&str]) -> Output {
        Command::new("ip").args(["netns", "exec", &self.names[n]]).args(args).output().unwrap()
    }

    pub fn ping(&self, from: usize, to: &str) -> bool {
        self.inside(from, &["ping", "-n", "-q", "-c", "1", "-W", "1", to]).status.success()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for n in &self.names {
            let _ = run(&["netns", "del", n]);
        }
    }
}
