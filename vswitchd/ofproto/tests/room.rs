//! Tables that fill up: limits, eviction, and what is said of their space.

#![allow(clippy::unwrap_used)]

mod rig;

use flow::FieldId;
use ofproto::{BridgeSettings, TableSettings};
use openflow::error::{FlowModFailed, TableModFailed};
use openflow::flow_mod::FlowModFlags;
use openflow::message::{FlowRemovedReason, TableMod};
use openflow::multipart::FlowStatsRequest;
use openflow::table_config::{TableDesc, Vacancy};
use openflow::{Body, ErrorCode, FlowMod, MultipartReply, MultipartRequest, Subfield, TableId};
use rig::*;

/// A bridge whose table 0 is configured so.
fn with(table: TableSettings) -> Rig {
    let r = Rig::new();
    configure(&r, table);
    r
}

fn configure(r: &Rig, table: TableSettings) {
    let tables = [(0, table)].into();
    r.bridge.set_settings(BridgeSettings { tables, ..BridgeSettings::default() });
}

/// A flow on packets from that port and to that address; its cookie is the address.
fn flow(port: u128, mac: u64, idle_timeout: u16) -> FlowMod {
    let m = matching(&[(FieldId::InPort, port), (FieldId::EthDst, mac.into())]);
    let flags = FlowModFlags::SEND_FLOW_REM;
    FlowMod { idle_timeout, cookie: mac, flags, ..add(0, 1, m, to(2)) }
}

fn cookies(r: &Rig) -> Vec<u64> {
    let mut v: Vec<u64> = r.flows(FlowStatsRequest::ALL).iter().map(|f| f.cookie).collect();
    v.sort_unstable();
    v
}

fn table_mod(r: &Rig, config: u32, vacancy: Option<Vacancy>) -> Result<Vec<Body>, ErrorCode> {
    r.request(Body::TableMod(TableMod { table: TableId(0), config, miss: None, eviction: None, vacancy }))
}

fn desc(r: &Rig) -> TableDesc {
    let request = MultipartRequest::TableDesc;
    match &r.request(Body::MultipartRequest { more: false, request }).unwrap()[..] {
        [Body::MultipartReply { reply: MultipartReply::TableDesc(d), .. }] => d[0],
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_table_evicts_the_flow_that_would_end_first() {
    let r = with(TableSettings { flow_limit: Some(3), evict: true, ..TableSettings::default() });
    for (mac, idle) in [(1, 30), (2, 10), (3, 20)] {
        r.flow_mod(flow(1, mac, idle)).unwrap();
    }
    r.flow_mod(flow(1, 4, 0)).unwrap();
    assert_eq!(cookies(&r), [1, 3, 4]);
    r.switch.run(r.now());
    let told = r.told.removed.lock().unwrap().iter().map(|f| (f.cookie, f.reason)).collect::<Vec<_>>();
    assert_eq!(told, [(2, FlowRemovedReason::Eviction)]);
    // One that is there already needs no room.
    r.flow_mod(flow(1, 1, 5)).unwrap();
    assert_eq!(cookies(&r), [1, 3, 4]);
    r.flow_mod(flow(1, 5, 0)).unwrap();
    r.flow_mod(flow(1, 6, 0)).unwrap();
    assert_eq!(cookies(&r), [4, 5, 6]);
    // Flows without timeouts stay.
    assert_eq!(r.flow_mod(flow(1, 7, 9)), Err(FlowModFailed::TableFull.into()));
    assert_eq!(cookies(&r), [4, 5, 6]);
}

#[test]
fn the_largest_group_gives_way_and_a_smaller_limit_takes_effect_at_once() {
    let groups = vec![Subfield { field: FieldId::InPort, offset: 0, bits: 16 }];
    let fair = TableSettings { flow_limit: Some(4), evict: true, groups, ..TableSettings::default() };
    let r = with(fair.clone());
    for (port, mac, idle) in [(2, 1, 10), (1, 2, 20), (1, 3, 30), (1, 4, 40)] {
        r.flow_mod(flow(port, mac, idle)).unwrap();
    }
    r.flow_mod(flow(2, 5, 0)).unwrap();
    assert_eq!(cookies(&r), [1, 3, 4, 5], "of the three of port 1 the one that would end first");
    configure(&r, TableSettings { flow_limit: Some(2), groups: Vec::new(), ..fair });
    assert_eq!(cookies(&r), [4, 5]);
    configure(&r, TableSettings { flow_limit: Some(1), ..TableSettings::default() });
    assert_eq!(cookies(&r), [4, 5], "a table that does not evict keeps what it has");
}

#[test]
fn a_controller_turns_eviction_on_and_the_least_important_flow_goes_first() {
    let r = with(TableSettings { flow_limit: Some(2), ..TableSettings::default() });
    table_mod(&r, 4, None).unwrap();
    assert_eq!(desc(&r), TableDesc { table: TableId(0), config: 4, eviction: Some(7), vacancy: None });
    let important = |mac, importance, idle| FlowMod { importance, ..flow(1, mac, idle) };
    r.flow_mod(important(1, 9, 10)).unwrap();
    r.flow_mod(important(2, 5, 99)).unwrap();
    r.flow_mod(important(3, 7, 50)).unwrap();
    assert_eq!(cookies(&r), [1, 3]);
    table_mod(&r, 0, None).unwrap();
    assert_eq!(r.flow_mod(important(4, 99, 10)), Err(FlowModFailed::TableFull.into()));
}

#[test]
fn free_space_is_described_and_nonsense_is_refused() {
    let r = with(TableSettings { flow_limit: Some(10), ..TableSettings::default() });
    let vacancy = |down, up| Some(Vacancy { down, up, current: 0 });
    table_mod(&r, 8, vacancy(20, 80)).unwrap();
    for mac in 0..3 {
        r.flow_mod(flow(1, mac, 0)).unwrap();
    }
    assert_eq!(desc(&r).vacancy, Some(Vacancy { down: 20, up: 80, current: 70 }));
    let bad = Err(TableModFailed::BadConfig.into());
    assert_eq!(table_mod(&r, 8, vacancy(80, 20)), bad);
    assert_eq!(table_mod(&r, 1 << 20, None), bad);
    let other = TableMod { table: TableId(254), config: 0, miss: None, eviction: None, vacancy: None };
    assert_eq!(r.request(Body::TableMod(other)), Err(TableModFailed::BadTable.into()));
}
