//! `dpctl/dump-flows`: flow records as Open vSwitch prints them.

use std::fmt::Write;

use datapath::Ufid;
use datapath_api::FlowRecord;
use flow::PipelineMatch;
use flow::text::odp::{Context, format_actions, format_flow};
use flow::text::ofctl;
use offload::Status;
use ofproto::FlowOwner;

use super::Parts;
use super::flows::overlaps;

/// Which flow records, and how.
#[derive(Clone, Debug, Default)]
pub struct DumpOptions {
    /// Port names in place of numbers.
    pub names: bool,
    /// Where each flow is, even if that is software.
    pub more: bool,
    /// Only those in hardware (`Some(true)`), or only the others.
    pub offloaded: Option<bool>,
    /// Only those that packets like these may use.
    pub filter: Option<PipelineMatch>,
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
                "type=offloaded" | "type=dpdk,offloaded" | "type=tc,offloaded" => o.offloaded = Some(true),
                "type=non-offloaded" | "type=ovs" => o.offloaded = Some(false),
                "type=all" => o.offloaded = None,
                filter if filter.starts_with("filter=") => {
                    let text = &filter["filter=".len()..];
                    o.filter = Some(ofctl::parse(text).map_err(|e| format!("Failed to parse filter ({e})"))?);
                }
                flag if flag.starts_with("pmd=") => {}
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
    /// The lines of `dpctl/dump-flows` and `dpif/dump-flows`, of one bridge or of all.
    pub fn dump_flows(&self, o: &DumpOptions, bridge: Option<u32>) -> String {
        let mut out = String::new();
        for r in self.layer.records() {
            let of = FlowOwner::of(&r).and_then(|o| o.basis().bridge);
            if bridge.is_some_and(|b| of != Some(b))
                || o.filter.as_ref().is_some_and(|f| !overlaps(&r.matches, f))
            {
                continue;
            }
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

    /// One record.
    pub fn dump_line(&self, r: &FlowRecord, device: Option<&str>, o: &DumpOptions) -> String {
        let name = |dp: u32| if o.names { self.port_name(dp) } else { None };
        let soft = r.counters.read();
        let owner = FlowOwner::of(r);
        let (packets, bytes) = owner.map(FlowOwner::hardware_totals).unwrap_or_default();
        let (mut packets, mut bytes) = (packets + soft.packets, bytes + soft.bytes);
        if let Some(m) = owner.and_then(FlowOwner::packet) {
            (packets, bytes) = (packets.saturating_sub(1), bytes.saturating_sub(m.bytes.into()));
        }
        let unused = packets == 0;
        // As Open vSwitch has it: with the bits of the packet that it was made for.
        let made_for = owner.and_then(FlowOwner::packet);
        let key = made_for.map_or_else(|| r.matches.key(), |m| &m.key);
        let mut line = if o.more { format!("{}, ", Ufid(r.id)) } else { String::new() };
        line.push_str(&format_flow(key, r.matches.mask(), &name));
        let _ = write!(line, ", packets:{packets}, bytes:{bytes}, used:");
        match owner.and_then(FlowOwner::used).max(soft.used).filter(|_| !unused) {
            None => line.push_str("never"),
            Some(used) => {
                let ms = self.clock.now().since(used).as_millis();
                let _ = write!(line, "{}.{:03}s", ms / 1000, ms % 1000);
            }
        }
        if soft.tcp_flags != 0 && !unused {
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
        let _ = write!(line, ", actions:{}", format_actions(&r.actions, Context::of(key), &name));
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
