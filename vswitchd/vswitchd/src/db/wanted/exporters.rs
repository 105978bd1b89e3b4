//! Who is told of a bridge's traffic: tables NetFlow, sFlow, IPFIX and Flow_Sample_Collector_Set.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use exporters::ipfix::CacheSettings;
use exporters::{IpfixSettings, NetflowSettings, SflowSettings};
use ovsdb::client::{Row, Snapshot};

use super::is_set;

/// What a bridge tells by NetFlow; `None` where it tells nobody.
pub(super) fn netflow(
    db: &Snapshot,
    bridge: Row<'_>,
    name: &str,
    ignored: &mut Vec<String>,
) -> Option<NetflowSettings> {
    let row = db.referred(bridge, "netflow", "NetFlow").next()?;
    let byte = |column| row.integer(column).and_then(|n| u8::try_from(n).ok()).unwrap_or(0);
    let settings = NetflowSettings {
        targets: row.texts("targets").map(str::to_owned).collect(),
        engine_type: byte("engine_type"),
        engine_id: byte("engine_id"),
        active_timeout: match row.integer("active_timeout").unwrap_or(0) {
            0 => Some(NetflowSettings::USUAL_TIMEOUT),
            n => u64::try_from(n).ok().map(Duration::from_secs),
        },
        add_id_to_interface: is_set(row, "add_id_to_interface"),
    };
    if settings.add_id_to_interface && settings.engine_id > 0x7f {
        ignored.push(format!(
            "bridge {name}: NetFlow port mangling may conflict with another vswitch, choose an engine id less than 128"
        ));
    }
    Some(settings)
}

/// What a bridge tells by sFlow; `None` where it tells nobody. `sub_id` tells bridges apart.
pub(super) fn sflow(db: &Snapshot, bridge: Row<'_>, sub_id: u32) -> Option<SflowSettings> {
    let row = db.referred(bridge, "sflow", "sFlow").next()?;
    let usual = SflowSettings::default();
    let number = |column| row.integer(column).and_then(|n| u32::try_from(n).ok());
    Some(SflowSettings {
        targets: row.texts("targets").map(str::to_owned).collect(),
        sampling: number("sampling").unwrap_or(usual.sampling),
        polling_s: number("polling").unwrap_or(usual.polling_s),
        header_bytes: number("header").map_or(usual.header_bytes, |n| u16::try_from(n).unwrap_or(u16::MAX)),
        agent: row.text("agent").and_then(address_of),
        sub_id,
    })
}

/// The address of an interface of that name, or the address that it is.
fn address_of(agent: &str) -> Option<IpAddr> {
    crate::addresses::address_of(agent).or_else(|| agent.parse().ok())
}

/// What a bridge tells of all its packets by IPFIX; `None` where it tells nobody.
pub(super) fn ipfix(db: &Snapshot, bridge: Row<'_>) -> Option<IpfixSettings> {
    let row = db.referred(bridge, "ipfix", "IPFIX").next()?;
    let usual = IpfixSettings::default();
    let number = |column, usual| row.integer(column).and_then(|n| u32::try_from(n).ok()).unwrap_or(usual);
    let unless_off = |key| row.key("other_config", key) != Some("false");
    Some(IpfixSettings {
        cache: cache(row),
        sampling: number("sampling", usual.sampling),
        domain: number("obs_domain_id", 0),
        point: number("obs_point_id", 0),
        // As ovs-vswitchd.conf.db(5) has it.
        input: unless_off("enable-input-sampling"),
        output: unless_off("enable-output-sampling"),
    })
}

/// What a row of table IPFIX says of its cache and of whom it tells.
fn cache(row: Row<'_>) -> CacheSettings {
    let number = |column| row.integer(column).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    CacheSettings {
        targets: row.texts("targets").map(str::to_owned).collect(),
        active_timeout: Duration::from_secs(number("cache_active_timeout").into()),
        max_flows: number("cache_max_flows"),
        virtual_obs_id: row.key("other_config", "virtual_obs_id").map(str::to_owned),
        tunnels: row.key("other_config", "enable-tunnel-sampling") != Some("false"),
    }
}

/// Sets of those that are told by IPFIX of what flows of a bridge sample.
pub(super) fn collector_sets(db: &Snapshot, bridge: Row<'_>) -> BTreeMap<u32, CacheSettings> {
    let of_bridge = |r: &Row<'_>| db.referred(*r, "bridge", "Bridge").any(|b| b.uuid() == bridge.uuid());
    let set = |r: Row<'_>| {
        let id = u32::try_from(r.integer("id")?).ok()?;
        let cache = cache(db.referred(r, "ipfix", "IPFIX").next()?);
        (!cache.targets.is_empty()).then_some((id, cache))
    };
    db.rows("Flow_Sample_Collector_Set").filter(of_bridge).filter_map(set).collect()
}
