//! Networks of bridges: those of the figures of IEEE 802.1D, and what becomes of them when links come and go.

use super::*;
use crate::bpdu::Bpdu;
use crate::net::{COST, Net};

fn net(bridges: &[(u64, &str)]) -> Net {
    Net { bridges: Vec::new(), step_ms: 1000, at_once: false }.with(bridges, |_| true)
}

/// What each bridge's ports do ([`Net::is`]), or `root` where it is that and every port forwards.
fn are(net: &mut Net) -> Vec<String> {
    let texts = net.are();
    let root = |(i, text): (usize, String)| {
        let is_root = net.old(i).is_root() && text.split(' ').all(|p| p == "F");
        if is_root { "root".to_owned() } else { text }
    };
    texts.into_iter().enumerate().map(root).collect()
}

#[test]
fn the_example_of_1998_and_the_figures_of_2004_come_out_as_printed() {
    let mut figure =
        net(&[(0x42, "a b"), (0x97, "c:5 a d:5"), (0x45, "b e"), (0x57, "b:5 e:5"), (0x83, "a:5 e:5")]);
    figure.run_ms(1_000_000);
    assert_eq!(are(&mut figure), ["root", "F F:10 F", "F:10 B", "F:5 F", "F:5 B"]);

    // 17.4 and 17.5: two core bridges, two below them, four at the edge.
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
    figure.run_ms(1_000_000);
    let mut want = vec!["root", "F:10 B F F", "F:10 B F F F F", "F:10 B F F F F"];
    want.extend(["F:20 B F F"; 4]);
    assert_eq!(are(&mut figure), want);
    // Two ports of the last one are connected to each other.
    figure.rewire(7, "l n o o");
    figure.run_ms(1_000_000);
    want[7] = "F:20 B F B";
    assert_eq!(are(&mut figure), want);

    // 17.6: a ring.
    let mut figure = net(&[
        (0x111, "a b l"),
        (0x222, "b c d"),
        (0x333, "d e f"),
        (0x444, "f g h"),
        (0x555, "j h i"),
        (0x666, "l j k"),
    ]);
    figure.run_ms(1_000_000);
    assert_eq!(are(&mut figure), ["root", "F:10 F F", "F:20 F F", "F:30 F B", "F:20 F F", "F:10 F F"]);
}

#[test]
fn a_port_that_comes_forwards_after_twice_the_delay() {
    let mut net = net(&[(1, "a"), (2, "a")]);
    let states = |n: &mut Net| [0, 1].map(|b| n.old(b).state(1));
    assert_eq!(states(&mut net), [State::Listening; 2]);
    net.run_ms(14_000);
    assert_eq!(states(&mut net), [State::Listening; 2]);
    net.run_ms(1000);
    assert_eq!(states(&mut net), [State::Learning; 2]);
    net.run_ms(15_000);
    assert_eq!(states(&mut net), [State::Forwarding; 2]);
    assert_eq!(net.old(1).in_state_ms(1), 0);
    net.run_ms(7000);
    assert_eq!(net.old(1).in_state_ms(1), 7000);
    let (own, root, cost) = net.old(1).seen();
    assert_eq!((own.0, root.0, cost), (2, 1, 10));
}

#[test]
fn when_the_way_to_the_root_goes_another_is_found_and_everybody_forgets() {
    let mut net = net(&[(1, "a c"), (2, "a b"), (3, "b c")]);
    net.run_ms(100_000);
    assert_eq!(are(&mut net), ["root", "F:10 F", "B F:10"]);
    net.flushed();
    net.run_ms(100_000);
    assert_eq!(net.flushed(), [false; 3], "nothing happens");
    // The link between the first and the second goes down at both ends.
    net.rewire(0, "X c");
    net.rewire(1, "X b");
    net.run_ms(100_000);
    assert_eq!(are(&mut net), ["D F", "D F:20", "F F:10"]);
    assert_eq!(net.flushed(), [true; 3]);
    net.rewire(0, "a c");
    net.rewire(1, "a b");
    net.run_ms(100_000);
    assert_eq!(are(&mut net), ["root", "F:10 F", "B F:10"]);
}

#[test]
fn a_root_that_says_nothing_any_more_is_none_after_its_greatest_age() {
    let mut net = net(&[(1, "a"), (2, "a b"), (3, "b")]);
    net.run_ms(100_000);
    assert_eq!(are(&mut net), ["root", "F:10 F", "F:20"]);
    // It is cut off, and nobody's link goes down.
    net.rewire(0, "z");
    net.run_ms(15_000);
    assert_eq!(net.old(2).seen().1, BridgeId(1));
    net.run_ms(40_000);
    assert_eq!(are(&mut net), ["root", "root", "F:10"]);
}

