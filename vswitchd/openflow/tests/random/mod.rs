//! Random messages that have an encoding.
#![allow(clippy::unwrap_used)]

mod actions;
mod groups;

use actions::action;
use flow::{FIELDS, FieldId, Maskable, PipelineMatch, prereq};
use groups::{buckets, group_mod, selection};
use openflow::error::*;
use openflow::flow_mod::*;
use openflow::flow_monitor::*;
use openflow::group::*;
use openflow::message::*;
use openflow::meter::*;
use openflow::multipart::*;
use openflow::port::*;
use openflow::table_config::*;
use openflow::table_features::*;
use openflow::version::VersionSet;
use openflow::wire::has_number;
use openflow::*;
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Random numbers, and the version that messages are made for: what it loses is not made.
pub struct Source {
    rng: StdRng,
    pub v: Version,
}

impl Source {
    pub fn new(seed: u64, v: Version) -> Source {
        Source { rng: StdRng::seed_from_u64(seed), v }
    }

    /// A value that only versions since `v` carry.
    fn since<T>(&mut self, v: Version, value: impl FnOnce(&mut Source) -> T, earlier: T) -> T {
        if self.v >= v { value(self) } else { earlier }
    }
}

impl std::ops::Deref for Source {
    type Target = StdRng;
    fn deref(&self) -> &StdRng {
        &self.rng
    }
}
impl std::ops::DerefMut for Source {
    fn deref_mut(&mut self) -> &mut StdRng {
        &mut self.rng
    }
}

fn some<T>(r: &mut Source, max: usize, mut one: impl FnMut(&mut Source) -> T) -> Vec<T> {
    (0..r.random_range(0..=max)).map(|_| one(r)).collect()
}

fn bytes(r: &mut Source) -> Vec<u8> {
    some(r, 40, |r| r.random())
}

fn text(r: &mut Source, max: usize) -> String {
    some(r, max, |r| char::from(r.random_range(b'a'..=b'z'))).into_iter().collect()
}

fn pick<T: Copy>(r: &mut Source, of: &[T]) -> T {
    of[r.random_range(0..of.len())]
}

fn port(r: &mut Source) -> PortNo {
    if r.random() {
        PortNo(r.random_range(1..0xff00))
    } else {
        pick(r, &[PortNo::IN_PORT, PortNo::LOCAL, PortNo::ALL])
    }
}

/// Any number that a port field can have.
fn any_port(r: &mut Source) -> PortNo {
    if r.v == Version::V10 { port(r) } else { PortNo(r.random()) }
}

pub fn matches(r: &mut Source) -> PipelineMatch {
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
        // Of a connection with a table of them; tested on their own.
        if f.id.option().is_some() {
            continue;
        }
        // NXM's type of service is OXM's DSCP and more.
        if f.id == FieldId::NwTos {
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
        // Open vSwitch 3.1 takes the bits that are set for the mask.
        use FieldId::{TunErspanDir, TunErspanHwid, TunErspanVer, TunGtpuFlags, TunGtpuMsgtype};
        let by_value =
            [TunErspanVer, TunErspanDir, TunErspanHwid, TunGtpuFlags, TunGtpuMsgtype].contains(&f.id);
        let value = if by_value && mask != f.max() { mask } else { value };
        m.set_masked(f.id, value & mask, mask);
        // Fragments and packet types can take away what other fields need.
        if !prereq::normalize(&m).1.is_empty() {
            m = before;
        }
    }
    m
}

/// A subfield for where there is room for a short header only.
fn subfield(r: &mut Source, bits: u16) -> Subfield {
    loop {
        let s = any_subfield(r, bits);
        if !flow::nsh::is_field(s.field) && !flow::tunnel::HEADER_FIELDS.contains(&s.field) {
            return s;
        }
    }
}

fn any_subfield(r: &mut Source, bits: u16) -> Subfield {
    loop {
        let f = &FIELDS[r.random_range(0..FIELDS.len())];
        let width = u16::from(f.bits);
        if f.writable && has_number(f.id) && f.id.option().is_none() && width >= bits {
            return Subfield { field: f.id, offset: r.random_range(0..=width - bits), bits };
        }
    }
}

