//! What people ask of MAC tables and multicast snooping: the unixctl commands `fdb/*` and `mdb/*`, with the texts of Open vSwitch 3.1.

use std::fmt::Write;

use flow::FieldId;
use flow::text::value::parse_value;
use openflow::PortNo;
use openflow::number::MacAddr;

use crate::bridge::Bridge;
use crate::mac_table::MacKey;
use crate::switch::Switch;

fn bridge(s: &Switch, name: &str) -> Result<std::sync::Arc<Bridge>, String> {
    s.bridges().into_iter().find(|b| b.name() == name).ok_or_else(|| "no such bridge".to_owned())
}

/// One bridge by name, or all when `None`.
fn bridges(s: &Switch, name: Option<&str>) -> Result<Vec<std::sync::Arc<Bridge>>, String> {
    name.map_or_else(|| Ok(s.bridges()), |n| Ok(vec![bridge(s, n)?]))
}

fn station(vlan: &str, mac: &str) -> Result<MacKey, String> {
    // As atoi() reads it, which is what people are used to here.
    let digits = vlan.len() - vlan.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let vlan = vlan[..digits].parse().unwrap_or(0);
    let parsed = parse_value(FieldId::EthSrc, mac, &|_| None);
    let (mac, _) =
        parsed.ok().filter(|(_, mask)| *mask == FieldId::EthSrc.info().max()).ok_or("bad MAC address")?;
    Ok(MacKey { vlan, mac: mac as u64 })
}

/// `fdb/show BRIDGE`: every station, the one that was silent for longest first.
///
/// # Errors
/// No such bridge.
pub fn show(s: &Switch, name: &str) -> Result<String, String> {
    let b = bridge(s, name)?;
    s.settle_stations();
    let mut out = String::from(" port  VLAN  MAC                Age\n");
    for e in b.macs().entries(s.now()) {
        let [_, _, mac @ ..] = e.key.mac.to_be_bytes();
        let age = e.age.map_or_else(|| "static".to_owned(), |a| format!("{:>3}", a.as_secs()));
        let port = e.port.to_string();
        let _ = writeln!(out, "{port:>5}  {:>4}  {}  {age}", e.key.vlan, MacAddr(mac));
    }
    Ok(out)
}

/// `fdb/stats-show BRIDGE`.
///
/// # Errors
/// No such bridge.
pub fn stats_show(s: &Switch, name: &str) -> Result<String, String> {
    let b = bridge(s, name)?;
    s.settle_stations();
    let c = b.macs().counters();
    let (n, fixed, limit) = b.macs().fill();
    Ok(format!(
        "Statistics for bridge \"{name}\":\n  \
         Current/maximum MAC entries in the table: {n}/{limit}\n  \
         Current static MAC entries in the table : {fixed}\n  \
         Total number of learned MAC entries     : {}\n  \
         Total number of expired MAC entries     : {}\n  \
         Total number of evicted MAC entries     : {}\n  \
         Total number of port moved MAC entries  : {}\n",
        c.learned, c.expired, c.evicted, c.moved
    ))
}

/// `fdb/stats-clear [BRIDGE]`.
///
/// # Errors
/// No such bridge.
pub fn stats_clear(s: &Switch, name: Option<&str>) -> Result<String, String> {
    bridges(s, name)?.iter().for_each(|b| b.macs().clear_counters());
    Ok("statistics successfully cleared\n".into())
}

/// `fdb/flush [BRIDGE]`: forgets what was learned.
///
/// # Errors
/// No such bridge.
pub fn flush(s: &Switch, name: Option<&str>) -> Result<String, String> {
    let all = bridges(s, name)?;
    s.settle_stations();
    all.iter().for_each(|b| b.macs().flush());
    s.changed();
    Ok("table successfully flushed\n".into())
}

/// `fdb/add BRIDGE PORT VLAN MAC`: makes an entry by hand.
///
/// # Errors
/// No such bridge or port; a malformed address.
pub fn add(s: &Switch, name: &str, port: &str, vlan: &str, mac: &str) -> Result<String, String> {
    let b = bridge(s, name)?;
    let key = station(vlan, mac)?;
    let p = b.pipeline();
    let found: Option<PortNo> = p.ports.iter().find(|p| p.name == port).map(|p| p.no);
    let no = found.ok_or_else(|| "software error, odp port is present but no ofp port".to_owned())?;
    let before = b.macs().entries(s.now()).into_iter().find(|e| e.key == key);
    b.macs().add_fixed(key, no, s.now());
    s.changed();
    Ok(before.map_or_else(String::new, |e| {
        let kind = if e.age.is_some() { "dynamic" } else { "static" };
        format!("Overriding already existing {kind} entry on {}\n", e.port)
    }))
}

/// `fdb/del BRIDGE VLAN MAC`: removes an entry that was made by hand.
///
/// # Errors
/// No such bridge or entry; a malformed address.
pub fn del(s: &Switch, name: &str, vlan: &str, mac: &str) -> Result<String, String> {
    let b = bridge(s, name)?;
    if !b.macs().remove_fixed(station(vlan, mac)?) {
        return Err("could not find static mac entry\n".into());
    }
    s.changed();
    Ok(String::new())
}

/// `mdb/show BRIDGE`: where members of multicast groups are, and multicast routers.
///
/// # Errors
/// No such bridge, or one that does not snoop.
pub fn mdb_show(s: &Switch, name: &str) -> Result<String, String> {
    let b = bridge(s, name)?;
    s.settle_stations();
    match &b.pipeline().settings.snooping {
        Some(settings) => Ok(b.mcast.show(settings, s.now())),
        None => Err("multicast snooping is disabled".into()),
    }
}

/// `mdb/flush [BRIDGE]`: forgets where members and routers are.
///
/// # Errors
/// No such bridge, or one that does not snoop.
pub fn mdb_flush(s: &Switch, name: Option<&str>) -> Result<String, String> {
    let all = bridges(s, name)?;
    s.settle_stations();
    for b in &all {
        if b.pipeline().settings.snooping.is_some() {
            b.mcast.flush();
        } else if name.is_some() {
            return Err("multicast snooping is disabled".into());
        }
    }
    s.changed();
    Ok("table successfully flushed\n".into())
}
