use super::*;

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn settings(mpid: u64, interval_ms: u32) -> CfmSettings {
    let interval = interval_ms.to_string();
    let get = |k: &str| match k {
        "cfm_interval" => Some(interval.as_str()),
        "cfm_extended" => Some("true"),
        _ => None,
    };
    CfmSettings::parse(mpid, get, false).unwrap()
}

struct Pair {
    ends: [Cfm; 2],
    rx: [u64; 2],
    now: u64,
}

impl Pair {
    fn new(a: CfmSettings, b: CfmSettings) -> Pair {
        Pair { ends: [Cfm::new("a", a, 1, 0, at(0)), Cfm::new("b", b, 2, 0, at(0))], rx: [0; 2], now: 0 }
    }

    fn go(&mut self, total: u64, sends: [bool; 2]) {
        for _ in 0..total / 100 {
            self.now += 100;
            for (i, sends) in sends.iter().enumerate() {
                self.ends[i].run(at(self.now), self.rx[i]);
                if *sends && self.ends[i].due(at(self.now)) {
                    let f = self.ends[i].emit(at(self.now), [2; 6]);
                    self.rx[1 - i] += 1;
                    self.ends[1 - i].receive(&f, at(self.now));
                }
            }
        }
    }
}

#[test]
fn ends_hear_each_other_and_miss_each_other() {
    let mut p = Pair::new(settings(1, 300), settings(2, 300));
    p.go(1500, [true, false]);
    let s = p.ends[0].status();
    assert_eq!((s.faults, s.flaps, s.health), (Faults::RECEIVE, 1, None));
    p.go(10_000, [true, true]);
    let s = p.ends[0].status();
    assert_eq!(
        (s.faults.is_empty(), s.health, s.remotes.as_slice(), s.flaps),
        (true, Some(100), &[2][..], 2)
    );
    assert!(p.ends[0].is_fit());
    p.go(3000, [true, false]);
    assert_eq!(p.ends[0].status().faults, Faults::RECEIVE);
    let text = p.ends[0].text(at(p.now));
    assert!(text.starts_with("---- a ----\nMPID 1: extended\n  fault: recv\n"), "{text}");
    // The one that is missed hears of it.
    assert_eq!(p.ends[1].status().faults, Faults::REMOTE_DEFECT);
}

#[test]
fn an_end_that_is_not_operational_is_heard_and_not_fit() {
    let mut p = Pair::new(settings(1, 100), CfmSettings { operational: false, ..settings(2, 100) });
    p.go(3000, [true, true]);
    let s = p.ends[0].status();
    assert_eq!((s.faults.is_empty(), s.remote_operational), (true, Some(false)));
    assert!(!p.ends[0].is_fit() && p.ends[1].is_fit());
}

#[test]
fn on_demand_other_packets_count_as_long_as_a_message_comes_now_and_then() {
    let demand = |n| CfmSettings { demand: true, ..settings(n, 300) };
    let mut p = Pair::new(demand(1), demand(2));
    p.go(20_000, [true, true]);
    let mut fit_for = 0;
    for _ in 0..400 {
        p.rx[0] += 1;
        p.go(100, [true, false]);
        fit_for += u64::from(p.ends[0].is_fit()) * 100;
    }
    assert!((28_000..34_000).contains(&fit_for), "a hundred intervals of 300 ms: {fit_for} ms");
}

#[test]
fn this_ends_own_messages_and_strangers_are_faults() {
    let mut c = Cfm::new("a", settings(1, 100), 1, 0, at(0));
    let own = c.emit(at(0), [2; 6]);
    c.receive(&own, at(0));
    let mut stranger = own.clone();
    stranger[30] = 0xff;
    c.receive(&stranger, at(0));
    c.run(at(400), 0);
    assert_eq!(c.faults().words().collect::<Vec<_>>(), ["maid", "loopback"]);
}

#[test]
fn no_more_ends_are_remembered_than_there_is_room_for() {
    let mut c = Cfm::new("a", settings(1, 100), 1, 0, at(0));
    for n in 0..2 * MAX_REMOTES as u64 {
        let mut other = Cfm::new("b", settings(n + 2, 100), 1, 0, at(0));
        let f = other.emit(at(0), [2; 6]);
        c.receive(&f, at(0));
    }
    c.run(at(400), 0);
    assert_eq!(c.status().remotes.len(), MAX_REMOTES);
    assert_eq!(c.faults().words().collect::<Vec<_>>(), ["overflow"]);
    assert_eq!(c.status().health, None);
}
