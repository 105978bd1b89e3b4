#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, Ipv6Addr};

use clock::Instant;

use super::*;

/// Elements of a template: id, vendor's, bytes.
type Template = Vec<(u16, bool, u16)>;

/// Elements of a record: id, value.
type Record = Vec<(u16, Vec<u8>)>;

/// A collector as RFC 7011 has it: knows templates, and reads records by them.
#[derive(Default)]
struct Collector {
    templates: HashMap<u16, Template>,
    /// Of each record its template and its elements.
    records: Vec<(u16, Record)>,
    sequence: u32,
    messages: usize,
}

fn be(d: &[u8]) -> u64 {
    d.iter().fold(0, |v, b| v << 8 | u64::from(*b))
}

fn take<'a>(d: &mut &'a [u8], n: usize) -> &'a [u8] {
    let (head, tail) = d.split_at(n);
    *d = tail;
    head
}

fn number(d: &mut &[u8], n: usize) -> u64 {
    be(take(d, n))
}

impl Collector {
    fn read(&mut self, mut m: &[u8]) {
        self.messages += 1;
        assert!(m.len() <= 1400);
        assert_eq!(number(&mut m, 2), 10);
        assert_eq!(number(&mut m, 2) as usize, m.len() + 4);
        take(&mut m, 4);
        assert_eq!(number(&mut m, 4) as u32, self.sequence, "records before");
        take(&mut m, 4);
        while !m.is_empty() {
            let id = number(&mut m, 2) as u16;
            let n = number(&mut m, 2) as usize - 4;
            let mut s = take(&mut m, n);
            while !s.is_empty() {
                match id {
                    2 | 3 => self.template(&mut s, id == 3),
                    _ => self.record(&mut s, id),
                }
            }
        }
    }

    fn template(&mut self, s: &mut &[u8], with_scope: bool) {
        let (id, n) = (number(s, 2) as u16, number(s, 2));
        if with_scope {
            assert_eq!(number(s, 2), 1);
        }
        let mut t = Vec::new();
        for _ in 0..n {
            let (el, bytes) = (number(s, 2) as u16, number(s, 2) as u16);
            let vendor = el & 0x8000 != 0;
            if vendor {
                assert_eq!(number(s, 4), 6876);
            }
            t.push((el & 0x7fff, vendor, bytes));
        }
        self.templates.insert(id, t);
    }

    fn record(&mut self, s: &mut &[u8], id: u16) {
        self.sequence += 1;
        let mut r = Vec::new();
        for (el, _, bytes) in &self.templates[&id] {
            let n = if *bytes == u16::MAX { number(s, 1) as usize } else { (*bytes).into() };
            r.push((*el, take(s, n).to_vec()));
        }
        self.records.push((id, r));
    }

    /// Records of flows.
    fn flows(&self) -> Vec<&Record> {
        self.records.iter().filter(|r| r.0 != template::OPTIONS).map(|r| &r.1).collect()
    }
}

fn value(r: &[(u16, Vec<u8>)], id: u16) -> u64 {
    be(&r.iter().find(|e| e.0 == id).unwrap().1)
}

fn now(ms: u64) -> Now {
    Now { at: Instant::from_nanos(ms * 1_000_000), wall: Duration::from_millis(1_700_000_000_250 + ms) }
}

const IP: IpHeader = IpHeader {
    src: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
    dst: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)),
    protocol: 6,
    tos: 0x2c,
    ttl: 64,
    label: 0,
    ports: (1234, 80),
    tcp_flags: 0x12,
};

fn sampled() -> Sampled {
    Sampled {
        packets: 4,
        frame_bytes: 114,
        domain: 7,
        point: 9,
        egress: false,
        eth_src: [0, 1, 2, 3, 4, 5],
        eth_dst: [0, 1, 2, 3, 4, 6],
        eth_type: 0x0800,
        tci: None,
        ip: Some(IP),
        input: Interface { ifindex: 3, name: "p1".into() },
        output: Interface::default(),
        tunnel: None,
        dropped: false,
    }
}