fn actions(r: &mut Source) -> Vec<Action> {
    some(r, 6, action)
}

fn instructions(r: &mut Source) -> Instructions {
    if r.v == Version::V10 {
        let metadata = r.random::<bool>().then(|| (r.random(), r.random()));
        return Instructions { apply: actions(r), metadata, ..Default::default() };
    }
    Instructions {
        meter: r.since(Version::V13, |r| r.random::<bool>().then(|| MeterNo(r.random())), None),
        apply: actions(r),
        clear: r.random(),
        write: actions(r),
        metadata: r.random::<bool>().then(|| (r.random(), r.random())),
        goto_table: r.random::<bool>().then(|| TableId(r.random())),
    }
}

fn config(r: &mut Source) -> PortConfig {
    let known = if r.v == Version::V10 { 0x7f } else { 0x65 };
    PortConfig(r.random::<u32>() & known)
}

fn features(r: &mut Source) -> PortFeatures {
    PortFeatures(r.random::<u32>() & if r.v == Version::V10 { 0xf87f } else { u32::MAX })
}

fn port_desc(r: &mut Source) -> PortDesc {
    PortDesc {
        port: port(r),
        hw_addr: MacAddr(r.random()),
        name: text(r, 15),
        config: config(r),
        state: PortState(r.random::<u32>() & if r.v == Version::V10 { 0x301 } else { 7 }),
        current: features(r),
        advertised: features(r),
        supported: features(r),
        peer: features(r),
        current_speed_kbps: r.since(Version::V11, |r| r.random(), 0),
        max_speed_kbps: r.since(Version::V11, |r| r.random(), 0),
    }
}

fn vacancy(r: &mut Source) -> Vacancy {
    Vacancy { down: r.random_range(0..50), up: r.random_range(50..=100), current: r.random() }
}

fn table_desc(r: &mut Source) -> TableDesc {
    TableDesc {
        table: TableId(r.random()),
        config: r.random(),
        eviction: r.random::<bool>().then(|| r.random()),
        vacancy: r.random::<bool>().then(|| vacancy(r)),
    }
}

fn queue_config(r: &mut Source) -> QueueConfig {
    QueueConfig {
        queue: QueueNo(r.random()),
        port: port(r),
        min_rate: r.random::<bool>().then(|| r.random()),
        max_rate: r.random::<bool>().then(|| r.random()),
    }
}

fn removed_reason(r: &mut Source) -> FlowRemovedReason {
    let n = r.since(Version::V14, |_| 6, 3);
    FlowRemovedReason::ALL[r.random_range(0..n)]
}

fn monitor_request(r: &mut Source) -> MonitorRequest {
    let new = r.v >= Version::V14;
    MonitorRequest {
        id: r.random(),
        command: if new {
            pick(r, &[MonitorCommand::Add, MonitorCommand::Modify])
        } else {
            MonitorCommand::Add
        },
        flags: MonitorFlags(r.random_range(0..if new { 128 } else { 64 }) | 2),
        out_port: pick(r, &[PortNo(3), PortNo::ANY]),
        out_group: if new { GroupId(r.random()) } else { GroupId::ANY },
        table: TableId(r.random()),
        matches: matches(r),
    }
}

fn flow_update(r: &mut Source) -> FlowUpdate {
    let new = r.v >= Version::V14;
    match r.random_range(0..if new { 5 } else { 3 }) {
        0 => FlowUpdate::Abbreviated(r.random()),
        3 => FlowUpdate::Paused,
        4 => FlowUpdate::Resumed,
        _ => {
            let reason = FlowRemovedReason::ALL[r.random_range(0..6)];
            let events =
                [FlowEvent::Added, FlowEvent::Modified, FlowEvent::Removed(reason), FlowEvent::Initial];
            let event = pick(r, &events[..if new { 4 } else { 3 }]);
            // Before OpenFlow 1.3 they are a list of actions.
            let mut instructions = instructions(r);
            if r.v < Version::V13 {
                instructions = Instructions::apply(instructions.apply);
            }
            FlowUpdate::Full(Box::new(FlowChange {
                event,
                table: TableId(r.random()),
                priority: r.random(),
                idle_timeout: r.random(),
                hard_timeout: r.random(),
                cookie: r.random(),
                matches: matches(r),
                instructions,
            }))
        }
    }
}

