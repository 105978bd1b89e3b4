//! Multipart requests and replies on the wire (OpenFlow 1.0.1 5.3.5, where they are called statistics; OpenFlow 1.3.5
//! 7.3.5), with replies split into parts.

use super::cursor::{Put, Reader};
use super::kind::Kind;
use super::{
    Dialect, EncodeError, MAX_MESSAGE_BYTES, NICIRA, ONF, finish, flow_monitor, flow_stats, groups,
    match_fixed, meters, ports, put_header, queues, table_features, tables,
};
use crate::error::{BadRequest, ErrorCode};
use crate::message::Body;
use crate::multipart::{BundleFeatures, Desc, IpfixStats, MultipartReply, MultipartRequest};
use crate::number::{GroupId, MeterNo, PortNo, Xid};
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
const TABLE_DESC: u16 = 14;
const QUEUE_DESC: u16 = 15;
const FLOW_MONITOR: u16 = 16;
const BUNDLE_FEATURES: u16 = 19;
const EXPERIMENTER: u16 = 0xffff;

// Nicira's subtypes.
const NX_FLOW: u32 = 0;
const NX_AGGREGATE: u32 = 1;
const NX_FLOW_MONITOR: u32 = 2;
const NX_IPFIX_BRIDGE: u32 = 3;
const NX_IPFIX_FLOW: u32 = 4;
const NX_GROUP: u32 = 7;
const NX_GROUP_DESC: u32 = 8;
const NX_GROUP_FEATURES: u32 = 9;
const ONF_FLOW_MONITOR: u32 = 1870;

/// `OFPMPF_REQ_MORE` and `OFPMPF_REPLY_MORE`.
const MORE: u16 = 1;
const DESC_BYTES: usize = 256;
const SERIAL_BYTES: usize = 32;

/// What a message is about: a type of the version's own, or somebody's subtype.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    Own(u16),
    Nicira(u32),
    Onf(u32),
}

/// Types that came with a version, by the first that has them.
fn since(kind: u16) -> Version {
    match kind {
        0..=5 | PORT_DESC => Version::V10,
        GROUP | GROUP_DESC => Version::V11,
        GROUP_FEATURES => Version::V12,
        METER..=TABLE_FEATURES => Version::V13,
        TABLE_DESC..=FLOW_MONITOR => Version::V14,
        _ => Version::V15,
    }
}

