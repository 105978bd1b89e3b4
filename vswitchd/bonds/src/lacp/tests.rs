//! Two ends with two links between them.

use super::*;

fn settings() -> LacpSettings {
    LacpSettings { active: true, system: None, priority: 65534, fast: true, fallback_ab: false }
}

struct Ends {
    a: Lacp,
    b: Lacp,
    now: Instant,
    /// Links by which frames get through: of `a` 1 is with 3 of `b`, and 2 with 4.
    carries: [bool; 2],
}

impl Ends {
    fn new(a: LacpSettings, b: LacpSettings) -> Ends {
        let now = Instant::from_nanos(1_000_000_000);
        let mut e = Ends {
            a: Lacp::new("bond0", a, [0xaa; 6]),
            b: Lacp::new("bond1", b, [0xac; 6]),
            now,
            carries: [true; 2],
        };
        for id in [1, 2] {
            let (x, y) = (format!("p{}", id - 1), format!("p{}", id + 1));
            e.a.put_member(id, &x, LacpPort { key: 2, ..LacpPort::default() }, [id as u8; 6], now);
            e.b.put_member(id + 2, &y, LacpPort { key: 4, ..LacpPort::default() }, [id as u8; 6], now);
            e.a.set_carrier(id, true, now);
            e.b.set_carrier(id + 2, true, now);
        }
        e
    }

    fn pass(&mut self, ms: u64) {
        let until = self.now + Duration::from_millis(ms);
        while self.now < until {
            self.now = self.now + Duration::from_millis(100);
            let now = self.now;
            self.a.run(now);
            self.b.run(now);
            for _ in 0..4 {
                for (id, f) in self.a.emit(now) {
                    if self.carries[id as usize - 1] {
                        self.b.receive(id + 2, &f, now);
                    }
                }
                self.b.run(now);
                for (id, f) in self.b.emit(now) {
                    if self.carries[id as usize - 3] {
                        self.a.receive(id - 2, &f, now);
                    }
                }
                self.a.run(now);
            }
        }
    }
}

#[test]
fn ends_agree_and_carry() {
    let mut e = Ends::new(settings(), settings());
    e.pass(500);
    assert!([1, 2].map(|id| e.a.may_enable(id) && e.a.is_current(id)) == [true; 2]);
    assert!([3, 4].map(|id| e.b.may_enable(id)) == [true; 2]);
    assert_eq!(e.a.status(), LacpStatus::Negotiated);
    let text = e.a.text();
    let first = "---- bond0 ----\n  status: active negotiated\n  sys_id: aa:aa:aa:aa:aa:aa\n  sys_priority: 65534\n  aggregation key: \
                 2\n  lacp_time: fast\n\nmember: p0: current attached\n  port_id: 1\n  port_priority: 65535\n  may_enable: true\n\n";
    assert!(text.starts_with(first), "{text}");
    let partner = "  partner sys_id: ac:ac:ac:ac:ac:ac\n  partner sys_priority: 65534\n  partner port_id: 4\n  partner port_priority: \
                   65535\n  partner key: 4\n  partner state: activity timeout aggregation synchronized collecting distributing\n";
    assert!(text.ends_with(partner), "{text}");
}

#[test]
fn a_member_that_hears_nothing_expires_and_then_has_no_partner() {
    let mut e = Ends::new(settings(), settings());
    e.pass(500);
    e.carries[0] = false;
    e.pass(4100);
    assert_eq!([1, 2].map(|id| e.a.may_enable(id)), [false, true]);
    assert!(e.a.text().contains("member: p0: expired attached"));
    e.pass(4100);
    let text = e.a.text();
    assert!(text.contains("member: p0: defaulted detached"), "{text}");
    assert!(text.contains("  actor state: activity timeout aggregation defaulted\n"), "{text}");
    assert!(text.contains("  partner state:\n"), "{text}");
    e.carries[0] = true;
    e.pass(30_100);
    assert_eq!([1, 2].map(|id| e.a.may_enable(id)), [true; 2]);
    let c = e.a.counters(1).unwrap();
    assert_eq!((c.expired, c.defaulted, c.carrier_changes), (1, 1, 1));
}

#[test]
fn two_that_wait_to_be_spoken_to_never_speak() {
    let passive = LacpSettings { active: false, ..settings() };
    let mut e = Ends::new(passive.clone(), passive.clone());
    e.pass(10_000);
    assert_eq!((e.a.status(), e.a.may_enable(1)), (LacpStatus::Configured, false));
    let mut e = Ends::new(settings(), passive);
    e.pass(35_000);
    assert!(e.a.may_enable(1) && e.b.may_enable(4));
}

#[test]
fn with_fallback_members_without_a_partner_may_carry() {
    let alone = LacpSettings { fallback_ab: true, ..settings() };
    let mut e = Ends::new(alone, settings());
    e.carries = [false; 2];
    e.pass(7000);
    // It cannot be told from one that works, but each is on its own.
    assert!(e.a.text().contains("defaulted detached"), "{}", e.a.text());
    assert!(!e.a.is_current(1));
}

#[test]
fn members_with_another_partner_are_detached() {
    let mut e = Ends::new(settings(), settings());
    e.pass(500);
    let now = e.now;
    let other =
        Info { system_priority: 65534, system: [0xcc; 6], key: 4, port: 9, state: 0x3f, ..Info::default() };
    let f = pdu::frame([1; 6], &other, &Info::default());
    e.a.receive(2, &f, now);
    e.a.run(now);
    assert_eq!([1, 2].map(|id| e.a.may_enable(id)), [true, false]);
}

#[test]
fn ones_own_units_are_no_partners() {
    let mut e = Ends::new(settings(), settings());
    let f = e.a.emit(e.now);
    for (id, f) in f {
        e.a.receive(id, &f, e.now);
    }
    e.a.run(e.now);
    assert!(!e.a.may_enable(1) && e.a.text().contains("current detached"));
}

#[test]
fn without_a_carrier_nothing_was_received() {
    let mut e = Ends::new(settings(), settings());
    e.a.set_carrier(1, false, e.now);
    e.pass(500);
    assert_eq!([1, 2].map(|id| e.a.may_enable(id)), [false, true]);
}

#[test]
fn a_member_whose_carrier_comes_back_speaks_at_once() {
    let mut e = Ends::new(settings(), settings());
    e.pass(500);
    e.a.set_carrier(1, false, e.now);
    e.carries[0] = false;
    e.pass(200);
    assert_eq!(e.a.counters(1).unwrap().sent, e.b.counters(3).unwrap().received, "nothing was said in vain");
    e.a.set_carrier(1, true, e.now);
    e.carries[0] = true;
    e.pass(100);
    assert!(e.a.may_enable(1));
}

#[test]
fn a_system_without_a_name_yet_is_not_its_own_partner() {
    let now = Instant::from_nanos(1_000_000_000);
    let mut a = Lacp::new("bond0", settings(), [0; 6]);
    a.put_member(1, "p1", LacpPort::default(), [1; 6], now);
    a.run(now);
    assert!(a.text().contains("expired attached"), "{}", a.text());
}
