//! Multipart requests and replies on the wire (OpenFlow 1.3.5 7.3.5), with replies split into parts.

use super::cursor::{Put, Reader};
use super::instructions::{put_instructions, read_instructions};
use super::matches::{put_match, read_match};
use super::messages::MULTIPART_REPLY;
use super::{EncodeError, MAX_MESSAGE_BYTES, finish, groups, meters, ports, put_header, table_features};
use crate::error::{BadInstruction, BadRequest, ErrorCode};
use crate::flow_mod::FlowModFlags;
use crate::message::Body;
use crate::multipart::{
    AggregateStats, Desc, FlowStats, FlowStatsRequest, MultipartReply, MultipartRequest, TableStats,
};
use crate::number::{GroupId, MeterNo, PortNo, QueueNo, TableId, Xid};
use crate::version::Version;

const DESC: u16 = 0;
const FLOW: u16 = 1;
const AGGREGATE: u16 = 2;
const TABLE: u16 = 3;
const PORT_STATS: u16 = 4;
const QUEUE: u16 = 5;
const GROUP: u16 = 6;
const GROUP_DESC: u16 = 7;
const GROUP_FEATURES: u16 = 8;
const METER: u16 = 9;
const METER_CONFIG: u16 = 10;
const METER_FEATURES: u16 = 11;
const TABLE_FEATURES: u16 = 12;
const PORT_DESC: u16 = 13;
const EXPERIMENTER: u16 = 0xffff;

/// `OFPMPF_REQ_MORE` and `OFPMPF_REPLY_MORE`.
const MORE: u16 = 1;
const DESC_BYTES: usize = 256;
const SERIAL_BYTES: usize = 32;

fn read_header(r: &mut Reader<'_>) -> Result<(u16, bool), ErrorCode> {
    let (kind, flags) = (r.u16()?, r.u16()?);
    r.skip(4)?;
    Ok((kind, flags & MORE != 0))
}

/// A 32-bit number and four bytes of padding.
fn padded(r: &mut Reader<'_>) -> Result<u32, ErrorCode> {
    let v = r.u32()?;
    r.skip(4)?;
    Ok(v)
}

/// Reads elements to the end of `r`. Every element uses at least one byte, so this ends.
fn read_all<'a, T>(
    r: &mut Reader<'a>,
    mut one: impl FnMut(&mut Reader<'a>) -> Result<T, ErrorCode>,
) -> Result<Vec<T>, ErrorCode> {
    let mut all = Vec::new();
    while !r.is_empty() {
        all.push(one(r)?);
    }
    Ok(all)
}

pub(super) fn read_request(r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let (kind, more) = read_header(r)?;
    let request = match kind {
        DESC => MultipartRequest::Desc,
        FLOW => MultipartRequest::Flow(Box::new(read_flow_request(r)?)),
        AGGREGATE => MultipartRequest::Aggregate(Box::new(read_flow_request(r)?)),
        TABLE => MultipartRequest::Table,
        PORT_STATS => MultipartRequest::PortStats(PortNo(padded(r)?)),
        QUEUE => MultipartRequest::Queue(PortNo(r.u32()?), QueueNo(r.u32()?)),
        GROUP => MultipartRequest::Group(GroupId(padded(r)?)),
        GROUP_DESC => MultipartRequest::GroupDesc,
        GROUP_FEATURES => MultipartRequest::GroupFeatures,
        METER => MultipartRequest::Meter(MeterNo(padded(r)?)),
        METER_CONFIG => MultipartRequest::MeterConfig(MeterNo(padded(r)?)),
        METER_FEATURES => MultipartRequest::MeterFeatures,
        TABLE_FEATURES => MultipartRequest::TableFeatures(read_all(r, table_features::read)?),
        PORT_DESC => MultipartRequest::PortDesc,
        EXPERIMENTER => MultipartRequest::Experimenter {
            experimenter: r.u32()?,
            exp_type: r.u32()?,
            data: r.rest().to_vec(),
        },
        _ => return Err(BadRequest::BadMultipart.into()),
    };
    Ok(Body::MultipartRequest { more, request })
}

