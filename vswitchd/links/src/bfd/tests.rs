use super::*;

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

/// Two ends of a link, which carries while `cut` is false; time goes in steps of `step`.
struct Pair {
    ends: [Bfd; 2],
    rx: [u64; 2],
    now: u64,
}

impl Pair {
    fn new(a: BfdSettings, b: BfdSettings) -> Pair {
        let end = |name, s, n: u16| Bfd::new(name, s, (u32::from(n) + 7, n, u64::from(n) + 3), 0, at(0));
        Pair { ends: [end("a", a, 0), end("b", b, 1)], rx: [0; 2], now: 0 }
    }

    fn go(&mut self, total: u64, step: u64, carries: [bool; 2]) {
        let end = self.now + total;
        while self.now < end {
            self.now += step;
            for i in 0..2 {
                self.ends[i].run(at(self.now), self.rx[i]);
            }
            for _ in 0..4 {
                for (i, carries) in carries.iter().enumerate() {
                    if self.ends[i].due(at(self.now)) {
                        let f = self.ends[i].emit(at(self.now), [2, 0, 0, 0, 0, i as u8]);
                        if *carries {
                            self.rx[1 - i] += 1;
                            self.ends[1 - i].receive(&f, at(self.now));
                        }
                    }
                }
            }
        }
    }

    fn status(&mut self, i: usize) -> BfdStatus {
        self.ends[i].status(at(self.now))
    }

    fn states(&mut self) -> [State; 2] {
        [0, 1].map(|i| self.status(i).state)
    }
}

const BOTH: [bool; 2] = [true; 2];

#[test]
fn two_ends_find_each_other_and_notice_when_the_link_is_cut() {
    let mut p = Pair::new(BfdSettings::default(), BfdSettings::default());
    p.go(4100, 100, BOTH);
    assert_eq!(p.states(), [State::Up; 2]);
    assert!(p.status(0).forwarding && p.status(0).flaps == 1);
    p.go(4100, 100, [false, false]);
    let s = p.status(0);
    assert_eq!((s.state, s.diagnostic, s.forwarding, s.flaps), (State::Down, Diagnostic::EXPIRED, false, 2));
    assert_eq!((s.remote_state, s.remote_diagnostic), (State::Down, Diagnostic::NONE));
    p.go(4100, 100, BOTH);
    let s = p.status(1);
    assert_eq!(
        (s.state, s.diagnostic, s.remote_diagnostic),
        (State::Up, Diagnostic::EXPIRED, Diagnostic::EXPIRED)
    );
}

#[test]
fn a_link_that_carries_one_way_is_down_at_both_ends() {
    let mut p = Pair::new(BfdSettings::default(), BfdSettings::default());
    p.go(4100, 100, BOTH);
    p.go(8200, 100, [false, true]);
    let (a, b) = (p.status(0), p.status(1));
    assert_eq!((b.state, b.diagnostic), (State::Down, Diagnostic::EXPIRED));
    assert_eq!((a.state, a.diagnostic), (State::Init, Diagnostic::NEIGHBOUR_DOWN));
    assert!(!a.forwarding && !b.forwarding);
}

#[test]
fn the_other_end_hears_that_the_path_behind_is_down() {
    let mut p = Pair::new(BfdSettings::default(), BfdSettings::default());
    p.go(4100, 100, BOTH);
    let s = BfdSettings { concatenated_path_down: true, ..BfdSettings::default() };
    p.ends[0].configure(s, at(p.now));
    p.go(4100, 100, BOTH);
    let b = p.status(1);
    assert_eq!((b.state, b.forwarding), (State::Up, false));
    assert_eq!(b.remote_diagnostic, Diagnostic::CONCATENATED_DOWN);
}

