//! `hoist/flows` and `hoist/why`: flow records, where they are, and why.

use daemon::report::{Flow, Rule, Uncached, WhyReport};
use datapath_api::FlowRecord;
use flow::text::odp::{Context, format_actions, format_match};
use flow::text::ofctl;
use flow::{FieldId, PacketMatch, PipelineMatch};
use offload::{Reject, Status};
use ofproto::FlowOwner;
use openflow::PortNo;

use super::{Parts, why};

/// Which flow records.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only those in hardware.
    pub hardware: bool,
    /// Only those that are not.
    pub software: bool,
    /// Only this one.
    pub id: Option<u64>,
    /// Only those that packets like these may use.
    pub packets: Option<PipelineMatch>,
}

impl Selection {
    /// Takes arguments: `--hw`, `--sw`, a flow's number, a match in ovs-ofctl's syntax.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(args: &[String]) -> Result<Selection, String> {
        let mut s = Selection::default();
        for a in args {
            match a.as_str() {
                "--hw" => s.hardware = true,
                "--sw" => s.software = true,
                flag if flag.starts_with('-') => return Err(format!("unknown option \"{flag}\"")),
                number if number.bytes().all(|b| b.is_ascii_digit()) => {
                    s.id = Some(number.parse().map_err(|_| format!("no flow has number {number}"))?);
                }
                text => s.packets = Some(ofctl::parse(text).map_err(|e| format!("{text}: {e}"))?),
            }
        }
        if s.hardware && s.software {
            return Err("--hw and --sw exclude each other".to_owned());
        }
        Ok(s)
    }
}

impl Parts {
    /// The document of `hoist/flows`.
    pub fn flows(&self, s: &Selection) -> Vec<Flow> {
        let records = self.layer.records();
        let flows = records.iter().filter(|r| self.is_selected(r, s)).map(|r| self.flow(r));
        flows.filter(|f| !(s.hardware && f.why.is_some() || s.software && f.why.is_none())).collect()
    }

    /// The document of `hoist/why`.
    ///
    /// # Errors
    /// When a flow was asked for by number and there is none.
    pub fn why_report(&self, s: &Selection) -> Result<WhyReport, String> {
        let everything = s.id.is_none() && s.packets.is_none();
        let software = s.software || everything && !s.hardware;
        let flows = self.flows(&Selection { software, ..s.clone() });
        if let (Some(id), []) = (s.id, &flows[..]) {
            return Err(format!("no flow has number {id} (it may have gone; see `hoist flows`)"));
        }
        let uncached = if everything { self.uncached() } else { Vec::new() };
        Ok(WhyReport { flows, uncached, connections: self.connections() })
    }

    /// Traffic that is translated packet by packet.
    fn uncached(&self) -> Vec<Uncached> {
        let c = self.layer.counters();
        let kinds = [
            (
                c.over_flow_limit,
                "the flow limit is reached (datapath.max_flows): every packet is translated anew",
            ),
            (c.refused, "the datapath kept no record: another one served the packet, or its table was full"),
        ];
        let all = kinds.iter().filter(|(n, _)| *n > 0);
        all.map(|(packets, reason)| Uncached { packets: *packets, reason: (*reason).to_owned() }).collect()
    }

    fn is_selected(&self, r: &FlowRecord, s: &Selection) -> bool {
        if s.id.is_some_and(|id| id != r.id.0) {
            return false;
        }
        let Some(wanted) = &s.packets else { return true };
        let (in_port, mask) = wanted.get(FieldId::InPort);
        if mask != 0 {
            let dp = r.matches.get(FieldId::DpPort).0 as u32;
            let port = self.ports.by_datapath(flow::PortId(dp));
            if port.is_none_or(|p| p.no != PortNo(in_port as u32)) {
                return false;
            }
        }
        overlaps(&r.matches.expand(), wanted)
    }

