//! Random messages that have an encoding.
#![allow(clippy::unwrap_used)]

use flow::{FIELDS, FieldId, Maskable, PipelineMatch, prereq};
use openflow::error::*;
use openflow::flow_mod::*;
use openflow::group::*;
use openflow::message::*;
use openflow::meter::*;
use openflow::multipart::*;
use openflow::port::*;
use openflow::table_features::*;
use openflow::version::VersionSet;
use openflow::wire::has_number;
use openflow::*;
use rand::Rng;
use rand::rngs::StdRng;

fn some<T>(r: &mut StdRng, max: usize, mut one: impl FnMut(&mut StdRng) -> T) -> Vec<T> {
    (0..r.random_range(0..=max)).map(|_| one(r)).collect()
}

fn bytes(r: &mut StdRng) -> Vec<u8> {
    some(r, 40, |r| r.random())
}

fn text(r: &mut StdRng, max: usize) -> String {
    some(r, max, |r| char::from(r.random_range(b'a'..=b'z'))).into_iter().collect()
}

fn pick<T: Copy>(r: &mut StdRng, of: &[T]) -> T {
    of[r.random_range(0..of.len())]
}

fn port(r: &mut StdRng) -> PortNo {
    if r.random() {
        PortNo(r.random_range(1..0xff00))
    } else {
        pick(r, &[PortNo::IN_PORT, PortNo::LOCAL, PortNo::ALL])
    }
}

pub fn matches(r: &mut StdRng) -> PipelineMatch {
    let mut m = PipelineMatch::ANY;
    if r.random_bool(0.8) {
        let t = pick(r, &[0x800u128, 0x86dd, 0x806, 0x8847, 0x88cc]);
        m.set(FieldId::EthType, t);
        if t == 0x800 || t == 0x86dd {
            let proto = pick(r, &[6u128, 17, 132, 1, 58]);
            m.set(FieldId::NwProto, proto);
            if t == 0x86dd && proto == 58 {
                m.set(FieldId::Icmp6Type, pick(r, &[135, 136]));
                m.set(FieldId::Icmp6Code, 0);
            }
        }
    }
    if r.random_bool(0.3) {
        let tci = u128::from(r.random::<u16>()) | 0x1000;
        let mask = pick(r, &[0x1fff, 0x1000, 0x1fff | 0xe000, 0x10ff, 0xf000, 0x3123]);
        m.set_masked(FieldId::VlanTci, tci & mask | 0x1000, mask);
    }
    for _ in 0..r.random_range(0..8) {
        let f = &FIELDS[r.random_range(0..FIELDS.len())];
        // Bits already there must stay: prerequisites.
        if !has_number(f.id) || !prereq::satisfied(&m, f.id) || m.mask().get(f.id) != 0 {
            continue;
        }
        // Made above; untagged ones change: a packet without a tag has no priority to speak of.
        if f.canon == FieldId::VlanTci {
            continue;
        }
        let mask = if f.mask == Maskable::Any && r.random() { r.random::<u128>() & f.max() } else { f.max() };
        let mask = if f.id == FieldId::NwFrag { mask & 3 } else { mask };
        let before = m;
        // Only some numbers can be a port's.
        let value = if f.id == FieldId::InPort { u128::from(port(r).0) } else { r.random::<u128>() };
        m.set_masked(f.id, value & mask, mask);
        // Fragments and packet types can take away what other fields need.
        if !prereq::normalize(&m).1.is_empty() {
            m = before;
        }
    }
    m
}

fn subfield(r: &mut StdRng, bits: u16) -> Subfield {
    loop {
        let f = &FIELDS[r.random_range(0..FIELDS.len())];
        let width = u16::from(f.bits);
        if f.writable && has_number(f.id) && width >= bits {
            return Subfield { field: f.id, offset: r.random_range(0..=width - bits), bits };
        }
    }
}

