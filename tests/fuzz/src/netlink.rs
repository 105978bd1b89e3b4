//! Netlink messages of TC: filters, actions, acknowledgements.

use offload_tc::ack::Ack;
use offload_tc::message::{Add, add_filter, messages, read_shared_action};
use offload_tc::wire::Writer;
use offload_tc::{FilterAt, Flower, Head, Hook, KEYS};

/// Parent of filters on a device's clsact ingress (TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)).
const INGRESS: u32 = 0xffff_fff2;

/// See the table of targets.
pub fn run(data: &[u8]) {
    for m in messages(data).map_while(Result::ok) {
        let _ = Ack::read(m.flags, m.body).map(|a| a.attribute(data));
        let _ = Ack::read_done(m.flags, m.body);
        let _ = read_shared_action(m.body);
        let Ok(Some(head)) = Head::read(m.body) else { continue };
        let _ = (head.kind(), head.terse());
        let Ok((flower, report)) = head.flower() else { continue };
        // What is not known is not written.
        if report.unknown.is_empty() {
            let again = written(&head.at, &flower);
            assert_eq!(again, flower);
        }
    }
}

/// What a filter comes to when it is written and read.
fn written(at: &FilterAt, flower: &Flower) -> Flower {
    let mut w = Writer::new();
    add_filter(&mut w, 1, at, flower, Add::New);
    let read = messages(w.bytes()).next().and_then(Result::ok).map(|m| match Head::read(m.body) {
        Ok(Some(head)) => head.flower().map(|(f, _)| f),
        other => panic!("written and not read: {other:?}"),
    });
    match read {
        Some(Ok(f)) => f,
        other => panic!("written and not read: {other:?}"),
    }
}

/// A filter for each key.
pub fn seeds() -> Vec<Vec<u8>> {
    let Some(hook) = Hook::from_raw(1, INGRESS) else { return Vec::new() };
    let at = FilterAt { hook, chain: 0, prio: 1, protocol: 0x0800, handle: 1 };
    let mut all = Vec::new();
    for row in KEYS {
        let mut f = Flower::default();
        f.set(row.id, row.max);
        let mut w = Writer::new();
        add_filter(&mut w, 1, &at, &f, Add::New);
        all.push(w.bytes().to_vec());
    }
    all
}
