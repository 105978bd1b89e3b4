//! `dpctl/dump-flows`: flow records as Open vSwitch prints them.

use std::fmt::Write;

use datapath::Ufid;
use datapath_api::FlowRecord;
use flow::PipelineMatch;
use flow::text::ofctl;
use offload::Status;
use ofproto::FlowOwner;
use ofproto::dump::{format_record, format_record_actions};

use super::Parts;
use super::flows::overlaps;

/// Which flow records, and how.
#[derive(Clone, Debug, Default)]
pub struct DumpOptions {
    /// Port names in place of numbers.
    pub names: bool,
    /// Names of flows, and bits that do not matter.
    pub more: bool,
    /// With `more`, where each flow is, even if that is software.
    pub placement: bool,
    /// Only those in hardware (`Some(true)`), or only the others.
    pub offloaded: Option<bool>,
    /// Only those of the kernel's datapath (`Some(true)`), or only those of the switch's own.
    pub kernels: Option<bool>,
    /// Only those that packets like these may use.
    pub filter: Option<PipelineMatch>,
}

impl DumpOptions {
    /// Takes arguments: `--names`, `--no-names`, `-m`, `type=...`, and a datapath's name.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(args: &[String]) -> Result<DumpOptions, String> {
        let mut o = DumpOptions { placement: true, ..DumpOptions::default() };
        let mut numbers = false;
        for a in args {
            match a.as_str() {
                "--names" => o.names = true,
                "--no-names" => (o.names, numbers) = (false, true),
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
                name if [crate::system::DATAPATH, crate::system::NAME].contains(&name) => {
                    o.kernels = Some(true)
                }
                ofproto::dump::DATAPATH => o.kernels = Some(false),
                _ => {}
            }
        }
        // Who asks for more gets names, unless told otherwise.
        o.names |= o.more && !numbers;
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
                || o.kernels.is_some_and(|k| k != self.system.get().is_some_and(|d| d.holds(r.id)))
                || o.filter.as_ref().is_some_and(|f| !overlaps(&r.matches.expand(), f))
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
        let mut line = match (o.more, o.placement) {
            (true, true) => format!("{}, ", Ufid(r.id)),
            (true, false) => format!("{} ", Ufid(r.id)),
            _ => String::new(),
        };
        line.push_str(&format_record(r, self.clock.now(), &name, o.more));
        match device {
            Some(d) => {
                // Filters are filters, whatever is below them.
                let d = d.split('@').next().unwrap_or_default();
                let _ = write!(line, ", offloaded:yes, dp:{d}");
            }
            None if o.more && o.placement => line.push_str(", dp:ovs"),
            None => {}
        }
        let _ = write!(line, ", actions:{}", format_record_actions(r, &name));
        line
    }
}