#[test]
fn intervals_change_by_a_poll_while_the_session_is_up() {
    let mut p = Pair::new(BfdSettings::default(), BfdSettings::default());
    p.go(4100, 100, BOTH);
    p.ends[0].configure(BfdSettings { min_tx_ms: 200, ..BfdSettings::default() }, at(p.now));
    p.ends[1].configure(BfdSettings { min_rx_ms: 300, ..BfdSettings::default() }, at(p.now));
    assert!(p.ends[0].text(at(p.now)).contains("Local Flags: poll\n"));
    p.go(2100, 100, BOTH);
    let text = p.ends[1].text(at(p.now));
    for want in [
        "  RX Interval: Approx 300ms\n",
        "  Local Minimum RX Interval: 300ms\n",
        "  Remote Minimum TX Interval: 200ms\n",
    ] {
        assert!(text.contains(want), "{want}{text}");
    }
    assert_eq!(p.states(), [State::Up; 2]);
    assert!(text.contains("Local Flags: none\n"));
}

#[test]
fn a_quiet_link_is_watched_at_a_slower_pace() {
    let a = BfdSettings { min_tx_ms: 300, min_rx_ms: 300, decay_min_rx_ms: 3000, ..BfdSettings::default() };
    let b = BfdSettings { min_tx_ms: 500, min_rx_ms: 500, ..BfdSettings::default() };
    let mut p = Pair::new(a, b);
    let rx = |p: &mut Pair| {
        let t = p.ends[0].text(at(p.now));
        t.lines().find(|l| l.contains("RX Interval")).unwrap_or_default().to_owned()
    };
    p.go(2000, 100, BOTH);
    assert_eq!(rx(&mut p), "  RX Interval: Approx 500ms");
    p.go(8000, 100, BOTH);
    assert_eq!(rx(&mut p), "  RX Interval: Approx 3000ms");
    // Other packets.
    for _ in 0..50 {
        p.rx[0] += 10;
        p.go(100, 100, BOTH);
    }
    assert_eq!(rx(&mut p), "  RX Interval: Approx 500ms");
    assert_eq!(p.states(), [State::Up; 2]);
}

#[test]
fn packets_are_a_sign_of_life_while_control_packets_come_now_and_then() {
    let s = BfdSettings { min_tx_ms: 300, min_rx_ms: 300, forwarding_if_rx: true, ..BfdSettings::default() };
    let mut p = Pair::new(s.clone(), BfdSettings { forwarding_if_rx: false, ..s });
    p.go(5000, 100, BOTH);
    for n in 0..400 {
        p.rx[0] += 1;
        p.go(100, 100, [true, false]);
        let s = p.status(0);
        if n == 50 {
            assert_eq!(
                (s.state, s.forwarding, s.flaps),
                (State::Down, true, 1),
                "control packets are gone, others are not"
            );
        }
    }
    let s = p.status(0);
    assert_eq!((s.forwarding, s.flaps), (false, 2), "no control packet for a hundred intervals");
}

#[test]
fn what_people_want_it_to_say_is_said_and_not_counted() {
    let mut p = Pair::new(BfdSettings::default(), BfdSettings::default());
    p.ends[0].force(Some(true));
    assert!(p.status(0).forwarding && p.status(0).flaps == 0);
    p.ends[0].force(None);
    assert!(!p.status(0).forwarding);
}

#[test]
fn packets_of_other_sessions_change_nothing() {
    let mut p = Pair::new(BfdSettings::default(), BfdSettings::default());
    p.go(4100, 100, BOTH);
    let mut stranger = Bfd::new("c", BfdSettings::default(), (99, 5, 1), 0, at(0));
    // It has heard of some other session, and is down.
    let forged = Message {
        diagnostic: Diagnostic::NONE,
        state: State::Down,
        flags: Flags(0),
        multiplier: 3,
        mine: 99,
        yours: 12345,
        min_tx_us: 1000,
        min_rx_us: 1000,
    };
    let from = Addresses {
        eth_src: [2; 6],
        eth_dst: [2; 6],
        ip_src: std::net::Ipv4Addr::LOCALHOST,
        ip_dst: std::net::Ipv4Addr::LOCALHOST,
        udp_src: 50_000,
    };
    p.ends[0].receive(&forged.frame(&from), at(p.now));
    p.ends[0].receive(&[0; 60], at(p.now));
    assert_eq!(p.states(), [State::Up; 2]);
    assert!(stranger.due(at(0)) && stranger.emit(at(0), [2; 6]).len() == 66);
}
