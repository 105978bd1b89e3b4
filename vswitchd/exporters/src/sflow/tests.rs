#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;
use crate::Sent;

struct Ports(Vec<(u32, u32)>);

impl Counted for Ports {
    fn ports(&self) -> Vec<(u32, u32)> {
        self.0.clone()
    }
    fn port(&self, key: u32) -> Option<PortCounters> {
        let (_, ifindex) = *self.0.iter().find(|p| p.0 == key)?;
        Some(PortCounters {
            ifindex,
            name: "p1234".into(),
            admin_up: true,
            link_up: true,
            received: [Some(202), Some(3), None, None],
            openflow: (0xfedc_ba98_7654_3210, key),
            ..PortCounters::default()
        })
    }
    fn totals(&self) -> Option<Totals> {
        Some(Totals { datapath: [1, 2, 3, 4, 5, 6], ..Totals::default() })
    }
}

fn now(ms: u64) -> Now {
    Now { at: Instant::from_nanos(ms * 1_000_000), wall: Duration::ZERO }
}

fn sflow(sampling: u32, polling_s: u32) -> Sflow {
    let s = SflowSettings { sampling, polling_s, ..SflowSettings::default() };
    Sflow::new(s, IpAddr::V4(Ipv4Addr::LOCALHOST), now(1000).at)
}

fn sampled(header: &[u8]) -> Sampled<'_> {
    Sampled {
        input: 1004,
        output: 1003,
        frame_bytes: 60,
        header,
        tci_in: 0x6005,
        tci_out: 0,
        tunnel_in: None,
        tunnel_out: None,
        labels: &[],
    }
}

fn word(d: &[u8], i: usize) -> u32 {
    u32::from_be_bytes(d[4 * i..4 * i + 4].try_into().unwrap())
}

/// Tag and contents of each thing of which there is one after the other.
fn split(mut d: &[u8]) -> Vec<(u32, &[u8])> {
    let mut out = Vec::new();
    while !d.is_empty() {
        let n = word(d, 1) as usize;
        out.push((word(d, 0), &d[8..8 + n]));
        d = &d[8 + n..];
    }
    out
}

/// Runs `f` and gives what was sent.
fn sent(f: impl FnOnce(&mut Out<'_>)) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    f(&mut |d| {
        all.push(d.to_vec());
        Sent::default()
    });
    all
}

#[test]
fn a_sample_is_as_version_5_has_it() {
    let mut s = sflow(10, 0);
    let all = sent(|out| {
        s.sample(&sampled(&[1, 2, 3, 4, 5]), now(1500), out);
        s.run(now(1900), &Ports(vec![]), out);
        s.run(now(2000), &Ports(vec![]), out);
    });
    let [d] = &all[..] else { panic!("{} datagrams", all.len()) };
    // Version, IPv4, address, sub-agent, number, uptime, samples.
    assert_eq!((0..7).map(|i| word(d, i)).collect::<Vec<_>>(), [5, 1, 0x7f00_0001, 0, 1, 1000, 1]);
    let samples = split(&d[28..]);
    let [(1, flow)] = samples[..] else { panic!("{samples:?}") };
    let expected = [1, 2 << 24 | 1000, 10, 10, 0, 1004, 1003, 2];
    assert_eq!((0..8).map(|i| word(flow, i)).collect::<Vec<_>>(), expected);
    let records = split(&flow[32..]);
    assert_eq!(
        records[0],
        (1, &[0, 0, 0, 1, 0, 0, 0, 64, 0, 0, 0, 4, 0, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0][..])
    );
    assert_eq!(records[1], (1001, &[0, 0, 0, 5, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0][..]));
}

