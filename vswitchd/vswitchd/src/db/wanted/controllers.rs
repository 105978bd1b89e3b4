//! How a controller's connections are treated: table Controller.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use daemon::{Active, OPENFLOW_PORT};
use ovsdb::client::{Row, Snapshot};

use super::string;

use crate::controller::ControllerSettings;

/// Packet-ins kept for a connection when nothing is configured.
const QUEUE: usize = 100;
/// As many as can be asked for.
const QUEUES: std::ops::RangeInclusive<usize> = 1..=512;

/// TCP port of managers that name none (RFC 7047).
const MANAGER_PORT: u16 = 6640;

/// Controllers of a bridge and managers whose connections are to get through whatever its flow tables say. Those at names rather
/// than addresses are not known, and IPv6 is not looked after, as by Open vSwitch.
pub(super) fn in_band(db: &Snapshot, bridge: Row<'_>) -> Vec<SocketAddrV4> {
    if bridge.key("other_config", "disable-in-band") == Some("true") {
        return Vec::new();
    }
    let of = |c: Row<'_>, usual| {
        let Some(Active::Tcp { host, port } | Active::Ssl { host, port }) =
            string(c, "target").and_then(|t| t.parse().ok())
        else {
            return None;
        };
        let ip = host.parse::<Ipv4Addr>().ok()?;
        (string(c, "connection_mode") != Some("out-of-band"))
            .then(|| SocketAddrV4::new(ip, port.unwrap_or(usual)))
    };
    let controllers = db.referred(bridge, "controller", "Controller").filter_map(|c| of(c, OPENFLOW_PORT));
    let managers = db.rows("Manager").filter_map(|m| of(m, MANAGER_PORT));
    ofproto::in_band::remotes(controllers.chain(managers))
}

/// The treatment that a row asks for; `queue` is what its bridge's `other_config:controller-queue-size` says.
pub(super) fn treatment(row: Row<'_>, queue: Option<&str>) -> ControllerSettings {
    let ms = |column| {
        let n = row.integer(column).and_then(|n| u64::try_from(n).ok())?;
        // In whole seconds, and none of them is no time at all.
        Some(if n == 0 { Duration::ZERO } else { Duration::from_secs((n / 1000).max(1)) })
    };
    let number = |column| row.integer(column).and_then(|n| u32::try_from(n).ok());
    let rate = number("controller_rate_limit");
    let queue = queue.and_then(|q| q.parse().ok()).filter(|n| QUEUES.contains(n)).unwrap_or(QUEUE);
    let own = number("controller_queue_size").map(|n| n as usize).filter(|n| QUEUES.contains(n));
    ControllerSettings {
        max_backoff: ms("max_backoff"),
        probe: ms("inactivity_probe"),
        packet_in_rate_pps: rate,
        packet_in_burst: number("controller_burst_limit").or(rate.map(|r| (r / 4).max(1))),
        packet_ins: Some(own.unwrap_or(queue)),
        asynchronous: row.boolean("enable_async_messages").unwrap_or(true),
    }
}
