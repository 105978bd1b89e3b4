//! Queues on the wire (OpenFlow 1.0.1 5.3.7, OpenFlow 1.3.5 7.2.2, OpenFlow 1.4.0 7.3.5.18).

use super::cursor::{Put, Reader};
use super::{EncodeError, ports, properties};
use crate::error::ErrorCode;
use crate::message::Body;
use crate::number::{PortNo, QueueNo};
use crate::port::{QueueConfig, QueueStats};
use crate::version::Version;

const MIN_RATE: u16 = 1;
const MAX_RATE: u16 = 2;

pub(super) fn read_config_request(v: Version, r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let port = ports::read_port(v, r)?;
    r.skip(if v == Version::V10 { 2 } else { 4 })?;
    Ok(Body::QueueGetConfigRequest(port))
}

pub(super) fn put_config_request(out: &mut Vec<u8>, v: Version, port: PortNo) -> Result<(), EncodeError> {
    ports::put_port(out, v, port)?;
    out.put_zeros(if v == Version::V10 { 2 } else { 4 });
    Ok(())
}

/// Reads a queue-get-config reply: queues, each with a list of properties.
pub(super) fn read_config_reply(v: Version, r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let port = ports::read_port(v, r)?;
    r.skip(if v == Version::V10 { 6 } else { 4 })?;
    let mut queues = Vec::new();
    while !r.is_empty() {
        let queue = QueueNo(r.u32()?);
        let queue_port = if v >= Version::V12 { PortNo(r.u32()?) } else { port };
        let len = usize::from(r.u16()?);
        let head = if v >= Version::V12 { 16 } else { 8 };
        r.skip(if v >= Version::V12 { 6 } else { 2 })?;
        let mut list = r.sub(len.checked_sub(head).ok_or(r.short())?, r.short())?;
        let mut q = QueueConfig { queue, port: queue_port, min_rate: None, max_rate: None };
        while !list.is_empty() {
            let (kind, len) = (list.u16()?, usize::from(list.u16()?));
            let mut p = list.sub(len.checked_sub(4).ok_or(r.short())?, r.short())?;
            p.skip(4)?;
            match kind {
                MIN_RATE => q.min_rate = Some(p.u16()?),
                MAX_RATE => q.max_rate = Some(p.u16()?),
                _ => {}
            }
        }
        queues.push(q);
    }
    Ok(Body::QueueGetConfigReply { port, queues })
}

pub(super) fn put_config_reply(
    out: &mut Vec<u8>,
    v: Version,
    port: PortNo,
    queues: &[QueueConfig],
) -> Result<(), EncodeError> {
    ports::put_port(out, v, port)?;
    out.put_zeros(if v == Version::V10 { 6 } else { 4 });
    for q in queues {
        let start = out.len();
        out.put_u32(q.queue.0);
        if v >= Version::V12 {
            out.put_u32(q.port.0);
        }
        let len_at = out.len();
        out.put_u16(0);
        out.put_zeros(if v >= Version::V12 { 6 } else { 2 });
        for (kind, rate) in [(MIN_RATE, q.min_rate), (MAX_RATE, q.max_rate)] {
            if let Some(rate) = rate {
                out.put_u16(kind);
                out.put_u16(16);
                out.put_zeros(4);
                out.put_u16(rate);
                out.put_zeros(6);
            }
        }
        out.patch_u16(len_at, out.len() - start);
    }
    Ok(())
}

/// Reads a queue's description.
pub(super) fn read_desc(r: &mut Reader<'_>) -> Result<QueueConfig, ErrorCode> {
    let (port, queue, len) = (PortNo(r.u32()?), QueueNo(r.u32()?), usize::from(r.u16()?));
    r.skip(6)?;
    let mut list = r.sub(len.checked_sub(16).ok_or(r.short())?, r.short())?;
    let mut q = QueueConfig { queue, port, min_rate: None, max_rate: None };
    while let Some((kind, mut value)) = properties::next(&mut list)? {
        match kind {
            MIN_RATE => q.min_rate = Some(value.u16()?),
            MAX_RATE => q.max_rate = Some(value.u16()?),
            _ => {}
        }
    }
    Ok(q)
}

/// Appends a queue's description.
pub(super) fn put_desc(out: &mut Vec<u8>, q: &QueueConfig) {
    let start = out.len();
    out.put_u32(q.port.0);
    out.put_u32(q.queue.0);
    out.put_u16(0);
    out.put_zeros(6);
    for (kind, rate) in [(MIN_RATE, q.min_rate), (MAX_RATE, q.max_rate)] {
        if let Some(rate) = rate {
            properties::put_plain(out, kind, |out| out.put_u32(u32::from(rate) << 16));
        }
    }
    out.patch_u16(start + 8, out.len() - start);
}

/// Which queue: of requests for statistics and descriptions.
pub(super) fn read_which(v: Version, r: &mut Reader<'_>) -> Result<(PortNo, QueueNo), ErrorCode> {
    let port = ports::read_port(v, r)?;
    if v == Version::V10 {
        r.skip(2)?;
    }
    // OpenFlow 1.0 asks for all ports as later versions ask for any.
    let port = if v == Version::V10 && port == PortNo::ALL { PortNo::ANY } else { port };
    Ok((port, QueueNo(r.u32()?)))
}

pub(super) fn put_which(
    out: &mut Vec<u8>,
    v: Version,
    port: PortNo,
    queue: QueueNo,
) -> Result<(), EncodeError> {
    if v == Version::V10 {
        ports::put_port(out, v, if port == PortNo::ANY { PortNo::ALL } else { port })?;
        out.put_zeros(2);
    } else {
        out.put_u32(port.0);
    }
    out.put_u32(queue.0);
    Ok(())
}

pub(super) fn read_stats(v: Version, r: &mut Reader<'_>) -> Result<QueueStats, ErrorCode> {
    if v >= Version::V14 {
        let len = usize::from(r.u16()?);
        r.skip(6)?;
        let mut e = r.sub(len.checked_sub(8).ok_or(r.short())?, r.short())?;
        return read_stats(Version::V13, &mut e);
    }
    let port = ports::read_port(v, r)?;
    if v == Version::V10 {
        r.skip(2)?;
    }
    let (queue, tx_bytes, tx_packets, tx_errors) = (QueueNo(r.u32()?), r.u64()?, r.u64()?, r.u64()?);
    let unknown = (u32::MAX, u32::MAX);
    let (duration_sec, duration_nsec) = if v >= Version::V13 { (r.u32()?, r.u32()?) } else { unknown };
    Ok(QueueStats { port, queue, tx_bytes, tx_packets, tx_errors, duration_sec, duration_nsec })
}

pub(super) fn put_stats(out: &mut Vec<u8>, v: Version, s: &QueueStats) -> Result<(), EncodeError> {
    if v >= Version::V14 {
        out.put_u16(48);
        out.put_zeros(6);
    }
    ports::put_port(out, v, s.port)?;
    if v == Version::V10 {
        out.put_zeros(2);
    }
    out.put_u32(s.queue.0);
    out.put_u64(s.tx_bytes);
    out.put_u64(s.tx_packets);
    out.put_u64(s.tx_errors);
    if v >= Version::V13 {
        out.put_u32(s.duration_sec);
        out.put_u32(s.duration_nsec);
    }
    Ok(())
}