#[test]
fn tunnels_and_labels_have_records_of_their_own() {
    let mut s = sflow(1, 0);
    let outer = OuterHeader {
        protocol: 47,
        src: Ipv4Addr::new(1, 1, 2, 88),
        dst: Ipv4Addr::new(1, 1, 2, 92),
        src_port: 0,
        dst_port: 0,
        tos: 1,
        vni: 456,
    };
    let all = sent(|out| {
        let labels = [789 << 12 | 4 << 9 | 32, 11 << 12 | 0x100 | 64];
        let p = Sampled {
            tunnel_out: Some(outer),
            tunnel_in: Some(OuterHeader { vni: 0, ..outer }),
            labels: &labels,
            ..sampled(&[0; 14])
        };
        s.sample(&p, now(1500), out);
        s.send(now(1500), out);
    });
    let flow = split(&all[0][28..])[0].1;
    let records = split(&flow[32..]);
    assert_eq!(records.iter().map(|r| r.0).collect::<Vec<_>>(), [1024, 1023, 1029, 1006, 1, 1001]);
    assert_eq!(word(flow, 7), 6);
    assert_eq!(
        (0..8).map(|i| word(records[1].1, i)).collect::<Vec<_>>(),
        [0, 47, 0x0101_0258, 0x0101_025c, 0, 0, 0, 1]
    );
    assert_eq!(word(records[2].1, 0), 456);
    assert_eq!(word(records[3].1, 3), 2);
    assert_eq!(word(records[3].1, 4) >> 12, 789);
}

#[test]
fn counters_are_read_at_their_interval_and_numbered() {
    let mut s = sflow(1, 3);
    let mut read = Vec::new();
    for t in 1..=12 {
        let all = sent(|out| s.run(now(1000 + 1000 * t), &Ports(vec![(1, 1003), (2, 1004)]), out));
        for d in all {
            for (tag, body) in split(&d[28..]) {
                assert_eq!(tag, 2);
                read.push((t, word(body, 1), word(body, 0)));
            }
        }
    }
    let of = |source| read.iter().filter(|r| r.1 == source).map(|r| (r.0, r.2)).collect::<Vec<_>>();
    assert_eq!(of(1003), [(2, 1), (5, 2), (8, 3), (11, 4)]);
    assert_eq!(of(1004), [(3, 1), (6, 2), (9, 3), (12, 4)]);
    assert_eq!(of(2 << 24 | 1000), [(1, 1), (4, 2), (7, 3), (10, 4)]);
}

#[test]
fn what_is_not_known_of_a_port_is_all_ones() {
    let mut s = sflow(1, 1);
    let all = sent(|out| s.run(now(3000), &Ports(vec![(7, 1003)]), out));
    let samples = split(&all[0][28..]);
    let [(2, _totals), (2, port)] = samples[..] else { panic!("{samples:?}") };
    let records = split(&port[12..]);
    assert_eq!(records.iter().map(|r| r.0).collect::<Vec<_>>(), [1, 1005, 1004, 2]);
    let generic = records[0].1;
    assert_eq!(generic.len(), 88);
    let no = u32::MAX;
    let expected =
        [1003, 6, 0, 100_000_000, 0, 3, 0, 202, 3, no, no, no, no, no, no, no, no, no, no, no, no, 0];
    assert_eq!((0..22).map(|i| word(generic, i)).collect::<Vec<_>>(), expected);
    assert_eq!(records[1].1, b"\0\0\0\x05p1234\0\0\0");
    assert_eq!((word(records[2].1, 0), word(records[2].1, 2)), (0xfedc_ba98, 7));
    assert_eq!(records[3].1, [0xff; 52]);
}

#[test]
fn datagrams_are_bounded() {
    let mut s = sflow(1, 0);
    s.settings.header_bytes = u16::MAX;
    let all = sent(|out| {
        for _ in 0..100 {
            s.sample(&sampled(&[7; 9000]), now(1500), out);
        }
        s.send(now(1500), out);
    });
    assert!(all.iter().all(|d| d.len() <= DATAGRAM_BYTES), "{:?}", all.iter().map(Vec::len).max());
    assert_eq!(all.iter().map(|d| word(d, 6)).sum::<u32>(), 100);
    assert_eq!(
        all.iter().map(|d| word(d, 4)).collect::<Vec<_>>(),
        (1..=all.len() as u32).collect::<Vec<_>>()
    );
    // A sixteenth of a second of a flood at most makes as many datagrams as it has samples.
    assert!(all.len() <= 50, "{}", all.len());
}

#[test]
fn an_agent_may_have_an_address_of_ipv6() {
    let mut s = Sflow::new(SflowSettings::default(), "::1".parse().unwrap(), now(0).at);
    let all = sent(|out| {
        s.sample(&sampled(&[1]), now(1), out);
        s.send(now(1), out);
    });
    assert_eq!(word(&all[0], 1), 2);
    assert_eq!(word(&all[0], 5), 1);
    assert_eq!(split(&all[0][40..]).len(), 1);
}
