//! `dpctl/dump-flows`: flow records as Open vSwitch prints them.

use std::fmt::Write;

use datapath_api::FlowRecord;
use flow::text::odp::{Context, format_actions, format_match};
use offload::Status;
use ofproto::FlowOwner;

use super::Parts;

/// Which flow records, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct DumpOptions {
    /// Port names in place of numbers.
    pub names: bool,
    /// Where each flow is, even if that is software.
    pub more: bool,
    /// Only those in hardware (`Some(true)`), or only the others.
    pub offloaded: Option<bool>,
}

impl DumpOptions {
    /// Takes arguments: `--names`, `--no-names`, `-m`, `type=...`, and the datapath's name, which is ignored: there is one.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(args: &[String]) -> Result<DumpOptions, String> {
        let mut o = DumpOptions::default();
        for a in args {
            match a.as_str() {
                "--names" => o.names = true,
                "--no-names" => o.names = false,
                "-m" | "--more" => o.more = true,
                "type=offloaded" => o.offloaded = Some(true),
                "type=non-offloaded" | "type=ovs" => o.offloaded = Some(false),
                "type=all" => o.offloaded = None,
                flag if flag.starts_with('-') || flag.contains('=') => {
                    return Err(format!("unknown option \"{flag}\""));
                }
                _ => {}
            }
        }
        Ok(o)
    }
}

impl Parts {
    /// The text of `dpctl/dump-flows`.
    pub fn dump_flows(&self, o: DumpOptions) -> String {
        let mut out = String::new();
        for r in self.layer.records() {
            let device = match self.hoisting.status(&r) {
                Status::Hardware { device, .. } => Some(self.hoisting.placing().name(device)),
                _ => None,
            };
            if o.offloaded.is_none_or(|want| want == device.is_some()) {
                let _ = writeln!(out, "{}", self.dump_line(&r, device.as_deref(), o));
            }
        }
        out
    }

    fn dump_line(&self, r: &FlowRecord, device: Option<&str>, o: DumpOptions) -> String {
        let name = |dp: u32| if o.names { self.port_name(dp) } else { None };
        let soft = r.counters.read();
        let owner = FlowOwner::of(r);
        let (packets, bytes) = owner.map(FlowOwner::hardware_totals).unwrap_or_default();
        let mut line = format_match(&r.matches, &name);
        let _ = write!(line, ", packets:{}, bytes:{}, used:", soft.packets + packets, soft.bytes + bytes);
        match owner.and_then(FlowOwner::used).max(soft.used) {
            None => line.push_str("never"),
            Some(used) => {
                let ms = self.clock.now().since(used).as_millis();
                let _ = write!(line, "{}.{:03}s", ms / 1000, ms % 1000);
            }
        }
        if soft.tcp_flags != 0 {
            line.push_str(", flags:");
            line.push_str(&tcp_flags(soft.tcp_flags));
        }
        match device {
            Some(d) => {
                let _ = write!(line, ", offloaded:yes, dp:{d}");
            }
            None if o.more => line.push_str(", dp:ovs"),
            None => {}
        }
        let _ = write!(line, ", actions:{}", format_actions(&r.actions, Context::of(r.matches.key()), &name));
        line
    }
}

/// `SFPR.`: letters as Open vSwitch and tcpdump write them.
fn tcp_flags(flags: u16) -> String {
    let letters = [
        (0x02, 'S'),
        (0x01, 'F'),
        (0x08, 'P'),
        (0x04, 'R'),
        (0x20, 'U'),
        (0x10, '.'),
        (0x40, 'E'),
        (0x80, 'C'),
    ];
    letters.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, c)| c).collect()
}