fn ipfix(r: &mut Source) -> IpfixStats {
    IpfixStats {
        total_flows: r.random(),
        tx_errors: r.random(),
        collector_set: r.random(),
        ..Default::default()
    }
}

fn band(r: &mut Source) -> MeterBand {
    let kind = match r.random_range(0..3) {
        0 => MeterBandKind::Drop,
        1 => MeterBandKind::DscpRemark { prec_level: r.random() },
        _ => MeterBandKind::Experimenter { experimenter: r.random() },
    };
    MeterBand { kind, rate: r.random(), burst_size: r.random() }
}

fn group_type(r: &mut Source) -> GroupType {
    pick(r, &[GroupType::All, GroupType::Select, GroupType::Indirect, GroupType::FastFailover])
}

fn meter_flags(r: &mut Source) -> MeterFlags {
    MeterFlags(r.random_range(0..16))
}

fn feature_types(r: &mut Source) -> Vec<FeatureType> {
    some(r, 5, |r| {
        if r.random() {
            FeatureType::Plain(r.random_range(0..100))
        } else {
            FeatureType::Experimenter(r.random())
        }
    })
}

fn feature_fields(r: &mut Source) -> Vec<FeatureField> {
    some(r, 6, |r| FeatureField::Known { field: subfield(r, 1).field, maskable: r.random() })
}

