//! `dpctl/dump-flows`: flow records as Open vSwitch prints them.

use std::fmt::Write;
use std::sync::Arc;

use datapath::Ufid;
use datapath_api::FlowRecord;
use flow::PipelineMatch;
use flow::text::ofctl;
use flow::text::value::PortName;
use offload::Status;
use ofproto::FlowOwner;
use ofproto::dump::{format_record, format_record_actions};

use super::Parts;
use super::flows::overlaps;
use crate::dummy::DummyClass;
use crate::spare::Spare;

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
    /// The datapath that is named.
    pub datapath: Option<String>,
    /// Only those of the thread on this processor, or of the main thread with -1.
    pub thread: Option<i64>,
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
                flag if flag.starts_with("pmd=") => o.thread = flag["pmd=".len()..].parse().ok(),
                flag if flag.starts_with('-') || flag.contains('=') => {
                    return Err(format!("unknown option \"{flag}\""));
                }
                name => {
                    let kernels = [crate::system::DATAPATH, crate::system::NAME].contains(&name);
                    if kernels || name == ofproto::dump::DATAPATH {
                        o.kernels = Some(kernels);
                    }
                    o.datapath = Some(name.to_owned());
                }
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

    /// The lines of `dpctl/dump-flows` of a datapath of no bridge. Its flows are those of every thread; Open vSwitch tells of one
    /// thread after the other, and so does this.
    pub(crate) fn dump_spare(&self, s: &Spare, records: &[Arc<FlowRecord>], o: &DumpOptions) -> String {
        let mut flows = String::new();
        let of = |r: &&Arc<FlowRecord>| o.filter.as_ref().is_none_or(|f| overlaps(&r.matches.expand(), f));
        if o.kernels == Some(true) || o.offloaded == Some(true) {
            return flows;
        }
        let ports = s.ports();
        let name = |dp: u32| ports.iter().find(|p| o.names && p.number.0 == dp).map(|p| p.name.clone());
        for r in records.iter().filter(of) {
            let _ = writeln!(flows, "{}", self.named_line(r, None, o, &name));
        }
        let polls = ports.iter().any(|p| p.kind == DummyClass::Pmd.name());
        match o.thread {
            _ if flows.is_empty() => flows,
            Some(-1) => flows,
            Some(0) if polls => flows,
            Some(_) => String::new(),
            None => {
                let polled = format!("flow-dump from pmd on cpu core: 0\n{flows}");
                let main = format!("flow-dump from the main thread:\n{flows}");
                if polls { main + &polled } else { main }
            }
        }
    }

    /// One record.
    pub fn dump_line(&self, r: &FlowRecord, device: Option<&str>, o: &DumpOptions) -> String {
        let name = |dp: u32| if o.names { self.port_name(dp) } else { None };
        self.named_line(r, device, o, &name)
    }

    fn named_line(
        &self,
        r: &FlowRecord,
        device: Option<&str>,
        o: &DumpOptions,
        name: PortName<'_>,
    ) -> String {
        let mut line = match (o.more, o.placement) {
            (true, true) => format!("{}, ", Ufid(r.id)),
            (true, false) => format!("{} ", Ufid(r.id)),
            _ => String::new(),
        };
        line.push_str(&format_record(r, self.clock.now(), name, o.more));
        match device {
            Some(d) => {
                // Filters are filters, whatever is below them.
                let d = d.split('@').next().unwrap_or_default();
                let _ = write!(line, ", offloaded:yes, dp:{d}");
            }
            None if o.more && o.placement => line.push_str(", dp:ovs"),
            None => {}
        }
        let _ = write!(line, ", actions:{}", format_record_actions(r, name));
        line
    }
}
