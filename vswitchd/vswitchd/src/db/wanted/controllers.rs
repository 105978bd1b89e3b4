//! How a controller's connections are treated: table Controller.

use std::time::Duration;

use ovsdb::client::Row;

use crate::controller::ControllerSettings;

/// Packet-ins kept for a connection when nothing is configured.
const QUEUE: usize = 100;
/// As many as can be asked for.
const QUEUES: std::ops::RangeInclusive<usize> = 1..=512;

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