    /// One record.
    pub(super) fn flow(&self, r: &FlowRecord) -> Flow {
        let name = |dp: u32| self.port_name(dp);
        let soft = r.counters.read();
        let owner = FlowOwner::of(r);
        let basis = owner.map(FlowOwner::basis).unwrap_or_default();
        let (hardware_packets, hardware_bytes) = owner.map(FlowOwner::hardware_totals).unwrap_or_default();
        let used = owner.and_then(FlowOwner::used).max(soft.used);
        let status = self.hoisting.status(r);
        let (placement, device, table) = match &status {
            Status::Hardware { device, table_name, .. } => {
                let device = self.hoisting.placing().name(*device);
                ("hardware", Some(device), Some((*table_name).to_owned()))
            }
            Status::Pending => ("pending", None, None),
            Status::Software(_) => ("software", None, None),
        };
        Flow {
            id: r.id.0,
            bridge: self.bridge_name(basis.bridge),
            matches: format_match(&r.matches.expand(), &name),
            actions: format_actions(&r.actions, Context::of(&r.matches.key()), &name),
            packets: soft.packets + hardware_packets,
            bytes: soft.bytes + hardware_bytes,
            hardware_packets,
            hardware_bytes,
            used_ms_ago: used.map(|u| self.clock.now().since(u).as_millis() as u64),
            placement: placement.to_owned(),
            device,
            table,
            rules: basis
                .rules
                .iter()
                .map(|r| Rule { table: r.table, cookie: format!("{:#x}", r.cookie) })
                .collect(),
            why: match status {
                Status::Hardware { .. } => None,
                Status::Pending => Some(why(&Reject::Pending)),
                Status::Software(r) => Some(why(&r)),
            },
        }
    }
}

/// Whether a packet can match both.
pub(super) fn overlaps(record: &PacketMatch, wanted: &PipelineMatch) -> bool {
    wanted.mask().fields().filter(|f| *f != FieldId::InPort).all(|f| {
        let (value, mask) = wanted.get(f);
        // What only the pipeline knows says nothing about a record.
        if f.info().scope != flow::Scope::Packet {
            return true;
        }
        let (have, have_mask) = record.get(f);
        let both = mask & have_mask;
        value & both == have & both
    })
}

#[cfg(test)]
mod tests {
    use flow::text::odp::parse_match;

    use super::*;

    #[test]
    fn a_filter_selects_what_its_packets_may_use() {
        let record = |t: &str| parse_match(t, &|_| None).unwrap();
        let tcp = record("in_port(1),eth_type(0x0800),ipv4(dst=10.0.0.2,proto=6,frag=no),tcp(dst=80)");
        let any = record("in_port(1),eth_type(0x0800),ipv4(frag=no)");
        let arp = record("in_port(1),eth_type(0x0806)");
        for (filter, want) in [
            ("tcp", [true, true, false]),
            ("tcp,nw_dst=10.0.0.0/8", [true, true, false]),
            ("tcp,tp_dst=81", [false, true, false]),
            ("ip,nw_dst=10.0.0.3", [false, true, false]),
            ("arp", [false, false, true]),
            ("", [true, true, true]),
        ] {
            let wanted = ofctl::parse(filter).unwrap();
            assert_eq!([&tcp, &any, &arp].map(|r| overlaps(r, &wanted)), want, "{filter}");
        }
    }

    #[test]
    fn arguments_are_numbers_matches_and_options() {
        let parse = |a: &[&str]| Selection::parse(&a.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(parse(&["17"]).unwrap().id, Some(17));
        assert!(parse(&["--hw", "tcp"]).unwrap().hardware);
        assert!(parse(&["--hw", "--sw"]).is_err());
        assert!(parse(&["--all"]).unwrap_err().contains("unknown option"));
        assert!(parse(&["tcp,nw_dst=x"]).unwrap_err().starts_with("tcp,nw_dst=x: "));
        assert!(parse(&["99999999999999999999999"]).is_err());
    }
}
