//! Verdicts while rules change under the packets, against a search through all rules.

use std::time::{Duration, Instant};

use super::churn::{Options, run};
use crate::rulesets::Kind;

#[test]
fn verdicts_follow_rules_that_come_and_go_with_and_without_the_cache() {
    for (kind, no_emc, seed) in
        [(Kind::Acl, false, 3), (Kind::Acl, true, 4), (Kind::Fw, false, 5), (Kind::Ipc, true, 6)]
    {
        let o = Options { kind, rules: 120, steps: 200, no_emc, seed };
        let r = run(&o, Instant::now() + Duration::from_secs(60)).unwrap();
        assert!(r.shortcuts > 0, "no packet took a shortcut: {r:?}");
        assert_eq!((r.changes, r.packets), (200, 200 * 2 * 96));
    }
}
