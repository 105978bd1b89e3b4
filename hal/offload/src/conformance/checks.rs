//! The checks. Each gets a device fresh from the factory.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flow::{Action, MeterId, PortId};

use crate::objects::{ObjectError, ObjectId, ObjectKind, ObjectSpec};
use crate::provider::{FlowOp, HwHandle, OffloadError, OpResult, StatsCursor};
use crate::rule::{FlowId, FlowRule};
use crate::seed::Seed;

use super::Sent;
use super::bench::{Bench, LEN_BYTES, expected, visible};
use super::rules::{SHAPES, packet, random_rule};

/// Name and check.
pub(crate) type Check = (&'static str, fn(&mut Bench));

/// All of them.
pub(crate) const CHECKS: &[Check] = &[
    ("capabilities are sound", capabilities_are_sound),
    ("an entry forwards, counts and says so when it goes", an_entry_forwards_and_counts),
    ("each operation completes once", each_operation_completes_once),
    ("operations on one flow complete in order", operations_on_one_flow_complete_in_order),
    ("handles are unique and stay", handles_are_unique_and_stay),
    ("a replace shows old or new and keeps counting", a_replace_shows_old_or_new),
    ("a refused replace leaves nothing", a_refused_replace_leaves_nothing),
    ("a full queue pushes back", a_full_queue_pushes_back),
    ("a full table refuses, and takes again", a_full_table_refuses),
    ("unknown handles are told", unknown_handles_are_told),
    ("the cursor covers every entry once", the_cursor_covers_every_entry_once),
    ("a dump is what was installed", a_dump_is_what_was_installed),
    ("a flush empties the tables", a_flush_empties_the_tables),
    ("last use is the time of the packet", last_use_is_the_time_of_the_packet),
    ("objects come and go", objects_come_and_go),
    ("a rule with an object the device does not have is refused", a_missing_object_is_refused),
    ("what validate says is what the device does", validate_is_what_the_device_does),
];

fn capabilities_are_sound(b: &mut Bench) {
    assert_eq!(b.caps.inconsistencies(), [""; 0]);
    let again = b.h.provider().capabilities();
    assert_eq!(format!("{:?}", b.caps), format!("{again:?}"), "the same answer each time");
    assert!(b.h.provider().health().is_ok());
}

fn an_entry_forwards_and_counts(b: &mut Bench) {
    let r = b.rule(0, 0);
    assert_eq!(b.send(0), Sent::Missed, "nothing is installed yet");
    let (h, t) = b.install(&r);
    assert!(b.caps.placements(&r).is_ok_and(|p| p.iter().any(|p| p.table == t)), "in a table where it fits");
    for _ in 0..5 {
        b.forwarded(0, &r);
    }
    assert_eq!(b.send(1), Sent::Missed, "another packet");
    let now = b.stats(&mut StatsCursor::default(), 16);
    assert_eq!(now.len(), 1);
    b.counted(t, &now[&h], 5);
    b.forwarded(0, &r);
    let last = b.remove(h);
    b.counted(t, &last, 6);
    assert_eq!(b.send(0), Sent::Missed, "the entry is gone");
    // Counters of a new entry start at zero.
    let (h, t) = b.install(&r);
    b.forwarded(0, &r);
    let last = b.remove(h);
    b.counted(t, &last, 1);
}

fn install_all(b: &mut Bench, n: u32, out: usize) -> BTreeMap<u32, HwHandle> {
    let ops: Vec<_> = (0..n).map(|i| FlowOp::Install(b.op(), b.rule(i, out))).collect();
    let done = b.run(&ops);
    let by_op: BTreeMap<_, _> = ops.iter().map(|o| o.id()).zip(0..n).collect();
    done.into_iter()
        .map(|c| match c.result {
            OpResult::Installed(h, _) => {
                let i = by_op[&c.op];
                assert_eq!(c.flow, FlowId(u64::from(i) + 1), "a completion names its record");
                (i, h)
            }
            other => panic!("not installed: {other:?}"),
        })
        .collect()
}

fn each_operation_completes_once(b: &mut Bench) {
    let n = b.some(40);
    let handles = install_all(b, n, 0);
    assert_eq!(handles.len(), n as usize);
    let mut ops = Vec::new();
    for (i, h) in &handles {
        ops.push(match i % 3 {
            0 => FlowOp::Remove(b.op(), *h),
            _ => FlowOp::Replace(b.op(), *h, b.rule(*i, 1)),
        });
    }
    let done = b.run(&ops);
    let ids: BTreeSet<_> = done.iter().map(|c| c.op).collect();
    assert_eq!(ids, ops.iter().map(|o| o.id()).collect(), "each one, once");
    for c in &done {
        match (&c.result, ops.iter().find(|o| o.id() == c.op)) {
            (OpResult::Removed(h, _), Some(FlowOp::Remove(_, asked))) => assert_eq!(h, asked),
            (OpResult::Replaced(h, _), Some(FlowOp::Replace(_, asked, _))) => assert_eq!(h, asked),
            (r, o) => panic!("{r:?} for {o:?}"),
        }
        assert!(handles.iter().any(|(i, _)| c.flow == FlowId(u64::from(*i) + 1)), "names a record");
    }
    assert_eq!(b.h.provider().outstanding(), 0);
    let mut more = Vec::new();
    for _ in 0..20 {
        b.h.advance(Duration::from_micros(50));
        b.h.provider().poll(&mut more, 100);
    }
    assert!(more.is_empty(), "nothing completes twice: {more:?}");
    for i in 0..n {
        if i % 3 == 0 {
            assert_eq!(b.send(i), Sent::Missed);
        } else {
            let r = b.rule(i, 1);
            b.forwarded(i, &r);
        }
    }
}

fn operations_on_one_flow_complete_in_order(b: &mut Bench) {
    let (r0, r1) = (b.rule(0, 0), b.rule(0, 1));
    let (h, t) = b.install(&r0);
    let ops = [
        FlowOp::Replace(b.op(), h, r1.clone()),
        FlowOp::Replace(b.op(), h, r0),
        FlowOp::Replace(b.op(), h, r1),
        FlowOp::Remove(b.op(), h),
    ];
    let done = b.run(&ops);
    let order: Vec<_> = done.iter().map(|c| c.op).collect();
    assert_eq!(order, ops.iter().map(|o| o.id()).collect::<Vec<_>>());
    match &done[3].result {
        OpResult::Removed(_, last) => b.counted(t, last, 0),
        other => panic!("not removed: {other:?}"),
    }
    assert_eq!(b.send(0), Sent::Missed);
}

fn handles_are_unique_and_stay(b: &mut Bench) {
    let mut seen = BTreeSet::new();
    for round in 0..3 {
        let r = b.rule(0, round);
        let (h, _) = b.install(&r);
        assert!(seen.insert(h), "{h:?} is used again");
        let op = FlowOp::Replace(b.op(), h, b.rule(0, round + 1));
        match b.run_one(op) {
            OpResult::Replaced(same, _) => assert_eq!(same, h, "the handle stays"),
            other => panic!("not replaced: {other:?}"),
        }
        b.remove(h);
    }
}

fn a_replace_shows_old_or_new(b: &mut Bench) {
    let (old, new) = (b.rule(0, 0), b.rule(0, 1));
    let (h, t) = b.install(&old);
    b.forwarded(0, &old);
    let mut hits = 1;
    for round in 0..10 {
        let (from, to) = if round % 2 == 0 { (&old, &new) } else { (&new, &old) };
        let op = FlowOp::Replace(b.op(), h, to.clone());
        assert_eq!(b.h.provider().submit(std::slice::from_ref(&op)), 1, "an idle device takes one operation");
        let (was, is) = (expected(&b.key(0), from), expected(&b.key(0), to));
        let mut done = Vec::new();
        let mut changed = false;
        for _ in 0..20_000 {
            let sent = b.send(0);
            hits += u64::from(sent != Sent::Missed);
            match &sent {
                Sent::Missed => assert!(!b.caps.atomic_replace, "a packet saw neither rule"),
                s if *s == is => changed = true,
                s => assert!(*s == was && !changed, "neither old nor new, or old after new: {s:?}"),
            }
            if b.h.provider().poll(&mut done, 8) > 0 {
                break;
            }
            b.h.advance(Duration::from_nanos(100));
        }
        match done.first().map(|c| &c.result) {
            Some(OpResult::Replaced(same, at)) => {
                assert_eq!(*same, h);
                if let Some(at) = at {
                    assert!(at.packets <= hits, "counters at the change are of packets before it");
                }
            }
            other => panic!("not replaced: {other:?}"),
        }
        assert_eq!(b.send(0), is, "a completed replace is in effect");
        hits += 1;
    }
    let last = b.remove(h);
    b.counted(t, &last, hits);
}

/// A rule with the match of packet 0 that no table takes.
fn unfit(b: &Bench) -> Option<FlowRule> {
    let mut r = b.rule(0, 0);
    r.actions = [Action::Output(PortId(0x00ff_fffe))].into();
    b.caps.validate(&r).is_err().then_some(r)
}

fn a_refused_replace_leaves_nothing(b: &mut Bench) {
    let Some(bad) = unfit(b) else {
        return;
    };
    let r = b.rule(0, 0);
    let (h, t) = b.install(&r);
    b.forwarded(0, &r);
    let op = FlowOp::Replace(b.op(), h, bad.clone());
    match b.run_one(op) {
        OpResult::Rejected(why, last) => {
            assert_eq!(Some(why.kind()), b.caps.validate(&bad).err().map(|r| r.kind()));
            match last {
                Some(last) => b.counted(t, &last, 1),
                None => panic!("the last counters are missing"),
            }
        }
        other => panic!("a rule that does not fit: {other:?}"),
    }
    assert_eq!(b.send(0), Sent::Missed, "the old entry is gone");
    b.install(&r);
}

fn a_full_queue_pushes_back(b: &mut Bench) {
    let depth = b.caps.queue_depth;
    let n = b.some(depth.min(512) + 8);
    let ops: Vec<_> = (0..n).map(|i| FlowOp::Install(b.op(), b.rule(i, 0))).collect();
    let took = b.h.provider().submit(&ops);
    assert!(took >= 1 && took <= depth, "{took} accepted, the queue holds {depth}");
    assert!(b.h.provider().outstanding() >= 1 && b.h.provider().outstanding() <= depth);
    let mut done = Vec::new();
    let mut sent = took;
    for _ in 0..100_000 {
        b.h.provider().poll(&mut done, 3);
        if sent < ops.len() {
            sent += b.h.provider().submit(&ops[sent..]);
            assert!(b.h.provider().outstanding() <= depth);
        }
        if done.len() == ops.len() {
            break;
        }
        b.h.advance(Duration::from_micros(5));
    }
    assert_eq!(done.len(), ops.len(), "all complete");
    assert!(done.iter().all(|c| matches!(c.result, OpResult::Installed(..))));
    assert_eq!(b.h.provider().submit(&[]), 0);
}

fn a_full_table_refuses(b: &mut Bench) {
    let all: usize = b.caps.tables.iter().map(|t| t.entries).sum();
    if all > 4096 {
        // Filling it takes too long for a test; a harness for this check has smaller tables.
        return;
    }
    let mut handles = Vec::new();
    let mut refused = None;
    for i in 0..=all as u32 {
        let op = FlowOp::Install(b.op(), b.rule(i, 0));
        match b.run_one(op) {
            OpResult::Installed(h, _) => handles.push((i, h)),
            OpResult::Rejected(why, None) => {
                assert!(why.is_out_of_room(), "full: {why}");
                refused = Some(i);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let Some(refused) = refused else {
        panic!("{} entries in tables of {all}", handles.len());
    };
    assert_eq!(b.send(refused), Sent::Missed, "a refused rule is not there");
    for (_, h) in handles {
        b.remove(h);
    }
    let r = b.rule(refused, 0);
    b.install(&r);
    b.forwarded(refused, &r);
}

fn unknown_handles_are_told(b: &mut Bench) {
    let r = b.rule(0, 0);
    let (h, _) = b.install(&r);
    b.remove(h);
    for op in [FlowOp::Remove(b.op(), h), FlowOp::Replace(b.op(), h, r)] {
        match b.run_one(op) {
            OpResult::Failed { error: OffloadError::NoSuchEntry(same), left: None, last: None } => {
                assert_eq!(same, h)
            }
            other => panic!("no such entry: {other:?}"),
        }
    }
    assert_eq!(b.send(0), Sent::Missed);
}

fn the_cursor_covers_every_entry_once(b: &mut Bench) {
    let n = b.some(23);
    let handles = install_all(b, n, 0);
    let mut cursor = StatsCursor::default();
    for round in 1..=3u64 {
        for i in handles.keys().filter(|i| *i % 2 == 0) {
            b.send(*i);
        }
        for budget in [1, 5, 1000] {
            let all = b.stats(&mut cursor, budget);
            assert_eq!(all.keys().copied().collect::<BTreeSet<_>>(), handles.values().copied().collect());
            let dump = b.h.provider().dump().unwrap_or_default();
            for (i, h) in &handles {
                let Some(t) = dump.iter().find(|f| f.handle == *h).map(|f| f.table) else {
                    panic!("{h:?} is not in the dump");
                };
                b.counted(t, &all[h], if i % 2 == 0 { round } else { 0 });
            }
        }
    }
}

fn a_dump_is_what_was_installed(b: &mut Bench) {
    let n = b.some(20);
    let handles = install_all(b, n, 0);
    b.send(0);
    let dump = match b.h.provider().dump() {
        Ok(d) => d,
        Err(e) => panic!("{e}"),
    };
    assert_eq!(dump.len(), n as usize);
    for (i, h) in handles {
        let r = b.rule(i, 0);
        let Some(f) = dump.iter().find(|f| f.handle == h) else {
            panic!("{h:?} is not in the dump");
        };
        assert_eq!((f.rule.id, f.rule.matches, &f.rule.actions), (r.id, r.matches, &r.actions));
        b.counted(f.table, &f.stats, u64::from(i == 0));
    }
}

fn a_flush_empties_the_tables(b: &mut Bench) {
    let n = b.some(20);
    let handles = install_all(b, n, 0);
    let op = FlowOp::Install(b.op(), b.rule(n, 0));
    let under_way = b.h.provider().submit(std::slice::from_ref(&op));
    if let Err(e) = b.h.provider().flush() {
        panic!("{e}");
    }
    let mut done = Vec::new();
    for _ in 0..1000 {
        b.h.provider().poll(&mut done, 16);
        b.h.advance(Duration::from_micros(5));
    }
    assert_eq!(done.len(), under_way, "what was under way completes");
    if let Some(c) = done.first() {
        let gone = matches!(c.result, OpResult::Failed { left: None, .. } | OpResult::Installed(..));
        assert!(gone, "{:?}", c.result);
    }
    assert_eq!(b.h.provider().outstanding(), 0);
    assert_eq!(b.h.provider().dump().map(|d| d.len()), Ok(0));
    assert!(b.stats(&mut StatsCursor::default(), 10).is_empty());
    for (i, h) in handles {
        assert_eq!(b.send(i), Sent::Missed);
        let op = FlowOp::Remove(b.op(), h);
        assert!(matches!(b.run_one(op), OpResult::Failed { left: None, .. }), "its handle is void");
    }
    let r = b.rule(0, 0);
    b.install(&r);
    b.forwarded(0, &r);
}

fn last_use_is_the_time_of_the_packet(b: &mut Bench) {
    let r = b.rule(0, 0);
    let (h, _) = b.install(&r);
    b.h.advance(Duration::from_millis(3));
    let before = b.h.now();
    b.forwarded(0, &r);
    let after = b.h.now();
    b.h.advance(Duration::from_millis(3));
    let all = b.stats(&mut StatsCursor::default(), 10);
    if let Some(t) = all[&h].last_used {
        // A device tells age in its own units: a millisecond is fine enough for timeouts in seconds.
        let slack = Duration::from_millis(1);
        assert!(t + slack >= before && t <= after + slack, "{t:?} is not between {before:?} and {after:?}");
    }
}

fn spec_of(kind: ObjectKind, b: &Bench) -> ObjectSpec {
    match kind {
        ObjectKind::Meter => ObjectSpec::Meter { rate_pps: 1000, rate_bps: 0, burst: 100 },
        ObjectKind::Group => ObjectSpec::Group { buckets: vec![vec![Action::Output(b.caps.ports[0])]] },
        ObjectKind::EncapHeader => ObjectSpec::EncapHeader { bytes: vec![0; 50], port: b.caps.ports[0] },
        ObjectKind::Connection => {
            ObjectSpec::Connection { key: Box::new(b.key(0)), timeout: Duration::from_secs(60) }
        }
        ObjectKind::Counter => ObjectSpec::Counter,
    }
}

fn objects_come_and_go(b: &mut Bench) {
    use ObjectKind::{Connection, Counter, EncapHeader, Group, Meter};
    for kind in [Meter, Group, EncapHeader, Connection, Counter] {
        let (limit, spec) = (b.caps.object_limit(kind), spec_of(kind, b));
        let id = |number| ObjectId { kind, number };
        let objects = b.h.provider().objects();
        assert_eq!(objects.remove(id(1)), Err(ObjectError::Missing(id(1))));
        if limit == 0 {
            assert_eq!(objects.put(id(1), &spec), Err(ObjectError::Unsupported(kind)));
            continue;
        }
        assert_eq!(objects.put(id(1), &spec), Ok(()));
        assert_eq!(objects.put(id(1), &spec), Ok(()), "a change");
        assert_eq!(objects.stats(id(1)).map(|s| s.packets), Ok(0));
        assert!(objects.list().contains(&id(1)));
        if limit <= 1024 {
            for n in 2..=limit {
                assert_eq!(objects.put(id(n), &spec), Ok(()));
            }
            assert_eq!(objects.put(id(limit + 1), &spec), Err(ObjectError::Full(kind)));
            for n in 2..=limit {
                assert!(objects.remove(id(n)).is_ok());
            }
        }
        assert!(objects.remove(id(1)).is_ok());
        assert_eq!(objects.stats(id(1)), Err(ObjectError::Missing(id(1))));
    }
}

fn a_missing_object_is_refused(b: &mut Bench) {
    let mut r = b.rule(0, 0);
    r.actions = std::iter::once(Action::Meter(MeterId(1))).chain(r.actions.iter().cloned()).collect();
    if b.caps.validate(&r).is_err() {
        return;
    }
    let op = FlowOp::Install(b.op(), r.clone());
    let OpResult::Rejected(..) = b.run_one(op) else {
        panic!("meter 1 does not exist");
    };
    let id = ObjectId { kind: ObjectKind::Meter, number: 1 };
    let spec = spec_of(ObjectKind::Meter, b);
    assert_eq!(b.h.provider().objects().put(id, &spec), Ok(()));
    let (h, _) = b.install(&r);
    assert_eq!(b.h.provider().objects().remove(id), Err(ObjectError::InUse(id, 1)));
    b.remove(h);
    assert!(b.h.provider().objects().remove(id).is_ok());
}

fn validate_is_what_the_device_does(b: &mut Bench) {
    let (mut took, mut refused) = (0, 0);
    for seed in 0..400u64 {
        let mut s = Seed::new(seed);
        let shape = *s.pick(&SHAPES);
        let port = *s.pick(&b.caps.ports);
        let k = packet(shape, s.below(1000) as u32, port);
        let r = random_rule(&mut s, &b.caps, seed + 1, &k, shape);
        let said = b.caps.validate(&r);
        let op = FlowOp::Install(b.op(), r.clone());
        match (b.run_one(op), said) {
            (OpResult::Installed(h, _), Ok(_)) => {
                took += 1;
                let sent = visible(b.h.send(&k, LEN_BYTES));
                assert_eq!(sent, expected(&k, &r), "seed {seed}: {r:?}");
                b.remove(h);
                let sent = b.h.send(&k, LEN_BYTES);
                assert_eq!(sent, Sent::Missed, "seed {seed}: removed");
            }
            (OpResult::Rejected(why, None), Err(said)) => {
                refused += 1;
                assert_eq!(why.kind(), said.kind(), "seed {seed}: the same reason");
            }
            (did, said) => panic!("seed {seed}: validate says {said:?}, the device {did:?} to {r:?}"),
        }
    }
    assert!(took >= 20 && refused >= 20, "{took} rules taken, {refused} refused: this tests little");
}