fn action(r: &mut StdRng) -> Action {
    match r.random_range(0..26) {
        0 => Action::Output { port: port(r), max_len: r.random() },
        1 => Action::Group(GroupId(r.random())),
        2 => Action::SetQueue(QueueNo(r.random())),
        3 => Action::SetNwTtl(r.random()),
        4 => Action::DecNwTtl { controllers: some(r, 5, |r| r.random()) },
        5 => Action::SetMplsTtl(r.random()),
        6 => Action::DecMplsTtl,
        7 => Action::CopyTtlOut,
        8 => Action::CopyTtlIn,
        9 => Action::PushVlan(pick(r, &[0x8100, 0x88a8])),
        10 => Action::PopVlan,
        11 => Action::PushMpls(pick(r, &[0x8847, 0x8848])),
        12 => Action::PopMpls(r.random()),
        13 => Action::PushPbb(0x88e7),
        14 => Action::PopPbb,
        15 | 16 => {
            let s = subfield(r, 1);
            let max = s.field.info().max();
            if s.field == FieldId::InPort {
                return Action::SetField { field: s.field, value: port(r).0.into(), mask: max };
            }
            let mask = if r.random() { max } else { (r.random::<u128>() & max) | 1 };
            Action::SetField { field: s.field, value: r.random::<u128>() & mask, mask }
        }
        17 => {
            let bits = r.random_range(1..=32);
            let dst = subfield(r, bits);
            Action::RegLoad { dst, value: r.random::<u64>() >> (64 - bits) }
        }
        18 => {
            let bits = r.random_range(1..=32);
            Action::RegMove { src: subfield(r, bits), dst: subfield(r, bits) }
        }
        19 => {
            let bits = r.random_range(1..=32);
            Action::OutputReg { src: subfield(r, bits), max_len: r.random() }
        }
        20 => Action::Resubmit {
            port: port(r),
            table: r.random::<bool>().then(|| TableId(r.random_range(0..255))),
        },
        21 => Action::Controller {
            max_len: r.random(),
            controller_id: r.random(),
            reason: r.random_range(0..3),
        },
        22 => {
            let wide = r.random();
            Action::SetTunnel { id: if wide { r.random() } else { r.random::<u32>().into() }, wide }
        }
        23 => pick(r, &[0, 1]).then(|| Action::PopQueue, || Action::Exit),
        24 => Action::OutputTrunc { port: port(r), max_len: r.random() },
        _ => {
            // Ten bytes of header: a note of six and then multiples of eight is not padded.
            let n = 6 + 8 * r.random_range(0..4);
            Action::Note((0..n).map(|_| r.random()).collect())
        }
    }
}

/// Chooses between two values.
trait Then {
    fn then<T>(self, zero: impl FnOnce() -> T, other: impl FnOnce() -> T) -> T;
}
impl Then for i32 {
    fn then<T>(self, zero: impl FnOnce() -> T, other: impl FnOnce() -> T) -> T {
        if self == 0 { zero() } else { other() }
    }
}

fn actions(r: &mut StdRng) -> Vec<Action> {
    some(r, 6, action)
}

fn instructions(r: &mut StdRng) -> Instructions {
    Instructions {
        meter: r.random::<bool>().then(|| MeterNo(r.random())),
        apply: actions(r),
        clear: r.random(),
        write: actions(r),
        metadata: r.random::<bool>().then(|| (r.random(), r.random())),
        goto_table: r.random::<bool>().then(|| TableId(r.random())),
    }
}

fn port_desc(r: &mut StdRng) -> PortDesc {
    PortDesc {
        port: port(r),
        hw_addr: MacAddr(r.random()),
        name: text(r, 15),
        config: PortConfig(r.random()),
        state: PortState(r.random()),
        current: PortFeatures(r.random()),
        advertised: PortFeatures(r.random()),
        supported: PortFeatures(r.random()),
        peer: PortFeatures(r.random()),
        current_speed_kbps: r.random(),
        max_speed_kbps: r.random(),
    }
}

fn bucket(r: &mut StdRng) -> Bucket {
    Bucket {
        weight: r.random(),
        watch_port: PortNo(r.random()),
        watch_group: GroupId(r.random()),
        actions: actions(r),
    }
}

fn band(r: &mut StdRng) -> MeterBand {
    let kind = match r.random_range(0..3) {
        0 => MeterBandKind::Drop,
        1 => MeterBandKind::DscpRemark { prec_level: r.random() },
        _ => MeterBandKind::Experimenter { experimenter: r.random() },
    };
    MeterBand { kind, rate: r.random(), burst_size: r.random() }
}

fn group_type(r: &mut StdRng) -> GroupType {
    pick(r, &[GroupType::All, GroupType::Select, GroupType::Indirect, GroupType::FastFailover])
}

fn meter_flags(r: &mut StdRng) -> MeterFlags {
    MeterFlags(r.random_range(0..16))
}

