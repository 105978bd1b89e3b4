//! Queues of ports, as controllers see them (OpenFlow 1.3.5 7.2.2, 7.3.5.8).
//!
//! What queues there are is the administrator's matter ([`crate::settings::QueueSettings`]). Which one a packet takes is its
//! priority, which actions set; what happens there is the device's, which counts nothing that could be told.

use openflow::error::QueueOpFailed;
use openflow::port::{QueueConfig, QueueStats};
use openflow::{ErrorCode, PortNo, QueueNo};

use crate::port::Port;
use crate::settings::QueueSettings;
use crate::tables::Pipeline;

/// Queues that a request is about, by port number and queue.
///
/// # Errors
/// `OFPQOFC_BAD_PORT`, and `OFPQOFC_BAD_QUEUE` when the queue is at none of the ports.
fn chosen(p: &Pipeline, port: PortNo, queue: QueueNo) -> Result<Vec<(&Port, u32, QueueSettings)>, ErrorCode> {
    let mut ports: Vec<&Port> = match port {
        PortNo::ANY | PortNo::ALL => p.ports.iter().collect(),
        no => vec![p.ports.get(no).ok_or(QueueOpFailed::BadPort)?],
    };
    ports.sort_by_key(|p| p.no);
    let all = ports.into_iter().flat_map(|p| p.settings.queues.iter().map(move |(q, s)| (p, *q, *s)));
    let chosen: Vec<_> = all.filter(|(_, q, _)| queue == QueueNo::ALL || queue.0 == *q).collect();
    if chosen.is_empty() && queue != QueueNo::ALL {
        return Err(QueueOpFailed::BadQueue.into());
    }
    Ok(chosen)
}

/// What queues are.
///
/// # Errors
/// As [`chosen`].
pub(crate) fn configs(p: &Pipeline, port: PortNo, queue: QueueNo) -> Result<Vec<QueueConfig>, ErrorCode> {
    let one = |(p, q, s): (&Port, u32, QueueSettings)| {
        // In tenths of a percent of the port's speed, if that is known.
        let share = |bps: u64| {
            let speed_bps = u64::from(p.speed_kbps) * 1000;
            let tenths = bps.saturating_mul(1000).checked_div(speed_bps)?;
            u16::try_from(tenths.min(1000)).ok()
        };
        QueueConfig {
            queue: QueueNo(q),
            port: p.no,
            min_rate: s.min_rate_bps.and_then(share),
            max_rate: s.max_rate_bps.and_then(share),
        }
    };
    Ok(chosen(p, port, queue)?.into_iter().map(one).collect())
}

/// Counters of queues, which nobody counts.
///
/// # Errors
/// As [`chosen`].
pub(crate) fn stats(p: &Pipeline, port: PortNo, queue: QueueNo) -> Result<Vec<QueueStats>, ErrorCode> {
    const UNKNOWN: u64 = u64::MAX;
    let one = |(p, q, _): (&Port, u32, QueueSettings)| QueueStats {
        port: p.no,
        queue: QueueNo(q),
        tx_bytes: UNKNOWN,
        tx_packets: UNKNOWN,
        tx_errors: UNKNOWN,
        duration_sec: u32::MAX,
        duration_nsec: u32::MAX,
    };
    Ok(chosen(p, port, queue)?.into_iter().map(one).collect())
}
