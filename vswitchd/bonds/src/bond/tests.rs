//! A bond of three members.

use super::*;

const T: Instant = Instant::from_nanos(1_000_000_000);

fn at(ms: u64) -> Instant {
    T + Duration::from_millis(ms)
}

fn bond(settings: BondSettings) -> Bond {
    let mut b = Bond::new("bond0", settings);
    for id in 1..=3 {
        b.put_member(id, &format!("p{id}"), [0, 0, 0, 0, 0, id as u8]);
        b.set_may_enable(id, true);
    }
    b.run(LacpStatus::Off, T);
    b
}

fn with(mode: BondMode) -> BondSettings {
    BondSettings { mode, ..BondSettings::default() }
}

#[test]
fn a_backup_becomes_active_when_the_active_one_fails_and_stays_it() {
    let mut b = bond(with(BondMode::ActiveBackup));
    assert!(b.active() == Some(1) && b.takes_lesson() && !b.takes_lesson());
    b.set_may_enable(1, false);
    b.run(LacpStatus::Off, at(1));
    assert!(b.active() == Some(2) && b.takes_lesson());
    b.set_may_enable(1, true);
    b.run(LacpStatus::Off, at(2));
    assert_eq!((b.active(), b.view().member_of(77)), (Some(2), Some(2)));
    assert_eq!(b.view().admits(2, true), Admission::Accept);
    assert_eq!(b.view().admits(1, false), Admission::Drop);
}

#[test]
fn the_primary_is_active_whenever_it_is_enabled() {
    let mut b = bond(BondSettings { primary: Some("p3".into()), ..BondSettings::default() });
    assert_eq!(b.active(), Some(3));
    b.set_may_enable(3, false);
    b.run(LacpStatus::Off, at(1));
    assert_ne!(b.active(), Some(3));
    b.set_may_enable(3, true);
    b.run(LacpStatus::Off, at(2));
    assert_eq!(b.active(), Some(3));
    b.remove_member(3);
    b.run(LacpStatus::Off, at(3));
    assert!(b.text(at(3)).contains("active-backup primary: p3 (no such member)\n"));
}

#[test]
fn links_must_have_been_up_or_down_for_a_while_unless_none_is_enabled() {
    let delays = BondSettings {
        up_delay: Duration::from_millis(500),
        down_delay: Duration::from_millis(200),
        ..BondSettings::default()
    };
    let mut b = bond(delays);
    // The first one need not wait.
    let enabled = |b: &Bond| b.view().members.iter().filter(|(_, e)| *e).count();
    assert_eq!((enabled(&b), b.active()), (1, Some(1)));
    assert!(
        b.text(at(100)).contains("member p2: disabled\n  updelay expires in 400 ms\n  may_enable: true\n")
    );
    b.run(LacpStatus::Off, at(500));
    assert_eq!(enabled(&b), 3);
    b.set_may_enable(1, false);
    b.run(LacpStatus::Off, at(600));
    b.set_may_enable(1, true);
    b.run(LacpStatus::Off, at(700));
    b.run(LacpStatus::Off, at(900));
    assert_eq!((enabled(&b), b.active()), (3, Some(1)), "it was down for less than the delay");
}

#[test]
fn hashes_go_to_all_members_and_away_from_one_that_fails() {
    let mut b = bond(with(BondMode::BalanceSlb));
    let spread =
        |b: &Bond| [1, 2, 3].map(|id| (0..256).filter(|h| b.view().member_of(*h) == Some(id)).count());
    assert_eq!(spread(&b), [86, 85, 85]);
    (0..BUCKETS).for_each(|i| b.count(i, 1000));
    b.set_may_enable(2, false);
    b.run(LacpStatus::Off, at(1));
    assert_eq!(spread(&b)[1], 0);
    b.set_may_enable(2, true);
    b.run(LacpStatus::Off, at(2));
    assert_eq!(spread(&b)[1], 0, "what is under way stays until loads are looked at");
    assert_eq!(b.view().admits(2, true), Admission::Drop);
    assert_eq!(b.view().admits(1, true), Admission::DropIfMoved);
}

#[test]
fn loads_are_made_alike() {
    let mut b = bond(with(BondMode::BalanceSlb));
    for i in 0..BUCKETS {
        b.migrate(&i.to_string(), "p1").unwrap();
    }
    assert!(!b.is_due(at(0)) && b.is_due(at(10_000)));
    (0..BUCKETS).for_each(|i| b.count(i, 1 + 65_500));
    assert!(b.rebalance(at(10_000)) >= 160);
    let sums = [1, 2, 3].map(|id| b.loads(id).map(|(_, l)| l).sum::<u64>());
    assert!(sums.iter().max().unwrap() - sums.iter().min().unwrap() <= 65_500, "{sums:?}");
    assert!(
        b.text(at(10_000)).contains("kB load\n") && b.text(at(10_000)).contains("next rebalance: 10000 ms\n")
    );
    assert_eq!(b.rebalance(at(20_000)), 0);
}

#[test]
fn one_large_flow_is_left_where_it_is() {
    let mut b = bond(with(BondMode::BalanceSlb));
    b.count(0, 1_000_000_000);
    assert_eq!(b.rebalance(at(10_000)), 0);
}

#[test]
fn by_connection_needs_a_partner_that_has_agreed() {
    let mut b = bond(with(BondMode::BalanceTcp));
    assert_eq!((b.view().member_of(5), b.view().admits(1, false)), (None, Admission::Drop));
    b.run(LacpStatus::Configured, at(1));
    assert_eq!(b.view().admits(1, false), Admission::Drop);
    b.run(LacpStatus::Negotiated, at(2));
    assert!(b.view().member_of(5).is_some() && b.view().by_connection());
    assert_eq!(b.view().admits(3, true), Admission::Accept);
    b.configure(&BondSettings { fallback_ab: true, ..with(BondMode::BalanceTcp) });
    b.run(LacpStatus::Configured, at(3));
    assert!(b.view().is_fixed() && !b.view().by_connection());
    assert_eq!(b.view().admits(1, true), Admission::Accept);
}

#[test]
fn commands_say_what_cannot_be_done() {
    let mut b = bond(with(BondMode::ActiveBackup));
    assert_eq!(b.set_active("p9").unwrap_err(), "no such member");
    assert_eq!(b.migrate("1", "p1").unwrap_err(), "not an SLB bond");
    assert_eq!((b.set_active("p2"), b.set_active("p2")), (Ok(true), Ok(false)));
    b.set_may_enable(3, false);
    b.run(LacpStatus::Off, at(1));
    assert_eq!(b.set_active("p3").unwrap_err(), "cannot make disabled member active");
    let text = b.text(at(1));
    let want = "---- bond0 ----\nbond_mode: active-backup\nbond may use recirculation: no, Recirc-ID : -1\nbond-hash-basis: 0\n\
                lb_output action: disabled, bond-id: -1\nupdelay: 0 ms\ndowndelay: 0 ms\nlacp_status: off\nlacp_fallback_ab: \
                false\nactive-backup primary: <none>\nactive member mac: 00:00:00:00:00:02(p2)\n\nmember p1: enabled\n  may_enable: \
                true\n\nmember p2: enabled\n  active member\n  may_enable: true\n\nmember p3: disabled\n  may_enable: false\n\n";
    assert_eq!(text, want);
    assert_eq!(b.line(), "bond0\tactive-backup\t0\tp1, p2, p3\n");
}