fn feature_types(r: &mut StdRng) -> Vec<FeatureType> {
    some(r, 5, |r| {
        if r.random() {
            FeatureType::Plain(r.random_range(0..100))
        } else {
            FeatureType::Experimenter(r.random())
        }
    })
}

fn feature_fields(r: &mut StdRng) -> Vec<FeatureField> {
    some(r, 6, |r| FeatureField::Known { field: subfield(r, 1).field, maskable: r.random() })
}

fn table_features(r: &mut StdRng) -> TableFeatures {
    TableFeatures {
        table: TableId(r.random()),
        name: text(r, 31),
        metadata_match: r.random(),
        metadata_write: r.random(),
        config: r.random(),
        max_entries: r.random(),
        properties: some(r, 9, |r| {
            let miss = r.random();
            match r.random_range(0..9) {
                0 => TableProperty::Instructions { miss, types: feature_types(r) },
                1 => TableProperty::NextTables { miss, tables: some(r, 9, |r| TableId(r.random())) },
                2 => TableProperty::WriteActions { miss, types: feature_types(r) },
                3 => TableProperty::ApplyActions { miss, types: feature_types(r) },
                4 => TableProperty::Match(feature_fields(r)),
                5 => TableProperty::Wildcards(feature_fields(r)),
                6 => TableProperty::WriteSetField { miss, fields: feature_fields(r) },
                7 => TableProperty::ApplySetField { miss, fields: feature_fields(r) },
                _ => TableProperty::Experimenter {
                    miss,
                    experimenter: r.random(),
                    exp_type: r.random(),
                    data: bytes(r),
                },
            }
        }),
    }
}

fn flow_stats_request(r: &mut StdRng) -> Box<FlowStatsRequest> {
    Box::new(FlowStatsRequest {
        table: TableId(r.random()),
        out_port: PortNo(r.random()),
        out_group: GroupId(r.random()),
        cookie: r.random(),
        cookie_mask: r.random(),
        matches: matches(r),
    })
}

fn request(r: &mut StdRng) -> MultipartRequest {
    match r.random_range(0..15) {
        0 => MultipartRequest::Desc,
        1 => MultipartRequest::Flow(flow_stats_request(r)),
        2 => MultipartRequest::Aggregate(flow_stats_request(r)),
        3 => MultipartRequest::Table,
        4 => MultipartRequest::PortStats(PortNo(r.random())),
        5 => MultipartRequest::Queue(PortNo(r.random()), QueueNo(r.random())),
        6 => MultipartRequest::Group(GroupId(r.random())),
        7 => MultipartRequest::GroupDesc,
        8 => MultipartRequest::GroupFeatures,
        9 => MultipartRequest::Meter(MeterNo(r.random())),
        10 => MultipartRequest::MeterConfig(MeterNo(r.random())),
        11 => MultipartRequest::MeterFeatures,
        12 => MultipartRequest::TableFeatures(some(r, 2, table_features)),
        13 => MultipartRequest::PortDesc,
        _ => {
            MultipartRequest::Experimenter { experimenter: r.random(), exp_type: r.random(), data: bytes(r) }
        }
    }
}

pub fn flow_stats(r: &mut StdRng) -> FlowStats {
    FlowStats {
        table: TableId(r.random()),
        duration_sec: r.random(),
        duration_nsec: r.random(),
        priority: r.random(),
        idle_timeout: r.random(),
        hard_timeout: r.random(),
        flags: FlowModFlags(r.random_range(0..32)),
        importance: 0,
        cookie: r.random(),
        packets: r.random(),
        bytes: r.random(),
        matches: matches(r),
        instructions: instructions(r),
    }
}