fn collect(f: impl FnOnce(&mut Out<'_>)) -> Collector {
    let mut c = Collector::default();
    f(&mut |d| {
        c.read(d);
        Sent { ok: 1, failed: 0 }
    });
    c
}

#[test]
fn records_are_as_their_templates_say() {
    let mut x = Ipfix::new(CacheSettings { virtual_obs_id: Some("here".into()), ..Default::default() }, 5);
    let v6 = IpHeader {
        src: IpAddr::V6(Ipv6Addr::LOCALHOST),
        dst: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        protocol: 58,
        ports: (135, 0),
        label: 0xabcde,
        ..IP
    };
    let tunnel = OuterHeader {
        src: Ipv4Addr::new(1, 1, 1, 1),
        dst: Ipv4Addr::new(1, 1, 1, 2),
        protocol: 47,
        ports: (0, 0),
        kind: 2,
        key: vec![0, 0, 1, 200],
    };
    let all = [
        sampled(),
        Sampled { tci: Some(0x6005), egress: true, ..sampled() },
        Sampled { ip: Some(v6), eth_type: 0x86dd, ..sampled() },
        Sampled { ip: Some(IpHeader { protocol: 89, ..IP }), tunnel: Some(tunnel), ..sampled() },
        Sampled { ip: None, eth_type: 0x0806, eth_dst: [0xff; 6], dropped: true, ..sampled() },
    ];
    let c = collect(|out| all.iter().for_each(|s| x.sample(s, now(0), out)));
    assert_eq!(c.templates.len(), 2 * (1 + 5 + 5) * 2 * 2 + 1);
    let r = c.flows();
    assert_eq!(r.len(), 5);
    assert!(r.iter().all(|r| r.iter().any(|e| e.0 == 898 && e.1 == b"here")));
    let of = |i: usize, id: u16| value(r[i], id);
    // Addresses, ports, protocol, TTL, DSCP.
    assert_eq!((of(0, 8), of(0, 12)), (0x0a00_0001, 0x0a00_0002));
    assert_eq!((of(0, 7), of(0, 11), of(0, 4), of(0, 192), of(0, 195)), (1234, 80, 6, 64, 11));
    // Packets, bytes of frames and of IP, and their squares.
    assert_eq!((of(0, 2), of(0, 352), of(0, 1), of(0, 198)), (4, 456, 400, 40_000));
    assert_eq!((of(0, 218), of(0, 222), of(0, 219)), (4, 4, 0), "SYN, ACK, FIN");
    assert_eq!((of(0, 138), of(0, 61), of(0, 10)), (9, 0, 3));
    assert_eq!((of(1, 58), of(1, 244), of(1, 61), of(1, 240)), (5, 3, 1, 18));
    assert_eq!((of(1, 1), of(1, 85)), (4 * 96, 400 + 4 * 96));
    assert_eq!((of(2, 31), of(2, 178), of(2, 179), of(2, 60)), (0xabcde, 135, 0, 6));
    assert_eq!((of(3, 891), of(3, 892), of(3, 895)), (2, 456, 47));
    assert_eq!((of(4, 133), of(4, 356), of(4, 86)), (4, 4, 20));
    assert_eq!(of(4, 136), 2, "its time was over at once");
    let counts = x.counts();
    assert_eq!((counts.flows, counts.current_flows, counts.packets), (5, 0, 5));
    assert_eq!((counts.ok, counts.errors), ([2, 1], [1, 0]));
    assert_eq!(counts.sent.ok, c.messages as u64);
}

#[test]
fn samples_of_a_flow_are_told_of_together_when_it_is_old() {
    let settings =
        CacheSettings { active_timeout: Duration::from_secs(10), max_flows: 100, ..Default::default() };
    let mut x = Ipfix::new(settings, 0);
    let c = collect(|out| {
        for t in 0..=20 {
            let s = Sampled { frame_bytes: 114 + t as u32, ..sampled() };
            if t <= 5 {
                x.sample(&s, now(1000 * t), out);
            }
            x.run(now(1000 * t), out);
        }
    });
    let r = c.flows();
    assert_eq!(r.len(), 1);
    assert_eq!((value(r[0], 2), value(r[0], 25), value(r[0], 26), value(r[0], 136)), (24, 100, 105, 2));
    // At 10.25 s of the world the next whole second is 11.
    assert_eq!((value(r[0], 158), value(r[0], 159)), (10_750_000, 5_750_000));
}

#[test]
fn a_full_cache_tells_of_the_oldest() {
    let settings =
        CacheSettings { active_timeout: Duration::from_secs(100), max_flows: 2, ..Default::default() };
    let mut x = Ipfix::new(settings, 0);
    let c = collect(|out| {
        for i in 0..5 {
            let ip = IpHeader { ports: (i, 80), ..IP };
            x.sample(&Sampled { ip: Some(ip), ..sampled() }, now(u64::from(i)), out);
        }
    });
    assert_eq!(
        c.flows().iter().map(|r| (value(r, 7), value(r, 136))).collect::<Vec<_>>(),
        [(0, 5), (1, 5), (2, 5)]
    );
    assert_eq!(x.counts().current_flows, 2);
    let mut rest = Collector { templates: c.templates, sequence: c.sequence, ..Collector::default() };
    x.finish(now(10), &mut |d| {
        rest.read(d);
        Sent::default()
    });
    assert_eq!(rest.flows().iter().map(|r| value(r, 136)).collect::<Vec<_>>(), [4, 4]);
}

#[test]
fn templates_go_again_and_failures_are_told() {
    let mut x = Ipfix::new(CacheSettings::default(), 3);
    let mut c = Collector::default();
    for minute in [0, 5, 11] {
        x.sample(&sampled(), now(60_000 * minute), &mut |d| {
            c.read(d);
            Sent { ok: 0, failed: 2 }
        });
    }
    let told: Vec<_> = c.records.iter().filter(|r| r.0 == template::OPTIONS).map(|r| &r.1).collect();
    assert_eq!(told.len(), 2, "once in ten minutes");
    assert!(told.iter().all(|r| value(r, 144) == 3));
    assert!(value(told[1], 167) > value(told[0], 167));
}
