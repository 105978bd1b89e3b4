//! Networks of rapid bridges, with old ones among them: the figures of IEEE 802.1D-2004, and how fast it goes.

use super::*;
use crate::net::Net;

/// With `old` those that know the protocol of 1998 alone.
fn with_old(bridges: &[(u64, &str)], old: &[u64]) -> Net {
    Net { bridges: Vec::new(), step_ms: 100, at_once: true }.with(bridges, |id| old.contains(&id))
}

fn net(bridges: &[(u64, &str)]) -> Net {
    with_old(bridges, &[])
}

#[test]
fn the_figures_of_2004_come_out_as_printed_within_seconds() {
    let mut figure = net(&[
        (0x111, "a b e c"),
        (0x222, "a b d f"),
        (0x333, "c d l j h g"),
        (0x444, "e f n m k i"),
        (0x555, "g i 0 0"),
        (0x666, "h k 0 0"),
        (0x777, "j m 0 0"),
        (0x888, "l n 0 0"),
    ]);
    figure.run_ms(10_000);
    let mut want = vec!["F F F F", "F:10 B F F", "F:10 B F F F F", "F:10 B F F F F"];
    want.extend(["F:20 B F F"; 4]);
    assert_eq!(figure.are(), want);
    // Two ports of the last one are connected to each other.
    figure.rewire(7, "l n o o");
    figure.run_ms(40_000);
    want[7] = "F:20 B F B";
    assert_eq!(figure.are(), want);

    let mut ring = net(&[
        (0x111, "a b l"),
        (0x222, "b c d"),
        (0x333, "d e f"),
        (0x444, "f g h"),
        (0x555, "j h i"),
        (0x666, "l j k"),
    ]);
    ring.run_ms(10_000);
    assert_eq!(ring.are(), ["F F F", "F:10 F F", "F:20 F F", "F:30 F B", "F:20 F F", "F:10 F F"]);
}

#[test]
fn between_rapid_bridges_forwarding_begins_at_once_and_a_port_without_a_bridge_waits_a_little() {
    let mut net = net(&[(1, "X 0"), (2, "a")]);
    net.rewire(0, "a 0");
    net.run_ms(100);
    assert_eq!(net.are(), ["F ?", "F:10"], "proposed and agreed to");
    net.run_ms(2800);
    assert_eq!(net.is(0), "F ?");
    net.run_ms(200);
    assert_eq!(net.is(0), "F F", "nobody answered: there are stations");
    // As the administrator says, it need not wait.
    let mut edge = Rstp::new("e", StpSettings::new(BridgeId(1)));
    edge.set_port(1, PortSettings { admin_edge: true, ..PortSettings::USUAL });
    edge.enable(1, true);
    assert_eq!(edge.state(1), State::Forwarding);
    // Until a bridge is heard there.
    let other = Config {
        topology_change: false,
        acknowledge: false,
        root: BridgeId(0),
        root_path_cost: 0,
        bridge: BridgeId(0),
        port: 1,
        message_age_ms: 0,
        max_age_ms: 20_000,
        hello_ms: 2000,
        forward_delay_ms: 15_000,
    };
    edge.receive(1, &Bpdu::Config(other));
    assert_eq!((edge.role(1), edge.is_root()), (Role::Root, false));
}

#[test]
fn when_a_link_of_a_ring_goes_the_other_way_is_taken_at_once_and_everybody_forgets() {
    let mut net = net(&[(1, "a c"), (2, "a b"), (3, "b c")]);
    net.run_ms(10_000);
    assert_eq!(net.are(), ["F F", "F:10 F", "B F:10"]);
    net.flushed();
    net.run_ms(10_000);
    assert_eq!(net.flushed(), [false; 3], "nothing happens");
    net.rewire(0, "X c");
    net.rewire(1, "X b");
    net.run_ms(100);
    assert_eq!(net.are(), ["D F", "D F:20", "F F:10"]);
    assert_eq!(net.flushed()[1..], [true; 2]);
    net.rewire(1, "a b");
    net.rewire(0, "a c");
    net.run_ms(1000);
    assert_eq!(net.are(), ["F F", "F:10 F", "B F:10"]);
}

#[test]
fn a_root_that_says_nothing_any_more_is_none_after_three_messages() {
    let mut net = net(&[(1, "a"), (2, "a b"), (3, "b")]);
    net.run_ms(10_000);
    assert_eq!(net.are(), ["F", "F:10 F", "F:20"]);
    net.rewire(0, "z");
    net.run_ms(3000);
    assert_eq!(net.is(2), "F:20");
    net.run_ms(8000);
    let b = net.rapid(2);
    assert_eq!((b.seen().1, b.role(1)), (BridgeId(2), Role::Root));
}