fn read_flow_request(r: &mut Reader<'_>) -> Result<FlowStatsRequest, ErrorCode> {
    let table = TableId(r.u8()?);
    r.skip(3)?;
    let (out_port, out_group) = (PortNo(r.u32()?), GroupId(r.u32()?));
    r.skip(4)?;
    let (cookie, cookie_mask) = (r.u64()?, r.u64()?);
    Ok(FlowStatsRequest { table, out_port, out_group, cookie, cookie_mask, matches: read_match(r)? })
}

fn put_flow_request(out: &mut Vec<u8>, f: &FlowStatsRequest) -> Result<(), EncodeError> {
    out.put_u8(f.table.0);
    out.put_zeros(3);
    out.put_u32(f.out_port.0);
    out.put_u32(f.out_group.0);
    out.put_zeros(4);
    out.put_u64(f.cookie);
    out.put_u64(f.cookie_mask);
    put_match(out, &f.matches)
}

/// Appends the body of a request.
pub(super) fn put_request(
    out: &mut Vec<u8>,
    more: bool,
    request: &MultipartRequest,
) -> Result<(), EncodeError> {
    let begin = |out: &mut Vec<u8>, kind: u16| put_multipart_header(out, kind, more);
    let begin_padded = |out: &mut Vec<u8>, kind: u16, v: u32| {
        put_multipart_header(out, kind, more);
        out.put_u32(v);
        out.put_zeros(4);
    };
    match request {
        MultipartRequest::Desc => begin(out, DESC),
        MultipartRequest::Flow(f) => {
            begin(out, FLOW);
            put_flow_request(out, f)?;
        }
        MultipartRequest::Aggregate(f) => {
            begin(out, AGGREGATE);
            put_flow_request(out, f)?;
        }
        MultipartRequest::Table => begin(out, TABLE),
        MultipartRequest::PortStats(p) => begin_padded(out, PORT_STATS, p.0),
        MultipartRequest::Queue(p, q) => {
            begin(out, QUEUE);
            out.put_u32(p.0);
            out.put_u32(q.0);
        }
        MultipartRequest::Group(g) => begin_padded(out, GROUP, g.0),
        MultipartRequest::GroupDesc => begin(out, GROUP_DESC),
        MultipartRequest::GroupFeatures => begin(out, GROUP_FEATURES),
        MultipartRequest::Meter(m) => begin_padded(out, METER, m.0),
        MultipartRequest::MeterConfig(m) => begin_padded(out, METER_CONFIG, m.0),
        MultipartRequest::MeterFeatures => begin(out, METER_FEATURES),
        MultipartRequest::TableFeatures(tables) => {
            begin(out, TABLE_FEATURES);
            tables.iter().try_for_each(|t| table_features::put(out, t))?;
        }
        MultipartRequest::PortDesc => begin(out, PORT_DESC),
        MultipartRequest::Experimenter { experimenter, exp_type, data } => {
            begin(out, EXPERIMENTER);
            out.put_u32(*experimenter);
            out.put_u32(*exp_type);
            out.extend_from_slice(data);
        }
    }
    Ok(())
}

