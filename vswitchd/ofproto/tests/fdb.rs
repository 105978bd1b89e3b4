//! `fdb/*`, held against a stock Open vSwitch.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;
mod stock;

use flow::frame::FrameBuilder;
use ofproto::{PortSettings, VlanMode, fdb};
use openflow::{Action as OfAction, Instructions, PortNo};
use rig::*;
use stock::Twins;

#[test]
fn commands_and_their_errors_read_as_those_of_stock_open_vswitch() {
    let t = Twins::start();
    let b = t.bridge(0);
    t.port(&b, 1, "", PortSettings::default());
    t.port(&b, 2, "tag=7", PortSettings { vlan: VlanMode::Access { vlan: 7 }, ..PortSettings::default() });
    let s = &t.switch;
    let both = |command: &str, args: &[&str], ours: Result<String, String>| {
        let theirs = t.appctl(&[&[command], args].concat());
        let ours = ours.map_err(|e| e.trim_end().to_owned());
        assert_eq!(ours, theirs, "{command} {args:?}");
    };
    let mac = "50:54:00:00:00:05";
    both("fdb/show", &["br0"], fdb::show(s, "br0"));
    both("fdb/show", &["br9"], fdb::show(s, "br9"));
    both("fdb/add", &["br0", "p2", "7", mac], fdb::add(s, "br0", "p2", "7", mac));
    both(
        "fdb/add",
        &["br0", "br0", "0", "02:00:00:00:00:99"],
        fdb::add(s, "br0", "br0", "0", "02:00:00:00:00:99"),
    );
    both("fdb/add", &["br0", "p9", "7", mac], fdb::add(s, "br0", "p9", "7", mac));
    both("fdb/add", &["br0", "p2", "7", "nonsense"], fdb::add(s, "br0", "p2", "7", "nonsense"));
    both("fdb/add", &["br9", "p2", "7", mac], fdb::add(s, "br9", "p2", "7", mac));
    both("fdb/show", &["br0"], fdb::show(s, "br0"));
    both("fdb/stats-show", &["br0"], fdb::stats_show(s, "br0"));
    both("fdb/flush", &["br0"], fdb::flush(s, Some("br0")));
    both("fdb/flush", &[], fdb::flush(s, None));
    both("fdb/show", &["br0"], fdb::show(s, "br0"));
    t.flow(&b, "actions=normal");
    t.agree_in_any_order(&b, "in_port=1,dl_vlan=7,dl_dst=50:54:00:00:00:05", stock::Megaflows::Nested);
    t.agree_in_any_order(&b, "in_port=2,dl_dst=50:54:00:00:00:05", stock::Megaflows::Nested);
    both("fdb/del", &["br0", "8", mac], fdb::del(s, "br0", "8", mac));
    both("fdb/del", &["br0", "7", mac], fdb::del(s, "br0", "7", mac));
    both("fdb/show", &["br0"], fdb::show(s, "br0"));
    both("fdb/stats-clear", &["br0"], fdb::stats_clear(s, Some("br0")));
    both("fdb/stats-clear", &["br9"], fdb::stats_clear(s, Some("br9")));
}

#[test]
fn a_station_is_shown_with_the_age_of_its_last_packet() {
    let r = Rig::new();
    let normal = Instructions::apply(vec![OfAction::Output { port: PortNo::NORMAL, max_len: 0 }]);
    r.add(0, 0, matching(&[]), normal);
    let f = FrameBuilder::new().eth([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).vlan(9, 0).build();
    r.packet(&f, 3);
    r.clock.advance(std::time::Duration::from_secs(5));
    let shown = fdb::show(&r.switch, "br0").unwrap();
    assert_eq!(shown.lines().nth(1), Some("    3     9  02:00:00:00:00:02    5"));
    // By the record, no table is looked up for it; still it counts as a sign of life.
    r.packet(&f, 3);
    let shown = fdb::show(&r.switch, "br0").unwrap();
    assert_eq!(shown.lines().nth(1), Some("    3     9  02:00:00:00:00:02    0"));
    fdb::flush(&r.switch, None).unwrap();
    assert_eq!(fdb::show(&r.switch, "br0").unwrap().lines().count(), 1);
}
