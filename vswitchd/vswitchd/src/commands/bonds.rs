//! `bond/*` and `lacp/*`: the texts of Open vSwitch 3.1.

use std::fmt::Write;
use std::sync::Arc;

use bonds::bond::bucket;
use daemon::unixctl::Commands;
use datapath_api::{BondConfig, Datapath as _};
use flow::{BondId, MacAddr, PortId};

use super::pmd::{NO_DATAPATH, is_there};
use crate::report::Parts;

pub(super) fn register(commands: &Commands, parts: &Arc<Parts>) {
    let p = Arc::clone(parts);
    commands.register("lacp/show", "[port]", 0..=1, move |a| {
        p.layer.lacp_text(a.first().map(String::as_str), false)
    });
    let p = Arc::clone(parts);
    commands.register("lacp/show-stats", "[port]", 0..=1, move |a| {
        p.layer.lacp_text(a.first().map(String::as_str), true)
    });
    let p = Arc::clone(parts);
    commands.register("bond/list", "", 0..=0, move |_| Ok(p.layer.bond_list()));
    let p = Arc::clone(parts);
    commands
        .register("bond/show", "[port]", 0..=1, move |a| p.layer.bond_text(a.first().map(String::as_str)));
    let p = Arc::clone(parts);
    commands.register("bond/migrate", "port hash member", 3..=3, move |a| {
        p.layer.bond_migrate(&a[0], &a[1], &a[2]).map(|()| "migrated\n".into())
    });
    // The second name is that of earlier versions.
    for name in ["bond/set-active-member", "bond/set-active-slave"] {
        let p = Arc::clone(parts);
        commands.register(name, "port member", 2..=2, move |a| {
            let changed = p.layer.bond_set_active(&a[0], &a[1])?;
            Ok(if changed { "done\n" } else { "no change\n" }.into())
        });
    }
    let words = [
        ("bond/enable-member", true),
        ("bond/enable-slave", true),
        ("bond/disable-member", false),
        ("bond/disable-slave", false),
    ];
    for (name, on) in words {
        let p = Arc::clone(parts);
        commands.register(name, "port member", 2..=2, move |a| {
            p.layer.bond_force(&a[0], &a[1], on)?;
            Ok(if on { "enabled\n" } else { "disabled\n" }.into())
        });
    }
    let p = Arc::clone(parts);
    commands.register("dpif-netdev/bond-show", "[dp]", 0..=1, move |a| match a.first() {
        Some(dp) if p.spares.named(dp).is_some() => Ok(String::new()),
        Some(dp) if !is_there(&p, dp) => Err(NO_DATAPATH.into()),
        _ => Ok(tables_text(&p.soft.bonds())),
    });
    commands.register("bond/hash", "mac [vlan] [basis]", 1..=3, |a| {
        let number = |i: usize| a.get(i).map_or(Some(0), |n| n.parse::<u32>().ok());
        let vlan = number(1).and_then(|v| u16::try_from(v).ok()).ok_or("invalid vlan")?;
        let basis = number(2).ok_or("invalid basis")?;
        let mac: MacAddr = a[0].parse().map_err(|_| "invalid mac")?;
        Ok(format!("{}\n", bucket(ofproto::hash_of_station(mac.to_u64(), vlan, basis))))
    });
}

/// The tables by which the datapath chooses members.
fn tables_text(all: &[(BondId, BondConfig)]) -> String {
    // Open vSwitch's number for no port.
    const NONE: PortId = PortId(u32::MAX);
    let mut out = String::from(if all.is_empty() { "" } else { "Bonds:\n" });
    for (id, b) in all {
        let _ = writeln!(out, "  bond-id {}:", id.0);
        for (i, m) in b.members.iter().enumerate() {
            let _ = writeln!(out, "    bucket {i} - member {}", m.unwrap_or(NONE).0);
        }
    }
    out
}