pub(super) fn read_reply(r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let (kind, more) = read_header(r)?;
    let reply = match kind {
        DESC => MultipartReply::Desc(Box::new(Desc {
            manufacturer: r.text(DESC_BYTES)?,
            hardware: r.text(DESC_BYTES)?,
            software: r.text(DESC_BYTES)?,
            serial: r.text(SERIAL_BYTES)?,
            datapath: r.text(DESC_BYTES)?,
        })),
        FLOW => MultipartReply::Flow(read_all(r, read_flow_stats)?),
        AGGREGATE => {
            let a = AggregateStats { packets: r.u64()?, bytes: r.u64()?, flows: r.u32()? };
            r.skip(4)?;
            MultipartReply::Aggregate(a)
        }
        TABLE => MultipartReply::Table(read_all(r, read_table_stats)?),
        PORT_STATS => MultipartReply::PortStats(read_all(r, ports::read_stats)?),
        QUEUE => MultipartReply::Queue(read_all(r, ports::read_queue_stats)?),
        GROUP => MultipartReply::Group(read_all(r, groups::read_stats)?),
        GROUP_DESC => MultipartReply::GroupDesc(read_all(r, groups::read_desc)?),
        GROUP_FEATURES => MultipartReply::GroupFeatures(groups::read_features(r)?),
        METER => MultipartReply::Meter(read_all(r, meters::read_stats)?),
        METER_CONFIG => MultipartReply::MeterConfig(read_all(r, meters::read_config)?),
        METER_FEATURES => MultipartReply::MeterFeatures(meters::read_features(r)?),
        TABLE_FEATURES => MultipartReply::TableFeatures(read_all(r, table_features::read)?),
        PORT_DESC => MultipartReply::PortDesc(read_all(r, ports::read_desc)?),
        EXPERIMENTER => MultipartReply::Experimenter {
            experimenter: r.u32()?,
            exp_type: r.u32()?,
            data: r.rest().to_vec(),
        },
        _ => return Err(BadRequest::BadMultipart.into()),
    };
    Ok(Body::MultipartReply { more, reply })
}

fn read_flow_stats(r: &mut Reader<'_>) -> Result<FlowStats, ErrorCode> {
    let len = usize::from(r.u16()?);
    let mut e = r.sub(len.checked_sub(2).ok_or(r.short())?, r.short())?;
    let table = TableId(e.u8()?);
    e.skip(1)?;
    let (duration_sec, duration_nsec) = (e.u32()?, e.u32()?);
    let (priority, idle_timeout, hard_timeout) = (e.u16()?, e.u16()?, e.u16()?);
    let (flags, importance) = (FlowModFlags(e.u16()?), e.u16()?);
    e.skip(2)?;
    let (cookie, packets, bytes) = (e.u64()?, e.u64()?, e.u64()?);
    let matches = read_match(&mut e)?;
    let instructions = read_instructions(&mut Reader::new(e.rest(), BadInstruction::BadLen))?;
    Ok(FlowStats {
        table,
        duration_sec,
        duration_nsec,
        priority,
        idle_timeout,
        hard_timeout,
        flags,
        importance,
        cookie,
        packets,
        bytes,
        matches,
        instructions,
    })
}

fn put_flow_stats(out: &mut Vec<u8>, f: &FlowStats) -> Result<(), EncodeError> {
    let start = out.len();
    out.put_u16(0);
    out.put_u8(f.table.0);
    out.put_u8(0);
    out.put_u32(f.duration_sec);
    out.put_u32(f.duration_nsec);
    out.put_u16(f.priority);
    out.put_u16(f.idle_timeout);
    out.put_u16(f.hard_timeout);
    out.put_u16(f.flags.0);
    // Importance is padding before OpenFlow 1.4.
    out.put_zeros(4);
    out.put_u64(f.cookie);
    out.put_u64(f.packets);
    out.put_u64(f.bytes);
    put_match(out, &f.matches)?;
    put_instructions(out, &f.instructions)?;
    let len = out.len() - start;
    out.patch_u16(start, len);
    Ok(())
}

fn read_table_stats(r: &mut Reader<'_>) -> Result<TableStats, ErrorCode> {
    let table = TableId(r.u8()?);
    r.skip(3)?;
    Ok(TableStats { table, active: r.u32()?, lookups: r.u64()?, matched: r.u64()? })
}

fn put_multipart_header(out: &mut Vec<u8>, kind: u16, more: bool) {
    out.put_u16(kind);
    out.put_u16(if more { MORE } else { 0 });
    out.put_zeros(4);
}

