//! Ports and queues on the wire (OpenFlow 1.3.5 7.2.1, 7.2.2, 7.3.4.3, 7.3.5.3, 7.3.5.4, 7.4.3).

use super::cursor::{Put, Reader};
use crate::error::{BadRequest, ErrorCode};
use crate::message::Body;
use crate::number::{PortNo, QueueNo};
use crate::port::{
    PortConfig, PortDesc, PortFeatures, PortMod, PortReason, PortState, PortStats, PortStatus, QueueConfig,
    QueueStats,
};

const NAME_BYTES: usize = 16;
const QUEUE_PROPERTY_MIN_RATE: u16 = 1;
const QUEUE_PROPERTY_MAX_RATE: u16 = 2;

pub(super) fn read_desc(r: &mut Reader<'_>) -> Result<PortDesc, ErrorCode> {
    let port = PortNo(r.u32()?);
    r.skip(4)?;
    let hw_addr = r.mac()?;
    r.skip(2)?;
    Ok(PortDesc {
        port,
        hw_addr,
        name: r.text(NAME_BYTES)?,
        config: PortConfig(r.u32()?),
        state: PortState(r.u32()?),
        current: PortFeatures(r.u32()?),
        advertised: PortFeatures(r.u32()?),
        supported: PortFeatures(r.u32()?),
        peer: PortFeatures(r.u32()?),
        current_speed_kbps: r.u32()?,
        max_speed_kbps: r.u32()?,
    })
}

pub(super) fn put_desc(out: &mut Vec<u8>, p: &PortDesc) {
    out.put_u32(p.port.0);
    out.put_zeros(4);
    out.put_mac(p.hw_addr);
    out.put_zeros(2);
    out.put_text(&p.name, NAME_BYTES);
    for v in [p.config.0, p.state.0, p.current.0, p.advertised.0, p.supported.0, p.peer.0] {
        out.put_u32(v);
    }
    out.put_u32(p.current_speed_kbps);
    out.put_u32(p.max_speed_kbps);
}

pub(super) fn read_status(r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let reason = match r.u8()? {
        0 => PortReason::Add,
        1 => PortReason::Delete,
        2 => PortReason::Modify,
        _ => return Err(BadRequest::BadType.into()),
    };
    r.skip(7)?;
    Ok(Body::PortStatus(PortStatus { reason, desc: read_desc(r)? }))
}

pub(super) fn put_status(out: &mut Vec<u8>, s: &PortStatus) {
    out.put_u8(s.reason as u8);
    out.put_zeros(7);
    put_desc(out, &s.desc);
}

pub(super) fn read_mod(r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let port = PortNo(r.u32()?);
    r.skip(4)?;
    let hw_addr = r.mac()?;
    r.skip(2)?;
    let (config, mask, advertise) = (PortConfig(r.u32()?), PortConfig(r.u32()?), PortFeatures(r.u32()?));
    r.skip(4)?;
    Ok(Body::PortMod(PortMod { port, hw_addr, config, mask, advertise }))
}

pub(super) fn put_mod(out: &mut Vec<u8>, p: &PortMod) {
    out.put_u32(p.port.0);
    out.put_zeros(4);
    out.put_mac(p.hw_addr);
    out.put_zeros(2);
    out.put_u32(p.config.0);
    out.put_u32(p.mask.0);
    out.put_u32(p.advertise.0);
    out.put_zeros(4);
}

pub(super) fn read_stats(r: &mut Reader<'_>) -> Result<PortStats, ErrorCode> {
    let port = PortNo(r.u32()?);
    r.skip(4)?;
    Ok(PortStats {
        port,
        rx_packets: r.u64()?,
        tx_packets: r.u64()?,
        rx_bytes: r.u64()?,
        tx_bytes: r.u64()?,
        rx_dropped: r.u64()?,
        tx_dropped: r.u64()?,
        rx_errors: r.u64()?,
        tx_errors: r.u64()?,
        rx_frame_err: r.u64()?,
        rx_over_err: r.u64()?,
        rx_crc_err: r.u64()?,
        collisions: r.u64()?,
        duration_sec: r.u32()?,
        duration_nsec: r.u32()?,
    })
}

pub(super) fn put_stats(out: &mut Vec<u8>, s: &PortStats) {
    out.put_u32(s.port.0);
    out.put_zeros(4);
    for v in [
        s.rx_packets,
        s.tx_packets,
        s.rx_bytes,
        s.tx_bytes,
        s.rx_dropped,
        s.tx_dropped,
        s.rx_errors,
        s.tx_errors,
        s.rx_frame_err,
        s.rx_over_err,
        s.rx_crc_err,
        s.collisions,
    ] {
        out.put_u64(v);
    }
    out.put_u32(s.duration_sec);
    out.put_u32(s.duration_nsec);
}

pub(super) fn read_queue_stats(r: &mut Reader<'_>) -> Result<QueueStats, ErrorCode> {
    Ok(QueueStats {
        port: PortNo(r.u32()?),
        queue: QueueNo(r.u32()?),
        tx_bytes: r.u64()?,
        tx_packets: r.u64()?,
        tx_errors: r.u64()?,
        duration_sec: r.u32()?,
        duration_nsec: r.u32()?,
    })
}

pub(super) fn put_queue_stats(out: &mut Vec<u8>, s: &QueueStats) {
    out.put_u32(s.port.0);
    out.put_u32(s.queue.0);
    out.put_u64(s.tx_bytes);
    out.put_u64(s.tx_packets);
    out.put_u64(s.tx_errors);
    out.put_u32(s.duration_sec);
    out.put_u32(s.duration_nsec);
}

/// Reads a queue-get-config reply: queues, each with a list of properties.
pub(super) fn read_queues(r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let port = PortNo(r.u32()?);
    r.skip(4)?;
    let mut queues = Vec::new();
    while !r.is_empty() {
        let (queue, queue_port, len) = (QueueNo(r.u32()?), PortNo(r.u32()?), usize::from(r.u16()?));
        r.skip(6)?;
        let mut properties = r.sub(len.checked_sub(16).ok_or(r.short())?, r.short())?;
        let mut q = QueueConfig { queue, port: queue_port, min_rate: None, max_rate: None };
        while !properties.is_empty() {
            let (kind, len) = (properties.u16()?, usize::from(properties.u16()?));
            let mut p = properties.sub(len.checked_sub(4).ok_or(r.short())?, r.short())?;
            p.skip(4)?;
            match kind {
                QUEUE_PROPERTY_MIN_RATE => q.min_rate = Some(p.u16()?),
                QUEUE_PROPERTY_MAX_RATE => q.max_rate = Some(p.u16()?),
                _ => {}
            }
        }
        queues.push(q);
    }
    Ok(Body::QueueGetConfigReply { port, queues })
}

pub(super) fn put_queues(out: &mut Vec<u8>, port: PortNo, queues: &[QueueConfig]) {
    out.put_u32(port.0);
    out.put_zeros(4);
    for q in queues {
        let start = out.len();
        out.put_u32(q.queue.0);
        out.put_u32(q.port.0);
        out.put_u16(0);
        out.put_zeros(6);
        for (kind, rate) in [(QUEUE_PROPERTY_MIN_RATE, q.min_rate), (QUEUE_PROPERTY_MAX_RATE, q.max_rate)] {
            if let Some(rate) = rate {
                out.put_u16(kind);
                out.put_u16(16);
                out.put_zeros(4);
                out.put_u16(rate);
                out.put_zeros(6);
            }
        }
        out.patch_u16(start + 8, out.len() - start);
    }
}
