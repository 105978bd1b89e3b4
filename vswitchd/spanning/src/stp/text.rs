//! A tree as people read it: the text of `stp/show`.

use std::fmt::Write;

use super::{State, Stp};
use crate::bpdu::BridgeId;

fn bridge(out: &mut String, id: BridgeId, hello_ms: u32, max_age_ms: u32, forward_delay_ms: u32) {
    let mac = id.mac().map(|b| format!("{b:02x}")).join(":");
    let _ = writeln!(out, "  stp-priority  {}\n  stp-system-id   {mac}", id.priority());
    let seconds = |ms: u32| ms / 1000;
    let _ = writeln!(
        out,
        "  stp-hello-time  {}s\n  stp-max-age     {}s\n  stp-fwd-delay   {}s",
        seconds(hello_ms),
        seconds(max_age_ms),
        seconds(forward_delay_ms)
    );
}

impl Stp {
    /// The lines of `stp/show`. Ports are called as `port` says; those without a part in the tree are left out.
    pub fn text(&self, port: &dyn Fn(u8) -> String) -> String {
        let mut out = format!("---- {} ----\nRoot ID:\n", self.name);
        let (t, own) = (self.times, self.own);
        bridge(&mut out, self.root, t.hello_ms, t.max_age_ms, t.forward_delay_ms);
        match self.root_port {
            _ if self.is_root() => out.push_str("  This bridge is the root\n"),
            Some(n) => {
                let _ = writeln!(out, "  root-port       {}", port(n));
                let _ = writeln!(out, "  root-path-cost  {}", self.root_path_cost);
            }
            None => {}
        }
        out.push_str("\nBridge ID:\n");
        bridge(&mut out, own.id, own.hello_ms, own.max_age_ms, own.forward_delay_ms);
        out.push_str("\n  Interface  Role       State      Cost  Pri.Nbr \n");
        out.push_str("  ---------- ---------- ---------- ----- -------\n");
        for (n, p) in self.ports.iter().filter(|(_, p)| p.state != State::Disabled) {
            let _ = writeln!(
                out,
                "  {:<10} {:<10} {:<10} {:<5} {}.{n}",
                port(*n),
                self.role(*n).name(),
                p.state.name(),
                p.settings.path_cost,
                p.settings.priority
            );
        }
        out + "\n"
    }
}