/// Reads the header; `Err` with who and what when it is nobody's we know.
#[allow(clippy::type_complexity)]
fn read_header(v: Version, r: &mut Reader<'_>) -> Result<(Result<Subject, (u32, u32)>, bool), ErrorCode> {
    let (kind, flags) = (r.u16()?, r.u16()?);
    if v != Version::V10 {
        r.skip(4)?;
    }
    let more = flags & MORE != 0;
    if kind != EXPERIMENTER {
        let known = kind <= FLOW_MONITOR || kind == BUNDLE_FEATURES;
        if !known || v < since(kind) {
            return Err(BadRequest::BadMultipart.into());
        }
        return Ok((Ok(Subject::Own(kind)), more));
    }
    let (who, what) = (r.u32()?, r.u32()?);
    let known = match who {
        NICIRA => {
            let ok = match what {
                NX_FLOW | NX_AGGREGATE | NX_GROUP | NX_GROUP_DESC => v == Version::V10,
                NX_GROUP_FEATURES => v <= Version::V11,
                NX_FLOW_MONITOR => v < Version::V13,
                NX_IPFIX_BRIDGE | NX_IPFIX_FLOW => true,
                _ => false,
            };
            if ok && v == Version::V10 {
                r.skip(4)?;
            }
            ok.then_some(Subject::Nicira(what))
        }
        ONF => (v == Version::V13 && what == ONF_FLOW_MONITOR).then_some(Subject::Onf(what)),
        _ => None,
    };
    Ok((known.ok_or((who, what)), more))
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

fn read_port_request(v: Version, r: &mut Reader<'_>) -> Result<PortNo, ErrorCode> {
    let port = ports::read_port(v, r)?;
    r.skip(if v == Version::V10 { 6 } else { 4 })?;
    Ok(port)
}

pub(super) fn read_request(v: Version, r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let (subject, more) = read_header(v, r)?;
    use Subject::{Nicira, Onf, Own};
    let request = match subject {
        Err((experimenter, exp_type)) => {
            MultipartRequest::Experimenter { experimenter, exp_type, data: r.rest().to_vec() }
        }
        Ok(subject) => match subject {
            Own(DESC) => MultipartRequest::Desc,
            Own(FLOW) => MultipartRequest::Flow(Box::new(flow_stats::read_request(v, r)?)),
            Own(AGGREGATE) => MultipartRequest::Aggregate(Box::new(flow_stats::read_request(v, r)?)),
            Nicira(NX_FLOW) => MultipartRequest::Flow(Box::new(flow_stats::read_nx_request(r)?)),
            Nicira(NX_AGGREGATE) => MultipartRequest::Aggregate(Box::new(flow_stats::read_nx_request(r)?)),
            Own(TABLE) => MultipartRequest::Table,
            Own(PORT_STATS) => MultipartRequest::PortStats(read_port_request(v, r)?),
            Own(QUEUE) => {
                let (port, queue) = queues::read_which(v, r)?;
                MultipartRequest::Queue(port, queue)
            }
            Own(GROUP) | Nicira(NX_GROUP) => MultipartRequest::Group(GroupId(padded(r)?)),
            Own(GROUP_DESC) if v < Version::V15 => MultipartRequest::GroupDesc(GroupId::ALL),
            Own(GROUP_DESC) | Nicira(NX_GROUP_DESC) => MultipartRequest::GroupDesc(GroupId(padded(r)?)),
            Own(GROUP_FEATURES) | Nicira(NX_GROUP_FEATURES) => MultipartRequest::GroupFeatures,
            Own(METER) => MultipartRequest::Meter(MeterNo(padded(r)?)),
            Own(METER_CONFIG) => MultipartRequest::MeterConfig(MeterNo(padded(r)?)),
            Own(METER_FEATURES) => MultipartRequest::MeterFeatures,
            Own(TABLE_FEATURES) => {
                MultipartRequest::TableFeatures(read_all(r, |r| table_features::read(v, r))?)
            }
            Own(PORT_DESC) if v < Version::V15 => MultipartRequest::PortDesc(PortNo::ANY),
            Own(PORT_DESC) => MultipartRequest::PortDesc(PortNo(padded(r)?)),
            Own(TABLE_DESC) => MultipartRequest::TableDesc,
            Own(QUEUE_DESC) => {
                let (port, queue) = queues::read_which(v, r)?;
                MultipartRequest::QueueDesc(port, queue)
            }
            Own(FLOW_MONITOR) | Nicira(NX_FLOW_MONITOR) | Onf(_) => {
                MultipartRequest::FlowMonitor(read_all(r, |r| flow_monitor::read_request(v, r))?)
            }
            Own(BUNDLE_FEATURES) => {
                // What the request asks of scheduled bundles, which there are none of.
                r.rest();
                MultipartRequest::BundleFeatures
            }
            Nicira(NX_IPFIX_BRIDGE) => MultipartRequest::IpfixBridge,
            Nicira(NX_IPFIX_FLOW) => MultipartRequest::IpfixFlow,
            Own(_) | Nicira(_) => return Err(BadRequest::BadMultipart.into()),
        },
    };
    Ok(Body::MultipartRequest { more, request })
}

/// How the version says a subject.
fn subject(v: Version, own: u16, nicira: Option<u32>) -> Result<Subject, EncodeError> {
    if v >= since(own) {
        return Ok(Subject::Own(own));
    }
    match nicira {
        Some(what) => Ok(Subject::Nicira(what)),
        None => Err(EncodeError::Version(v)),
    }
}

fn monitor_subject(v: Version) -> Subject {
    match v {
        Version::V13 => Subject::Onf(ONF_FLOW_MONITOR),
        v if v < Version::V13 => Subject::Nicira(NX_FLOW_MONITOR),
        _ => Subject::Own(FLOW_MONITOR),
    }
}

/// Appends the body of a request.
pub(super) fn put_request(
    out: &mut Vec<u8>,
    v: Version,
    more: bool,
    request: &MultipartRequest,
) -> Result<(), EncodeError> {
    use MultipartRequest as R;
    let nx_flow = |f: &crate::multipart::FlowStatsRequest| {
        v == Version::V10 && (f.nicira || f.cookie_mask != 0 || !match_fixed::fits10(&f.matches, 0))
    };
    let subject = match request {
        R::Desc => Subject::Own(DESC),
        R::Flow(f) if nx_flow(f) => Subject::Nicira(NX_FLOW),
        R::Flow(_) => Subject::Own(FLOW),
        R::Aggregate(f) if nx_flow(f) => Subject::Nicira(NX_AGGREGATE),
        R::Aggregate(_) => Subject::Own(AGGREGATE),
        R::Table => Subject::Own(TABLE),
        R::PortStats(_) => Subject::Own(PORT_STATS),
        R::Queue(..) => Subject::Own(QUEUE),
        R::Group(_) => subject(v, GROUP, Some(NX_GROUP))?,
        R::GroupDesc(_) => subject(v, GROUP_DESC, Some(NX_GROUP_DESC))?,
        R::GroupFeatures => subject(v, GROUP_FEATURES, Some(NX_GROUP_FEATURES))?,
        R::Meter(_) => subject(v, METER, None)?,
        R::MeterConfig(_) => subject(v, METER_CONFIG, None)?,
        R::MeterFeatures => subject(v, METER_FEATURES, None)?,
        R::TableFeatures(_) => subject(v, TABLE_FEATURES, None)?,
        R::PortDesc(_) => Subject::Own(PORT_DESC),
        R::TableDesc => subject(v, TABLE_DESC, None)?,
        R::QueueDesc(..) => subject(v, QUEUE_DESC, None)?,
        R::FlowMonitor(_) => monitor_subject(v),
        R::BundleFeatures => subject(v, BUNDLE_FEATURES, None)?,
        R::IpfixBridge => Subject::Nicira(NX_IPFIX_BRIDGE),
        R::IpfixFlow => Subject::Nicira(NX_IPFIX_FLOW),
        R::Experimenter { experimenter, exp_type, data } => {
            put_own_header(out, v, EXPERIMENTER, more);
            out.put_u32(*experimenter);
            out.put_u32(*exp_type);
            out.extend_from_slice(data);
            return Ok(());
        }
    };
    put_subject(out, v, subject, more);
    let padded = |out: &mut Vec<u8>, n: u32| {
        out.put_u32(n);
        out.put_zeros(4);
    };
    match request {
        R::Flow(f) | R::Aggregate(f) if matches!(subject, Subject::Nicira(_)) => {
            flow_stats::put_nx_request(out, f)?
        }
        R::Flow(f) | R::Aggregate(f) => flow_stats::put_request(out, v, f)?,
        R::PortStats(p) => {
            ports::put_port(out, v, *p)?;
            out.put_zeros(if v == Version::V10 { 6 } else { 4 });
        }
        R::Queue(p, q) | R::QueueDesc(p, q) => queues::put_which(out, v, *p, *q)?,
        R::Group(g) => padded(out, g.0),
        R::GroupDesc(g) if v == Version::V15 || v == Version::V10 => padded(out, g.0),
        R::Meter(m) | R::MeterConfig(m) => padded(out, m.0),
        R::TableFeatures(tables) => tables.iter().try_for_each(|t| table_features::put(out, v, t))?,
        R::PortDesc(p) if v == Version::V15 => padded(out, p.0),
        R::FlowMonitor(m) => m.iter().try_for_each(|m| flow_monitor::put_request(out, v, m))?,
        // Nothing is asked of scheduled bundles.
        R::BundleFeatures => out.put_zeros(8),
        _ => {}
    }
    Ok(())
}

fn put_own_header(out: &mut Vec<u8>, v: Version, kind: u16, more: bool) {
    out.put_u16(kind);
    out.put_u16(if more { MORE } else { 0 });
    if v != Version::V10 {
        out.put_zeros(4);
    }
}

fn put_subject(out: &mut Vec<u8>, v: Version, s: Subject, more: bool) {
    let (who, what) = match s {
        Subject::Own(kind) => return put_own_header(out, v, kind, more),
        Subject::Nicira(what) => (NICIRA, what),
        Subject::Onf(what) => (ONF, what),
    };
    put_own_header(out, v, EXPERIMENTER, more);
    out.put_u32(who);
    out.put_u32(what);
    if v == Version::V10 {
        out.put_zeros(4);
    }
}

pub(super) fn read_reply(v: Version, r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let (subject, more) = read_header(v, r)?;
    use Subject::{Nicira, Onf, Own};
    let reply = match subject {
        Err((experimenter, exp_type)) => {
            MultipartReply::Experimenter { experimenter, exp_type, data: r.rest().to_vec() }
        }
        Ok(subject) => match subject {
            Own(DESC) => MultipartReply::Desc(Box::new(Desc {
                manufacturer: r.text(DESC_BYTES)?,
                hardware: r.text(DESC_BYTES)?,
                software: r.text(DESC_BYTES)?,
                serial: r.text(SERIAL_BYTES)?,
                datapath: r.text(DESC_BYTES)?,
            })),
            Own(FLOW) => MultipartReply::Flow(read_all(r, |r| flow_stats::read(v, r))?),
            Nicira(NX_FLOW) => MultipartReply::Flow(read_all(r, flow_stats::read_nx)?),
            Own(AGGREGATE) | Nicira(NX_AGGREGATE) => {
                MultipartReply::Aggregate(flow_stats::read_aggregate(v, r)?)
            }
            Own(TABLE) => MultipartReply::Table(read_all(r, |r| tables::read_stats(v, r))?),
            Own(PORT_STATS) => MultipartReply::PortStats(read_all(r, |r| ports::read_stats(v, r))?),
            Own(QUEUE) => MultipartReply::Queue(read_all(r, |r| queues::read_stats(v, r))?),
            Own(GROUP) | Nicira(NX_GROUP) => {
                MultipartReply::Group(read_all(r, |r| groups::read_stats(v, r))?)
            }
            Own(GROUP_DESC) | Nicira(NX_GROUP_DESC) => {
                MultipartReply::GroupDesc(read_all(r, |r| groups::read_desc(v, r))?)
            }
            Own(GROUP_FEATURES) | Nicira(NX_GROUP_FEATURES) => {
                MultipartReply::GroupFeatures(groups::read_features(r)?)
            }
            Own(METER) => MultipartReply::Meter(read_all(r, meters::read_stats)?),
            Own(METER_CONFIG) => MultipartReply::MeterConfig(read_all(r, meters::read_config)?),
            Own(METER_FEATURES) => MultipartReply::MeterFeatures(meters::read_features(v, r)?),
            Own(TABLE_FEATURES) => {
                MultipartReply::TableFeatures(read_all(r, |r| table_features::read(v, r))?)
            }
            Own(PORT_DESC) => MultipartReply::PortDesc(read_all(r, |r| ports::read_desc(v, r))?),
            Own(TABLE_DESC) => MultipartReply::TableDesc(read_all(r, tables::read_desc)?),
            Own(QUEUE_DESC) => MultipartReply::QueueDesc(read_all(r, queues::read_desc)?),
            Own(FLOW_MONITOR) | Nicira(NX_FLOW_MONITOR) | Onf(_) => {
                MultipartReply::FlowMonitor(read_all(r, |r| flow_monitor::read_update(v, r))?)
            }
            Own(BUNDLE_FEATURES) => {
                let capabilities = r.u16()?;
                r.rest();
                MultipartReply::BundleFeatures(BundleFeatures { capabilities })
            }
            Nicira(NX_IPFIX_BRIDGE) => MultipartReply::IpfixBridge(read_ipfix(r)?),
            Nicira(NX_IPFIX_FLOW) => MultipartReply::IpfixFlow(read_all(r, read_ipfix)?),
            Own(_) | Nicira(_) => return Err(BadRequest::BadMultipart.into()),
        },
    };
    Ok(Body::MultipartReply { more, reply })
}

fn ipfix_counters(s: &mut IpfixStats) -> [&mut u64; 10] {
    [
        &mut s.total_flows,
        &mut s.current_flows,
        &mut s.packets,
        &mut s.ipv4_packets,
        &mut s.ipv6_packets,
        &mut s.error_packets,
        &mut s.ipv4_error_packets,
        &mut s.ipv6_error_packets,
        &mut s.tx_packets,
        &mut s.tx_errors,
    ]
}

fn read_ipfix(r: &mut Reader<'_>) -> Result<IpfixStats, ErrorCode> {
    let mut s = IpfixStats::default();
    for c in ipfix_counters(&mut s) {
        *c = r.u64()?;
    }
    s.collector_set = padded(r)?;
    Ok(s)
}

fn put_ipfix(out: &mut Vec<u8>, s: &IpfixStats) {
    let mut s = *s;
    ipfix_counters(&mut s).into_iter().for_each(|c| out.put_u64(*c));
    out.put_u32(s.collector_set);
    out.put_zeros(4);
}

/// Appends a reply: one message, or several when its elements do not fit in one.
pub(super) fn put_reply(
    d: Dialect,
    out: &mut Vec<u8>,
    xid: Xid,
    more: bool,
    reply: &MultipartReply,
) -> Result<(), EncodeError> {
    use MultipartReply as R;
    let v = d.version;
    let nicira = v == Version::V10 && d.nicira_stats;
    let subject = match reply {
        R::Desc(_) => Subject::Own(DESC),
        R::Flow(_) if nicira => Subject::Nicira(NX_FLOW),
        R::Flow(_) => Subject::Own(FLOW),
        R::Aggregate(_) if nicira => Subject::Nicira(NX_AGGREGATE),
        R::Aggregate(_) => Subject::Own(AGGREGATE),
        R::Table(_) => Subject::Own(TABLE),
        R::PortStats(_) => Subject::Own(PORT_STATS),
        R::Queue(_) => Subject::Own(QUEUE),
        R::Group(_) => subject(v, GROUP, Some(NX_GROUP))?,
        R::GroupDesc(_) => subject(v, GROUP_DESC, Some(NX_GROUP_DESC))?,
        R::GroupFeatures(_) => subject(v, GROUP_FEATURES, Some(NX_GROUP_FEATURES))?,
        R::Meter(_) => subject(v, METER, None)?,
        R::MeterConfig(_) => subject(v, METER_CONFIG, None)?,
        R::MeterFeatures(_) => subject(v, METER_FEATURES, None)?,
        R::TableFeatures(_) => subject(v, TABLE_FEATURES, None)?,
        R::PortDesc(_) => Subject::Own(PORT_DESC),
        R::TableDesc(_) => subject(v, TABLE_DESC, None)?,
        R::QueueDesc(_) => subject(v, QUEUE_DESC, None)?,
        R::FlowMonitor(_) => monitor_subject(v),
        R::BundleFeatures(_) => subject(v, BUNDLE_FEATURES, None)?,
        R::IpfixBridge(_) => Subject::Nicira(NX_IPFIX_BRIDGE),
        R::IpfixFlow(_) => Subject::Nicira(NX_IPFIX_FLOW),
        R::Experimenter { .. } => Subject::Own(EXPERIMENTER),
    };
    let mut w = Parts { v, out, xid, more, subject, start: 0 };
    match reply {
        R::Desc(d) => w.one(|out| {
            out.put_text(&d.manufacturer, DESC_BYTES);
            out.put_text(&d.hardware, DESC_BYTES);
            out.put_text(&d.software, DESC_BYTES);
            out.put_text(&d.serial, SERIAL_BYTES);
            out.put_text(&d.datapath, DESC_BYTES);
        }),
        R::Flow(flows) if nicira => w.list(flows, flow_stats::put_nx),
        R::Flow(flows) => w.list(flows, |out, f| flow_stats::put(out, v, f)),
        R::Aggregate(a) => w.one(|out| flow_stats::put_aggregate(out, v, a)),
        R::Table(all) => w.list(all, |out, t| tables::put_stats(out, v, t)),
        R::PortStats(all) => w.list(all, |out, s| ports::put_stats(out, v, s)),
        R::Queue(all) => w.list(all, |out, s| queues::put_stats(out, v, s)),
        R::Group(all) => w.list(all, |out, s| groups::put_stats(out, v, s)),
        R::GroupDesc(all) => w.list(all, |out, d| groups::put_desc(out, v, d)),
        R::GroupFeatures(f) => w.one(|out| groups::put_features(out, v, f)),
        R::Meter(all) => w.list(all, meters::put_stats),
        R::MeterConfig(all) => w.list(all, meters::put_config),
        R::MeterFeatures(f) => w.one(|out| meters::put_features(out, f)),
        R::TableFeatures(all) => w.list(all, |out, t| table_features::put(out, v, t)),
        R::PortDesc(all) => w.list(all, |out, p| ports::put_desc(out, v, p)),
        R::TableDesc(all) => w.list(all, |out, t| {
            tables::put_desc(out, t);
            Ok(())
        }),
        R::QueueDesc(all) => w.list(all, |out, q| {
            queues::put_desc(out, q);
            Ok(())
        }),
        R::FlowMonitor(all) => w.list(all, |out, u| flow_monitor::put_update(out, v, u)),
        R::BundleFeatures(f) => w.one(|out| {
            out.put_u16(f.capabilities);
            out.put_zeros(6);
        }),
        R::IpfixBridge(s) => w.one(|out| put_ipfix(out, s)),
        R::IpfixFlow(all) => w.list(all, |out, s| {
            put_ipfix(out, s);
            Ok(())
        }),
        R::Experimenter { experimenter, exp_type, data } => w.one(|out| {
            out.put_u32(*experimenter);
            out.put_u32(*exp_type);
            out.extend_from_slice(data);
        }),
    }
}

/// Writes the parts of one reply.
struct Parts<'a> {
    v: Version,
    out: &'a mut Vec<u8>,
    xid: Xid,
    /// Whether the last part has `more` set too.
    more: bool,
    subject: Subject,
    /// Where the current part begins.
    start: usize,
}

impl Parts<'_> {
    fn begin(&mut self) -> Result<(), EncodeError> {
        self.start = self.out.len();
        let number = Kind::MultipartReply.to_wire(self.v).ok_or(EncodeError::Version(self.v))?;
        put_header(self.out, self.v, number, self.xid);
        put_subject(self.out, self.v, self.subject, self.more);
        Ok(())
    }

    fn one(&mut self, put: impl FnOnce(&mut Vec<u8>)) -> Result<(), EncodeError> {
        self.begin()?;
        put(self.out);
        finish(self.out, self.start)
    }

    fn list<T>(
        &mut self,
        items: &[T],
        put: impl Fn(&mut Vec<u8>, &T) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.begin()?;
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
            self.begin()?;
            self.out.extend_from_slice(&moved);
        }
        finish(self.out, self.start)
    }
}