fn reply(r: &mut StdRng) -> MultipartReply {
    match r.random_range(0..15) {
        0 => MultipartReply::Desc(Box::new(Desc {
            manufacturer: text(r, 255),
            hardware: text(r, 255),
            software: text(r, 255),
            serial: text(r, 31),
            datapath: text(r, 255),
        })),
        1 => MultipartReply::Flow(some(r, 4, flow_stats)),
        2 => MultipartReply::Aggregate(AggregateStats {
            packets: r.random(),
            bytes: r.random(),
            flows: r.random(),
        }),
        3 => MultipartReply::Table(some(r, 4, |r| TableStats {
            table: TableId(r.random()),
            active: r.random(),
            lookups: r.random(),
            matched: r.random(),
        })),
        4 => MultipartReply::PortStats(some(r, 4, |r| PortStats {
            port: PortNo(r.random()),
            rx_packets: r.random(),
            tx_packets: r.random(),
            rx_bytes: r.random(),
            tx_bytes: r.random(),
            rx_dropped: r.random(),
            tx_dropped: r.random(),
            rx_errors: r.random(),
            tx_errors: r.random(),
            rx_frame_err: r.random(),
            rx_over_err: r.random(),
            rx_crc_err: r.random(),
            collisions: r.random(),
            duration_sec: r.random(),
            duration_nsec: r.random(),
        })),
        5 => MultipartReply::Queue(some(r, 4, |r| QueueStats {
            port: PortNo(r.random()),
            queue: QueueNo(r.random()),
            tx_bytes: r.random(),
            tx_packets: r.random(),
            tx_errors: r.random(),
            duration_sec: r.random(),
            duration_nsec: r.random(),
        })),
        6 => MultipartReply::Group(some(r, 3, |r| GroupStats {
            group: GroupId(r.random()),
            ref_count: r.random(),
            packets: r.random(),
            bytes: r.random(),
            duration_sec: r.random(),
            duration_nsec: r.random(),
            buckets: some(r, 3, |r| BucketCounter { packets: r.random(), bytes: r.random() }),
        })),
        7 => MultipartReply::GroupDesc(some(r, 3, |r| GroupDesc {
            group_type: group_type(r),
            group: GroupId(r.random()),
            buckets: some(r, 3, bucket),
        })),
        8 => MultipartReply::GroupFeatures(GroupFeatures {
            types: r.random(),
            capabilities: r.random(),
            max_groups: r.random(),
            actions: r.random(),
        }),
        9 => MultipartReply::Meter(some(r, 3, |r| MeterStats {
            meter: MeterNo(r.random()),
            flow_count: r.random(),
            packets_in: r.random(),
            bytes_in: r.random(),
            duration_sec: r.random(),
            duration_nsec: r.random(),
            bands: some(r, 3, |r| BandCounter { packets: r.random(), bytes: r.random() }),
        })),
        10 => MultipartReply::MeterConfig(some(r, 3, |r| MeterConfig {
            flags: meter_flags(r),
            meter: MeterNo(r.random()),
            bands: some(r, 3, band),
        })),
        11 => MultipartReply::MeterFeatures(MeterFeatures {
            max_meters: r.random(),
            band_types: r.random(),
            capabilities: r.random(),
            max_bands: r.random(),
            max_color: r.random(),
        }),
        12 => MultipartReply::TableFeatures(some(r, 2, table_features)),
        13 => MultipartReply::PortDesc(some(r, 4, port_desc)),
        _ => MultipartReply::Experimenter { experimenter: r.random(), exp_type: r.random(), data: bytes(r) },
    }
}

fn role(r: &mut StdRng) -> RoleMessage {
    RoleMessage {
        role: pick(r, &[Role::NoChange, Role::Equal, Role::Master, Role::Slave]),
        generation_id: r.random(),
    }
}

fn async_config(r: &mut StdRng) -> AsyncConfig {
    AsyncConfig { packet_in: r.random(), port_status: r.random(), flow_removed: r.random() }
}

fn error(r: &mut StdRng) -> ErrorCode {
    match r.random_range(0..3) {
        0 => ErrorCode::Experimenter { experimenter: r.random(), exp_type: r.random() },
        1 => ErrorCode::from_wire(r.random_range(0..20), r.random_range(0..20)),
        _ => BadRequest::BadLen.into(),
    }
}