/// Appends a reply: one message, or several when its elements do not fit in one.
pub(super) fn put_reply(
    out: &mut Vec<u8>,
    xid: Xid,
    more: bool,
    reply: &MultipartReply,
) -> Result<(), EncodeError> {
    let mut w = Parts { out, xid, more, kind: 0, start: 0 };
    match reply {
        MultipartReply::Desc(d) => w.one(DESC, |out| {
            out.put_text(&d.manufacturer, DESC_BYTES);
            out.put_text(&d.hardware, DESC_BYTES);
            out.put_text(&d.software, DESC_BYTES);
            out.put_text(&d.serial, SERIAL_BYTES);
            out.put_text(&d.datapath, DESC_BYTES);
        }),
        MultipartReply::Flow(v) => w.list(FLOW, v, put_flow_stats),
        MultipartReply::Aggregate(a) => w.one(AGGREGATE, |out| {
            out.put_u64(a.packets);
            out.put_u64(a.bytes);
            out.put_u32(a.flows);
            out.put_zeros(4);
        }),
        MultipartReply::Table(v) => w.list(TABLE, v, |out, t| {
            out.put_u8(t.table.0);
            out.put_zeros(3);
            out.put_u32(t.active);
            out.put_u64(t.lookups);
            out.put_u64(t.matched);
            Ok(())
        }),
        MultipartReply::PortStats(v) => w.list(PORT_STATS, v, |out, s| {
            ports::put_stats(out, s);
            Ok(())
        }),
        MultipartReply::Queue(v) => w.list(QUEUE, v, |out, s| {
            ports::put_queue_stats(out, s);
            Ok(())
        }),
        MultipartReply::Group(v) => w.list(GROUP, v, groups::put_stats),
        MultipartReply::GroupDesc(v) => w.list(GROUP_DESC, v, groups::put_desc),
        MultipartReply::GroupFeatures(f) => w.one(GROUP_FEATURES, |out| groups::put_features(out, f)),
        MultipartReply::Meter(v) => w.list(METER, v, meters::put_stats),
        MultipartReply::MeterConfig(v) => w.list(METER_CONFIG, v, meters::put_config),
        MultipartReply::MeterFeatures(f) => w.one(METER_FEATURES, |out| meters::put_features(out, f)),
        MultipartReply::TableFeatures(v) => w.list(TABLE_FEATURES, v, table_features::put),
        MultipartReply::PortDesc(v) => w.list(PORT_DESC, v, |out, p| {
            ports::put_desc(out, p);
            Ok(())
        }),
        MultipartReply::Experimenter { experimenter, exp_type, data } => w.one(EXPERIMENTER, |out| {
            out.put_u32(*experimenter);
            out.put_u32(*exp_type);
            out.extend_from_slice(data);
        }),
    }
}

/// Writes the parts of one reply.
struct Parts<'a> {
    out: &'a mut Vec<u8>,
    xid: Xid,
    /// Whether the last part has `more` set too.
    more: bool,
    kind: u16,
    /// Where the current part begins.
    start: usize,
}

impl Parts<'_> {
    fn begin(&mut self) {
        self.start = self.out.len();
        put_header(self.out, Version::V13, MULTIPART_REPLY, self.xid);
        put_multipart_header(self.out, self.kind, self.more);
    }

    fn one(&mut self, kind: u16, put: impl FnOnce(&mut Vec<u8>)) -> Result<(), EncodeError> {
        self.kind = kind;
        self.begin();
        put(self.out);
        finish(self.out, self.start)
    }

    fn list<T>(
        &mut self,
        kind: u16,
        items: &[T],
        put: impl Fn(&mut Vec<u8>, &T) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.kind = kind;
        self.begin();
        let empty = self.out.len() - self.start;
        for item in items {
            let at = self.out.len();
            put(self.out, item)?;
            if self.out.len() - self.start <= MAX_MESSAGE_BYTES {
                continue;
            }
            if at - self.start == empty {
                return Err(EncodeError::TooLong);
            }
            // This one goes to a part of its own.
            let moved = self.out.split_off(at);
            self.out.patch_u16(self.start + 10, usize::from(MORE));
            finish(self.out, self.start)?;
            self.begin();
            self.out.extend_from_slice(&moved);
        }
        finish(self.out, self.start)
    }
}