#[test]
fn a_better_bridge_becomes_the_root_and_a_worse_priority_gives_it_up() {
    let mut net = net(&[(0x8000_0000_0000_0002, "a"), (0x8000_0000_0000_0003, "a")]);
    net.run_ms(50_000);
    assert_eq!(are(&mut net), ["root", "F:10"]);
    let better = BridgeId::new(0x7000, [0, 0, 0, 0, 0, 3]);
    net.old(1).configure(StpSettings { hello_ms: 1000, ..StpSettings::new(better) });
    net.run_ms(50_000);
    assert_eq!(are(&mut net), ["F:10", "root"]);
    assert_eq!(net.old(0).seen().1, better);
    let worse = BridgeId::new(0x9000, [0, 0, 0, 0, 0, 3]);
    net.old(1).configure(StpSettings::new(worse));
    net.run_ms(50_000);
    assert_eq!(are(&mut net), ["root", "F:10"]);
}

#[test]
fn of_two_links_the_cheaper_is_used_then_the_one_with_the_better_port() {
    let mut net = net(&[(1, "a b"), (2, "a b")]);
    net.run_ms(50_000);
    assert_eq!(are(&mut net), ["root", "F:10 B"]);
    let usual = PortSettings::USUAL_PRIORITY;
    net.old(1).set_port(2, PortSettings { priority: usual, path_cost: 4 });
    net.run_ms(50_000);
    assert_eq!(are(&mut net), ["root", "B F:4"]);
    net.old(1).set_port(2, PortSettings { priority: usual, path_cost: COST });
    net.old(0).set_port(2, PortSettings { priority: 16, path_cost: COST });
    net.run_ms(50_000);
    assert_eq!(are(&mut net), ["root", "B F:10"], "the root says by which port");
}

#[test]
fn times_are_kept_within_what_the_standard_allows() {
    let s = |hello_ms, max_age_ms, forward_delay_ms| {
        let s = StpSettings { hello_ms, max_age_ms, forward_delay_ms, ..StpSettings::new(BridgeId(1)) };
        let s = s.allowed();
        (s.hello_ms, s.max_age_ms, s.forward_delay_ms)
    };
    assert_eq!(s(2000, 20_000, 15_000), (2000, 20_000, 15_000));
    assert_eq!(s(0, 0, 0), (1000, 6000, 4000));
    assert_eq!(s(u32::MAX, u32::MAX, u32::MAX), (10_000, 40_000, 30_000));
    assert_eq!(
        s(10_000, 6000, 4000),
        (10_000, 22_000, 12_000),
        "old enough for a hello, long enough for all"
    );
}

#[test]
fn whatever_comes_in_nothing_breaks_and_ports_are_only_told_of_their_own() {
    // A peer that makes up what it likes: numbers as they come.
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut b = Stp::new("b", StpSettings::new(BridgeId(0x8000_0000_0000_0009)));
    for n in 1..=4 {
        b.set_port(n, PortSettings { priority: 128, path_cost: COST });
        b.enable(n, true);
    }
    for _ in 0..20_000 {
        let r = next();
        let n = (r % 7) as u8;
        match r >> 8 & 7 {
            0 => b.enable(n, r >> 16 & 1 != 0),
            1 => b.run((r >> 16) as u32 % 5000),
            2 => b.receive(n, &Bpdu::TopologyChange),
            3 => b.received_wrong(n),
            _ => {
                let c = Config {
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
                b.receive(n, &Bpdu::Config(c));
            }
        }
        assert!(b.take_frames().iter().all(|(n, _)| (1..=4).contains(n)));
        // There is one way to the root at most.
        let roots = (1..=4).filter(|n| b.role(*n) == Role::Root).count();
        assert!(roots <= 1 && (roots == 0 || !b.is_root()), "{b:?}");
    }
}

#[test]
fn a_tree_is_shown_as_by_a_stock_switch() {
    // As `ovs-appctl stp/show` of Open vSwitch 3.1.0 shows the second of two bridges.
    let id = |last| BridgeId::new(0x8000, [0xaa, 0x66, 0xaa, 0x66, 0, last]);
    let mut net = net(&[(id(0).0, "a"), (id(1).0, "a:2 0:2 X")]);
    net.old(1).name = "br1".to_owned();
    net.run_ms(40_000);
    let want = "---- br1 ----\nRoot ID:\n  stp-priority  32768\n  stp-system-id   aa:66:aa:66:00:00\n  \
                stp-hello-time  2s\n  stp-max-age     20s\n  stp-fwd-delay   15s\n  root-port       p1\n  \
                root-path-cost  2\n\nBridge ID:\n  stp-priority  32768\n  stp-system-id   aa:66:aa:66:00:01\n  \
                stp-hello-time  2s\n  stp-max-age     20s\n  stp-fwd-delay   15s\n\n  \
                Interface  Role       State      Cost  Pri.Nbr \n  ---------- ---------- ---------- ----- -------\n  \
                p1         root       forwarding 2     128.1\n  p2         designated forwarding 2     128.2\n\n";
    assert_eq!(net.old(1).text(&|n| format!("p{n}")), want);
    assert!(net.old(0).text(&|n| format!("p{n}")).contains("  This bridge is the root\n"));
}
