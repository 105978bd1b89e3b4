//! Datapath actions on a frame. The input is the actions' text, a newline, and the frame.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clock::{Instant, ManualClock};
use datapath::{DatapathConfig, PortConfig, SoftDatapath};
use datapath_api::{
    Datapath, FlowCounters, FlowRecord, Miss, MissHandler, Punt, PuntSink, Translation, Translations,
};
use device::BufferPool;
use flow::text::odp;
use flow::{Action, FieldId, FlowId, PacketMask, PacketMatch, PortId};
use netio::memory::{MemoryConfig, cable};

use crate::frame;

/// Ports 1 to this.
const PORTS: u32 = 3;
/// The port that packets out of tunnels come in on.
pub(crate) const TUNNEL: PortId = PortId(9);

/// Answers every miss with the same actions; recirculated packets end, and so do those that came out of a tunnel.
struct Answer(Arc<[Action]>);

impl MissHandler for Answer {
    fn translate(&self, misses: &[Miss], now: Instant, out: &mut Translations) {
        let mut mask = PacketMask::ZERO;
        mask.set_exact(FieldId::RecircId);
        mask.set_exact(FieldId::DpPort);
        for m in misses {
            let of_tunnel = m.key.get64(FieldId::DpPort) == u64::from(TUNNEL.0);
            let again = m.key.get64(FieldId::RecircId) != 0 || of_tunnel;
            out.push(Translation::Keep(Arc::new(FlowRecord {
                id: FlowId(u64::from(again) + 1),
                matches: PacketMatch::new(&m.key, &mask).into(),
                actions: if again { Arc::new([Action::Output(PortId(2))]) } else { self.0.clone() },
                counters: Arc::new(FlowCounters::default()),
                owner: Arc::new(()),
                created: now,
            })));
        }
    }
}

#[derive(Default)]
struct Punts(AtomicU64);

impl PuntSink for Punts {
    fn punt(&self, _: Punt) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed);
        true
    }
}

/// See the table of targets.
pub fn run(data: &[u8]) {
    let Some(end) = data.iter().position(|b| *b == b'\n') else { return };
    let (Ok(text), frame) = (std::str::from_utf8(&data[..end]), &data[end + 1..]) else { return };
    let Ok(actions) = odp::parse_actions(text, &|_| None) else { return };
    carry_out(actions, frame);
}

/// Has the datapath carry out `actions` on a frame; what it sent. `None` when it cannot be had.
pub(crate) fn carry_out(actions: Vec<Action>, frame: &[u8]) -> Option<Vec<Vec<u8>>> {
    // What is read and written reads back.
    let written = odp::format_actions(&actions, odp::Context::default(), &|_| None);
    let (Ok(pool), punts) = (BufferPool::new(64), Arc::new(Punts::default())) else { return None };
    let packet = pool.copy_from(frame)?;
    let config = DatapathConfig { seed: Some(1), max_flows: 16, ..DatapathConfig::default() };
    let answer = Arc::new(Answer(actions.into()));
    let Ok(dp) = SoftDatapath::new(config, Arc::new(ManualClock::new()), answer, punts.clone()) else {
        return None;
    };
    let Ok(mut core) = dp.take_core(0) else { return None };
    let mut ends = Vec::new();
    for p in 1..=PORTS {
        let Ok((mut ours, mut theirs)) = cable(&MemoryConfig { capacity: 64, ..MemoryConfig::default() })
        else {
            return None;
        };
        let (Some((rx, tx)), Some(end)) = (ours.split(), theirs.split()) else { return None };
        let config = PortConfig::new(PortId(p), format!("p{p}"));
        let attached = dp.attach(config, Box::new(rx), Box::new(tx));
        assert!(attached.is_ok(), "{attached:?}");
        ends.push(end);
    }
    let sent = ends[0].1.send(packet);
    assert!(sent.is_ok(), "a queue of 64 has no room for one");
    core.poll_once(Instant::from_nanos(1_000_000_000));
    let s = dp.stats();
    let mut received = Vec::new();
    for (rx, _) in &mut ends {
        while let Some(p) = rx.receive() {
            received.push(p.to_vec());
        }
    }
    assert_eq!(received.len() as u64, s.tx_packets, "{written}");
    assert_eq!(punts.0.load(Ordering::Relaxed), s.punts, "{written}");
    assert!(s.tx_packets + s.punts + s.drops.iter().sum::<u64>() > 0, "the packet is lost: {written}");
    assert_eq!(pool.free_cells(), 64, "a buffer is lost: {written}");
    Some(received)
}

/// Actions of each kind on frames of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let lists = [
        "2",
        "drop",
        "push_vlan(vid=5,pcp=3),2,pop_vlan,3",
        "set(ipv4(src=198.51.100.7,ttl=9)),2",
        "set(tcp(dst=8080)),set(eth(dst=02:00:00:00:00:09)),2,1",
        "push_mpls(label=7,tc=0,ttl=64,bos=1,eth_type=0x8847),2,pop_mpls(eth_type=0x800),3",
        "trunc(100),2,clone(pop_vlan,3),recirc(0x1)",
    ];
    let mut all = Vec::new();
    for list in lists {
        for f in frame::seeds() {
            all.push([list.as_bytes(), b"\n", &f].concat());
        }
    }
    all
}
