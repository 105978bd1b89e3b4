//! `dpif/show-dp-features`, `dpif/set-dp-features`: what the datapath can do (ovs-vswitchd(8)).
//!
//! Open vSwitch's tests pretend with the second that a datapath can do less. Here translation always uses what the datapath has:
//! asking for what is so already is fine, and anything else is refused, but for how tunnels are carried out, and for checks of the
//! packet's length and copies of packets, which traces can do without.

use std::fmt::Write;
use std::sync::Arc;

use daemon::unixctl::Commands;

use crate::db::capability;
use crate::report::Parts;

/// Whether tunnels are carried out by headers that translation makes, or are metadata for a port of the datapath.
const TUNNELS: &str = "tnl_push_pop";
/// Whether the datapath tells packets by their length.
const LENGTHS: &str = "check_pkt_len";
/// Whether the datapath executes actions on copies of packets.
const CLONE: &str = "clone";
/// How deep samples may be nested, which do as well.
const NESTING: &str = "sample_nesting";

/// Names as in column `capabilities` of table Datapath, and titles, in the order of Open vSwitch 3.1.
const TITLES: &[(&str, &str)] = &[
    ("masked_set_action", "Masked set action"),
    ("tnl_push_pop", "Tunnel push pop"),
    ("ufid", "Ufid"),
    ("trunc", "Truncate action"),
    ("clone", "Clone action"),
    ("sample_nesting", "Sample nesting"),
    ("ct_eventmask", "Conntrack eventmask"),
    ("ct_clear", "Conntrack clear"),
    ("max_hash_alg", "Max dp_hash algorithm"),
    ("check_pkt_len", "Check pkt length action"),
    ("ct_timeout", "Conntrack timeout policy"),
    ("explicit_drop_action", "Explicit Drop action"),
    ("lb_output_action", "Optimized Balance TCP mode"),
    ("ct_zero_snat", "Conntrack all-zero IP SNAT"),
    ("add_mpls", "MPLS Label add"),
    ("max_vlan_headers", "Max VLAN headers"),
    ("max_mpls_depth", "Max MPLS depth"),
    ("recirc", "Recirc"),
    ("ct_state", "CT state"),
    ("ct_zone", "CT zone"),
    ("ct_mark", "CT mark"),
    ("ct_label", "CT label"),
    ("ct_state_nat", "CT state NAT"),
    ("ct_orig_tuple", "CT orig tuple"),
    ("ct_orig_tuple6", "CT orig tuple for IPv6"),
    ("nd_ext", "IPv6 ND Extension"),
];

pub(super) fn register(commands: &Commands, parts: &Arc<Parts>) {
    let p = Arc::clone(parts);
    commands.register("dpif/show-dp-features", "bridge", 1..=1, move |a| {
        let bridge = super::dpif::find(&p, &a[0]).ok_or("no such bridge")?;
        let kernel = p.system.has_bridge(bridge.index());
        Ok(TITLES.iter().fold(String::new(), |mut out, (name, title)| {
            let value = match value(name, kernel) {
                "true" => "Yes",
                "false" => "No",
                number => number,
            };
            let _ = writeln!(out, "{title}: {value}");
            out
        }))
    });
    let p = Arc::clone(parts);
    commands.register("dpif/set-dp-features", "bridge [feature value]", 1..=3, move |a| {
        let bridge = super::dpif::find(&p, &a[0]).ok_or("no such bridge")?;
        let [_, feature, wanted] = a else { return Err("a feature and its value are needed".into()) };
        if !TITLES.iter().any(|(name, _)| name == feature) {
            return Err(format!("\"{feature}\" is not a feature of a datapath"));
        }
        if feature == NESTING {
            let n = wanted.parse().map_err(|_| "Integer number expected")?;
            p.layer.change_copies(|c| c.sample_nesting = n);
            return Ok(String::new());
        }
        if [TUNNELS, LENGTHS, CLONE].contains(&feature.as_str()) {
            let on = match wanted.as_str() {
                "true" => true,
                "false" => false,
                _ => return Err("Boolean value expected".into()),
            };
            if feature == TUNNELS {
                p.layer.with_tunnels(|t| t.foreign = !on);
            } else if feature == CLONE {
                p.layer.change_copies(|c| c.clone = on);
            } else {
                p.layer.set_length_checks(on);
            }
            return Ok(String::new());
        }
        match value(feature, p.system.has_bridge(bridge.index())) {
            is if is == wanted => Ok(String::new()),
            is => Err(format!("{feature} is {is}, and cannot be changed")),
        }
    });
}

fn value(name: &str, kernel: bool) -> &'static str {
    capability(name, kernel).unwrap_or("false")
}
