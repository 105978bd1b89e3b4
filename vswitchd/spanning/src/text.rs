//! Trees as people read them: the texts of `stp/show` and `rstp/show` of Open vSwitch 3.1, which differ in widths.

use std::fmt::Write;

use crate::bpdu::BridgeId;

/// A bridge's name, and its hello time, greatest age and forward delay in milliseconds.
pub(crate) type Shown = (BridgeId, [u32; 3]);

/// A port as it is shown.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) role: &'static str,
    pub(crate) state: &'static str,
    pub(crate) path_cost: u32,
    pub(crate) priority: u8,
    pub(crate) number: u8,
}

/// A tree as it is shown.
pub(crate) struct Tree<'a> {
    pub(crate) rapid: bool,
    pub(crate) bridge: &'a str,
    pub(crate) root: Shown,
    /// The port that leads there, and what that costs; `None` of the root itself.
    pub(crate) way: Option<(String, u32)>,
    pub(crate) own: Shown,
    pub(crate) ports: Vec<Row>,
}

impl Tree<'_> {
    pub(crate) fn text(&self) -> String {
        let mut out = format!("---- {} ----\nRoot ID:\n", self.bridge);
        self.write_bridge(&self.root, &mut out);
        match &self.way {
            None => out.push_str("  This bridge is the root\n"),
            Some((port, cost)) => {
                let _ = writeln!(out, "  root-port       {port}\n  root-path-cost  {cost}");
            }
        }
        out.push_str("\nBridge ID:\n");
        self.write_bridge(&self.own, &mut out);
        let cost = if self.rapid { 8 } else { 5 };
        let line = "-".repeat(cost);
        let _ = writeln!(out, "\n  Interface  Role       State      {:<cost$} Pri.Nbr ", "Cost");
        let _ = writeln!(out, "  ---------- ---------- ---------- {line} -------");
        for p in &self.ports {
            let Row { name, role, state, path_cost, priority, number } = p;
            let _ =
                writeln!(out, "  {name:<10} {role:<10} {state:<10} {path_cost:<cost$} {priority}.{number}");
        }
        out + "\n"
    }

    fn write_bridge(&self, (id, times): &Shown, out: &mut String) {
        let mac = id.mac().map(|b| format!("{b:02x}")).join(":");
        let [hello, max_age, delay] = times.map(|ms| ms / 1000);
        let gap = if self.rapid { "    " } else { "  " };
        let _ = writeln!(out, "  stp-priority{gap}{}\n  stp-system-id   {mac}", id.priority());
        let _ = writeln!(out, "  stp-hello-time  {hello}s");
        let _ = writeln!(out, "  stp-max-age     {max_age}s");
        let _ = writeln!(out, "  stp-fwd-delay   {delay}s");
    }
}