/// A random message of any type.
pub fn message(r: &mut StdRng) -> Message {
    let body = match r.random_range(0..30) {
        0 => Body::Hello(VersionSet(r.random::<u32>() | 2)),
        1 => Body::Error(ErrorMessage { code: error(r), data: bytes(r) }),
        2 => Body::EchoRequest(bytes(r)),
        3 => Body::EchoReply(bytes(r)),
        4 => Body::Experimenter { experimenter: r.random(), exp_type: r.random(), data: bytes(r) },
        5 => Body::FeaturesRequest,
        6 => Body::FeaturesReply(FeaturesReply {
            datapath_id: r.random(),
            n_buffers: r.random(),
            n_tables: r.random(),
            auxiliary_id: r.random(),
            capabilities: Capabilities(r.random()),
        }),
        7 => Body::GetConfigRequest,
        8 => Body::GetConfigReply(SwitchConfig { frag: r.random(), miss_send_len: r.random() }),
        9 => Body::SetConfig(SwitchConfig { frag: r.random(), miss_send_len: r.random() }),
        10 => Body::PacketIn(Box::new(PacketIn {
            buffer: r.random::<bool>().then(|| BufferId(r.random_range(0..1000))),
            total_len: r.random(),
            reason: pick(r, &[PacketInReason::NoMatch, PacketInReason::Action, PacketInReason::InvalidTtl]),
            table: TableId(r.random()),
            cookie: r.random(),
            matches: matches(r),
            data: bytes(r),
        })),
        11 => Body::FlowRemoved(Box::new(FlowRemoved {
            cookie: r.random(),
            priority: r.random(),
            reason: pick(r, &[FlowRemovedReason::IdleTimeout, FlowRemovedReason::Eviction]),
            table: TableId(r.random()),
            duration_sec: r.random(),
            duration_nsec: r.random(),
            idle_timeout: r.random(),
            hard_timeout: r.random(),
            packets: r.random(),
            bytes: r.random(),
            matches: matches(r),
        })),
        12 => Body::PortStatus(PortStatus {
            reason: pick(r, &[PortReason::Add, PortReason::Delete, PortReason::Modify]),
            desc: port_desc(r),
        }),
        13 => Body::PacketOut(PacketOut {
            buffer: r.random::<bool>().then(|| BufferId(r.random_range(0..1000))),
            in_port: pick(r, &[PortNo(1), PortNo::CONTROLLER, PortNo::LOCAL, PortNo::ANY]),
            actions: actions(r),
            data: bytes(r),
        }),
        14 => Body::FlowMod(Box::new(FlowMod {
            command: pick(
                r,
                &[FlowModCommand::Add, FlowModCommand::ModifyStrict, FlowModCommand::DeleteStrict],
            ),
            cookie: r.random(),
            cookie_mask: r.random(),
            table: TableId(r.random()),
            idle_timeout: r.random(),
            hard_timeout: r.random(),
            priority: r.random(),
            buffer: r.random::<bool>().then(|| BufferId(r.random_range(0..1000))),
            out_port: PortNo(r.random()),
            out_group: GroupId(r.random()),
            flags: FlowModFlags(r.random_range(0..32)),
            importance: 0,
            matches: matches(r),
            instructions: instructions(r),
        })),
        15 => Body::GroupMod(GroupMod {
            command: pick(r, &[GroupModCommand::Add, GroupModCommand::Modify, GroupModCommand::Delete]),
            group_type: group_type(r),
            group: GroupId(r.random()),
            buckets: some(r, 4, bucket),
        }),
        16 => Body::PortMod(PortMod {
            port: PortNo(r.random()),
            hw_addr: MacAddr(r.random()),
            config: PortConfig(r.random()),
            mask: PortConfig(r.random()),
            advertise: PortFeatures(r.random()),
        }),
        17 => Body::TableMod(TableMod { table: TableId(r.random()), config: r.random() }),
        18 => Body::MultipartRequest { more: r.random(), request: request(r) },
        19 => Body::MultipartReply { more: r.random(), reply: reply(r) },
        20 => Body::BarrierRequest,
        21 => Body::BarrierReply,
        22 => Body::QueueGetConfigRequest(PortNo(r.random())),
        23 => Body::QueueGetConfigReply {
            port: PortNo(r.random()),
            queues: some(r, 4, |r| QueueConfig {
                queue: QueueNo(r.random()),
                port: PortNo(r.random()),
                min_rate: r.random::<bool>().then(|| r.random()),
                max_rate: r.random::<bool>().then(|| r.random()),
            }),
        },
        24 => Body::RoleRequest(role(r)),
        25 => Body::RoleReply(role(r)),
        26 => Body::GetAsyncRequest,
        27 => Body::GetAsyncReply(async_config(r)),
        28 => Body::SetAsync(async_config(r)),
        _ => Body::MeterMod(MeterMod {
            command: pick(r, &[MeterModCommand::Add, MeterModCommand::Modify, MeterModCommand::Delete]),
            flags: meter_flags(r),
            meter: MeterNo(r.random()),
            bands: some(r, 4, band),
        }),
    };
    Message { xid: r.random(), body }
}

/// A message as it is after one encoding and decoding: notes are padded, text is cut at its field, untagged matches say
/// nothing of a priority.
pub fn normal(m: Message) -> Message {
    let mut b = Vec::new();
    encode(Version::V13, &m, &mut b).unwrap();
    decode(&b).unwrap()
}