fn table_features(r: &mut Source) -> TableFeatures {
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

fn flow_stats_request(r: &mut Source) -> Box<FlowStatsRequest> {
    Box::new(FlowStatsRequest {
        table: TableId(r.random()),
        out_port: any_port(r),
        out_group: GroupId(r.random()),
        cookie: r.random(),
        cookie_mask: r.random(),
        matches: matches(r),
        nicira: false,
    })
}

fn request(r: &mut Source) -> MultipartRequest {
    match r.random_range(0..21) {
        0 => MultipartRequest::Desc,
        1 => MultipartRequest::Flow(flow_stats_request(r)),
        2 => MultipartRequest::Aggregate(flow_stats_request(r)),
        3 => MultipartRequest::Table,
        4 => MultipartRequest::PortStats(any_port(r)),
        5 => MultipartRequest::Queue(any_port(r), QueueNo(r.random())),
        6 => MultipartRequest::Group(GroupId(r.random())),
        7 => MultipartRequest::GroupDesc(r.since(Version::V15, |r| GroupId(r.random()), GroupId::ALL)),
        8 => MultipartRequest::GroupFeatures,
        9 => MultipartRequest::Meter(MeterNo(r.random())),
        10 => MultipartRequest::MeterConfig(MeterNo(r.random())),
        11 => MultipartRequest::MeterFeatures,
        12 => MultipartRequest::TableFeatures(some(r, 2, table_features)),
        13 => MultipartRequest::PortDesc(r.since(Version::V15, any_port, PortNo::ANY)),
        14 => MultipartRequest::TableDesc,
        15 => MultipartRequest::QueueDesc(any_port(r), QueueNo(r.random())),
        16 => MultipartRequest::FlowMonitor(some(r, 3, monitor_request)),
        17 => MultipartRequest::BundleFeatures,
        18 => MultipartRequest::IpfixBridge,
        19 => MultipartRequest::IpfixFlow,
        _ => {
            MultipartRequest::Experimenter { experimenter: r.random(), exp_type: r.random(), data: bytes(r) }
        }
    }
}

pub fn flow_stats(r: &mut Source) -> FlowStats {
    FlowStats {
        table: TableId(r.random()),
        duration_sec: r.random(),
        duration_nsec: r.random(),
        priority: r.random(),
        idle_timeout: r.random(),
        hard_timeout: r.random(),
        flags: FlowModFlags(r.random_range(0..32)),
        importance: r.since(Version::V14, |r| r.random(), 0),
        idle_age: r.since(Version::V15, |r| r.random::<bool>().then(|| r.random()), None),
        hard_age: None,
        cookie: r.random(),
        packets: r.random(),
        bytes: r.random(),
        matches: matches(r),
        instructions: instructions(r),
    }
}

fn reply(r: &mut Source) -> MultipartReply {
    match r.random_range(0..21) {
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
            name: if r.v < Version::V13 { text(r, 31) } else { String::new() },
            max_entries: if r.v < Version::V13 { r.random() } else { 0 },
            config: 0,
        })),
        4 => MultipartReply::PortStats(some(r, 4, |r| PortStats {
            port: any_port(r),
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
            port: any_port(r),
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
        7 => MultipartReply::GroupDesc(some(r, 3, |r| {
            let group_type = group_type(r);
            GroupDesc {
                group_type,
                group: GroupId(r.random()),
                buckets: buckets(r, group_type),
                selection: selection(r, group_type),
            }
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
        14 => MultipartReply::TableDesc(some(r, 4, table_desc)),
        15 => MultipartReply::QueueDesc(some(r, 4, queue_config)),
        16 => MultipartReply::FlowMonitor(some(r, 4, flow_update)),
        17 => MultipartReply::BundleFeatures(BundleFeatures { capabilities: r.random() }),
        18 => MultipartReply::IpfixBridge(ipfix(r)),
        19 => MultipartReply::IpfixFlow(some(r, 4, ipfix)),
        _ => MultipartReply::Experimenter { experimenter: r.random(), exp_type: r.random(), data: bytes(r) },
    }
}

fn role(r: &mut Source) -> RoleMessage {
    if r.random() {
        // Nicira's form.
        let role = pick(r, &[Role::Equal, Role::Master, Role::Slave]);
        return RoleMessage { role, generation_id: None };
    }
    RoleMessage {
        role: pick(r, &[Role::NoChange, Role::Equal, Role::Master, Role::Slave]),
        generation_id: Some(r.random()),
    }
}

fn async_config(r: &mut Source) -> AsyncConfig {
    AsyncConfig {
        packet_in: if r.v >= Version::V14 { r.random() } else { [0b11_1011, 0b101] },
        port_status: r.random(),
        flow_removed: r.random(),
        role_status: r.since(Version::V14, |r| r.random(), [0; 2]),
        table_status: r.since(Version::V14, |r| r.random(), [0; 2]),
        request_forward: r.since(Version::V14, |r| r.random(), [0; 2]),
        given: r.since(Version::V14, |_| AsyncConfig::ALL_GIVEN, 0b11_1111),
    }
}

fn tlv_maps(r: &mut Source) -> Vec<TlvMap> {
    some(r, 4, |r| TlvMap { class: r.random(), kind: r.random(), bytes: r.random(), index: r.random() })
}

fn error(r: &mut Source) -> ErrorCode {
    match r.random_range(0..3) {
        0 => ErrorCode::Experimenter { experimenter: r.random(), exp_type: r.random() },
        1 => {
            let code = ErrorCode::NAMED[r.random_range(0..ErrorCode::NAMED.len())];
            // As the version has it: what it has no number for is another error.
            ErrorCode::from_wire(r.v, code.to_wire(r.v))
        }
        _ => BadRequest::BadLen.into(),
    }
}

/// A random message of any type.
pub fn message(r: &mut Source) -> Message {
    let body = body(r);
    Message { xid: r.random(), body }
}

fn body(r: &mut Source) -> Body {
    match r.random_range(0..49) {
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
            capabilities: Capabilities(r.random::<u32>() & 0x67),
            actions: 0,
            ports: if r.v < Version::V13 { some(r, 3, port_desc) } else { Vec::new() },
        }),
        7 => Body::GetConfigRequest,
        8 => Body::GetConfigReply(SwitchConfig { frag: r.random(), miss_send_len: r.random() }),
        9 => Body::SetConfig(SwitchConfig { frag: r.random(), miss_send_len: r.random() }),
        10 => Body::PacketIn(Box::new(PacketIn {
            buffer: r.random::<bool>().then(|| BufferId(r.random_range(0..1000))),
            total_len: r.random(),
            reason: {
                let n = r.since(Version::V14, |_| 6, 3);
                PacketInReason::ALL[r.random_range(0..n)]
            },
            table: TableId(r.random()),
            cookie: r.random(),
            matches: matches(r),
            data: bytes(r),
            controller_id: 0,
            userdata: Vec::new(),
            continuation: None,
        })),
        11 => Body::FlowRemoved(Box::new(FlowRemoved {
            cookie: r.random(),
            priority: r.random(),
            reason: removed_reason(r),
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
        13 => Body::PacketOut(Box::new(PacketOut {
            buffer: r.random::<bool>().then(|| BufferId(r.random_range(0..1000))),
            in_port: pick(r, &[PortNo(1), PortNo::CONTROLLER, PortNo::LOCAL, PortNo::ANY]),
            matches: {
                let mut m = PipelineMatch::ANY;
                if r.v == Version::V15 && r.random() {
                    m.set(FieldId::Metadata, r.random::<u64>().into());
                    m.set(FieldId::Reg3, r.random::<u32>().into());
                }
                m
            },
            actions: actions(r),
            data: bytes(r),
        })),
        14 => Body::FlowMod(Box::new(flow_mod(r))),
        15 => Body::GroupMod(group_mod(r)),
        16 => Body::PortMod(PortMod {
            port: any_port(r),
            hw_addr: MacAddr(r.random()),
            config: config(r),
            mask: config(r),
            advertise: features(r),
        }),
        17 => Body::TableMod(TableMod {
            table: TableId(r.random()),
            config: r.random::<u32>() & !3,
            miss: match r.v {
                Version::V11 | Version::V12 => {
                    Some(pick(r, &[TableMiss::Controller, TableMiss::Continue, TableMiss::Drop]))
                }
                _ => None,
            },
            eviction: r.since(Version::V14, |r| r.random::<bool>().then(|| r.random()), None),
            vacancy: r.since(Version::V14, |r| r.random::<bool>().then(|| vacancy(r)), None),
        }),
        18 => Body::MultipartRequest { more: r.random(), request: request(r) },
        19 => Body::MultipartReply { more: r.random(), reply: reply(r) },
        20 => Body::BarrierRequest,
        21 => Body::BarrierReply,
        22 => Body::QueueGetConfigRequest(any_port(r)),
        23 => Body::QueueGetConfigReply { port: any_port(r), queues: some(r, 4, queue_config) },
        24 => Body::RoleRequest(role(r)),
        25 => Body::RoleReply(role(r)),
        26 => Body::GetAsyncRequest,
        27 => Body::GetAsyncReply(AsyncConfig { given: AsyncConfig::ALL_GIVEN, ..async_config(r) }),
        28 => Body::SetAsync(async_config(r)),
        29 => Body::MeterMod(MeterMod {
            command: pick(r, &[MeterModCommand::Add, MeterModCommand::Modify, MeterModCommand::Delete]),
            flags: meter_flags(r),
            meter: MeterNo(r.random()),
            bands: some(r, 4, band),
        }),
        30 => Body::SetFlowFormat(pick(r, &[FlowFormat::OpenFlow10, FlowFormat::Nxm])),
        31 => Body::FlowModTableId(r.random()),
        32 => {
            use PacketInFormat::*;
            Body::SetPacketInFormat(pick(r, &[Standard, Nxt, Nxt2]))
        }
        33 => Body::FlowAge,
        34 => Body::SetControllerId(r.random()),
        35 => {
            let data = bytes(r);
            Body::Resume(Box::new(PacketIn {
                buffer: None,
                total_len: data.len() as u16 + r.random_range(0..9),
                reason: PacketInReason::Action,
                table: TableId(r.random()),
                cookie: r.random(),
                matches: matches(r),
                data,
                controller_id: 0,
                userdata: bytes(r),
                continuation: r.random::<bool>().then(|| Box::new(actions::continuation(r))),
            }))
        }
        36 => Body::RoleStatus {
            role: pick(r, &[Role::Master, Role::Slave]),
            reason: pick(r, &[RoleReason::MasterRequest, RoleReason::Config]),
            generation_id: r.random(),
        },
        37 => Body::TableStatus { reason: TableStatusReason::VacancyUp, desc: table_desc(r) },
        38 => Body::RequestForward(Box::new(Message { xid: r.random(), body: Body::GroupMod(group_mod(r)) })),
        39 => Body::BundleControl(BundleControl {
            bundle: r.random(),
            step: BundleStep::ALL[r.random_range(0..8)],
            flags: BundleFlags(r.random_range(0..4)),
        }),
        40 => Body::BundleAdd {
            bundle: r.random(),
            flags: BundleFlags(r.random_range(0..4)),
            message: Box::new(Message { xid: 0, body: Body::FlowMod(Box::new(flow_mod(r))) }),
        },
        41 => Body::FlowMonitorCancel(r.random()),
        42 => Body::FlowMonitorPaused,
        43 => Body::TlvTableMod { command: TlvTableCommand::Add, maps: tlv_maps(r) },
        44 => Body::TlvTableRequest,
        45 => Body::TlvTableReply { max_option_bytes: r.random(), max_fields: r.random(), maps: tlv_maps(r) },
        46 => Body::CtFlushZone(r.random()),
        47 => Body::CtFlush { zone: r.random_bool(0.5).then(|| r.random()), which: Box::new(ct_filter(r)) },
        _ => Body::ControllerStatus(Box::new(ControllerStatus {
            short_id: r.random(),
            role: pick(r, &[Role::Master, Role::Slave]),
            reason: r.random(),
            up: r.random(),
            uri: text(r, 20),
        })),
    }
}

fn ct_filter(r: &mut Source) -> flow::CtFilter {
    let ends = |r: &mut Source| {
        let address = |r: &mut Source| match r.random_range(0..3) {
            0 => None,
            1 => Some(std::net::IpAddr::from([10, r.random(), r.random(), 1])),
            _ => Some(std::net::IpAddr::from([0xfd18, r.random(), 0, 0, 0, 0, 0, 1])),
        };
        let (src, dst) = (address(r), address(r));
        let port = |r: &mut Source| r.random_bool(0.5).then(|| r.random_range(1..=u16::MAX));
        let (src_port, dst_port, icmp_id) = (port(r), port(r), port(r));
        let byte = |r: &mut Source| r.random_bool(0.5).then(|| r.random());
        flow::CtEnds { src, dst, src_port, dst_port, icmp_id, icmp_type: byte(r), icmp_code: byte(r) }
    };
    let proto = r.random_bool(0.7).then(|| r.random_range(1..=u8::MAX));
    flow::CtFilter { proto, original: ends(r), reply: ends(r) }
}

fn flow_mod(r: &mut Source) -> FlowMod {
    use FlowModCommand::*;
    let command = pick(r, &[Add, ModifyStrict, DeleteStrict]);
    let old = r.v <= Version::V11;
    let flags = match r.v {
        Version::V10 | Version::V11 => r.random_range(0..4) | if command == Add { 4 } else { 0 },
        Version::V12 => r.random_range(0..8),
        _ => r.random_range(0..32),
    };
    FlowMod {
        command,
        cookie: r.random(),
        cookie_mask: if old { 0 } else { r.random() },
        new_cookie: (old && command == ModifyStrict).then(|| r.random()),
        modify_cookie: r.v == Version::V10 && command == ModifyStrict,
        table: TableId(r.random_range(0..255)),
        idle_timeout: r.random(),
        hard_timeout: r.random(),
        priority: r.random(),
        buffer: r.random::<bool>().then(|| BufferId(r.random_range(0..1000))),
        out_port: any_port(r),
        out_group: GroupId(r.random()),
        flags: FlowModFlags(flags),
        importance: if command == Add { r.since(Version::V14, |r| r.random(), 0) } else { 0 },
        matches: matches(r),
        instructions: instructions(r),
    }
}

/// A message as it is after one encoding and decoding: notes are padded, text is cut at its field, untagged matches say
/// nothing of a priority.
pub fn normal(v: Version, m: &Message) -> Option<Message> {
    let mut b = Vec::new();
    encode(v, m, &mut b).ok()?;
    Some(decode(&b).unwrap_or_else(|e| panic!("{v}: {e}: {m:#?}")))
}