#[test]
fn with_a_bridge_of_1998_it_goes_as_slowly_as_that_wants_and_ends_the_same() {
    let mut net = with_old(&[(1, "a c"), (2, "a b"), (3, "b c")], &[2]);
    net.run_ms(20_000);
    assert!(net.is(1).contains('?'), "the old one still waits");
    net.run_ms(60_000);
    assert_eq!(net.are(), ["F F", "F:10 F", "B F:10"]);
    let b = net.rapid(0);
    assert!(!b.ports[&1].send_rstp && b.ports[&2].send_rstp, "each port speaks as it is spoken to");
    net.rewire(0, "a X");
    net.rewire(2, "b X");
    net.run_ms(80_000);
    assert_eq!(net.are(), ["F D", "F:10 F", "F:20 D"]);
}

#[test]
fn whatever_comes_in_nothing_breaks_and_it_comes_to_rest() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut b = Rstp::new("b", StpSettings::new(BridgeId(0x8000_0000_0000_0009)));
    for n in 1..=4 {
        b.set_port(n, PortSettings { auto_edge: n % 2 == 0, ..PortSettings::USUAL });
        b.enable(n, true);
    }
    for _ in 0..20_000 {
        let r = next();
        let n = (r % 7) as u8;
        match r >> 8 & 7 {
            0 => b.enable(n, r >> 16 & 1 != 0),
            1 => b.run((r >> 16) as u32 % 5000),
            2 => b.receive(n, &Bpdu::TopologyChange),
            kind => {
                let config = Config {
                    topology_change: r >> 20 & 1 != 0,
                    acknowledge: r >> 21 & 1 != 0,
                    root: BridgeId(next() % 16),
                    root_path_cost: [0, 10, u32::MAX][(r >> 24) as usize % 3],
                    bridge: BridgeId(next() % 16),
                    port: next() as u16 % 8,
                    message_age_ms: next() as u32 % 70_000,
                    max_age_ms: next() as u32 % 70_000,
                    hello_ms: next() as u32 % 70_000,
                    forward_delay_ms: next() as u32 % 70_000,
                };
                let rapid = Rapid {
                    config,
                    proposal: r >> 30 & 1 != 0,
                    agreement: r >> 31 & 1 != 0,
                    role: [Role::Root, Role::Designated, Role::Alternate, Role::Disabled][kind as usize % 4]
                        .on_the_wire(),
                    learning: r >> 32 & 1 != 0,
                    forwarding: r >> 33 & 1 != 0,
                };
                b.receive(n, &if kind == 3 { Bpdu::Config(config) } else { Bpdu::Rapid(rapid) });
            }
        }
        assert!(b.take_frames().iter().all(|(n, _)| (1..=4).contains(n)));
        let roots = (1..=4).filter(|n| b.role(*n) == Role::Root).count();
        assert!(roots <= 1, "{b:?}");
    }
}

#[test]
fn a_tree_is_shown_as_by_a_stock_switch() {
    // As `ovs-appctl rstp/show` of Open vSwitch 3.1.0 shows the second of two bridges.
    let id = |last| BridgeId::new(0x8000, [0xaa, 0x66, 0xaa, 0x66, 0, last]);
    let mut net = net(&[(id(0).0, "a"), (id(1).0, "a 0 X")]);
    let b = net.rapid(1);
    b.name = "br1".to_owned();
    (1..=3).for_each(|n| b.set_port(n, PortSettings::USUAL));
    net.run_ms(10_000);
    let want = "---- br1 ----\nRoot ID:\n  stp-priority    32768\n  stp-system-id   aa:66:aa:66:00:00\n  \
                stp-hello-time  2s\n  stp-max-age     20s\n  stp-fwd-delay   15s\n  root-port       p1\n  \
                root-path-cost  2000\n\nBridge ID:\n  stp-priority    32768\n  stp-system-id   aa:66:aa:66:00:01\n  \
                stp-hello-time  2s\n  stp-max-age     20s\n  stp-fwd-delay   15s\n\n  \
                Interface  Role       State      Cost     Pri.Nbr \n  ---------- ---------- ---------- -------- -------\n  \
                p1         Root       Forwarding 2000     128.1\n  p2         Designated Forwarding 2000     128.2\n\n";
    let b = net.rapid(1);
    assert_eq!(b.text(&|n| format!("p{n}")), want);
}
