//! NetFlow version 5: how many packets and bytes each flow of IPv4 had, told when it ends and now and then before.
//!
//! ```text
//!   datagram: header (24 bytes), 1 to 30 records (48 bytes each)
//!   header    version=5 count | uptime ms | seconds, nanoseconds | number of the first flow | engine type, id | sampling=0
//!   record    addresses, next hop=0 | ports in, out | packets, bytes | first and last packet, uptime ms | transport ports
//!             | -, TCP flags, protocol, ToS | AS numbers=0 | prefix lengths=0
//! ```
//!
//! Counters have 32 bits there: a flow with more is told in several records. A flow that begins to leave by another port is told
//! of and begins anew. Flows are those of packets as they came in.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use clock::Instant;

use crate::{Now, Out};

/// Most flows that are counted at a time; of what comes beyond each report is told at once.
pub const MOST_FLOWS: usize = 65_536;
/// Records of a datagram.
const MOST_RECORDS: u16 = 30;
const HEADER_BYTES: usize = 24;
/// Between looks for flows that have not been told of for long.
const LOOK: Duration = Duration::from_secs(1);
/// More bytes in one report are a mistake: in ten minutes 100 Gb/s carry less.
const MOST_BYTES: u64 = 1 << 43;

/// In the place of a port: the packets went to many.
pub const FLOODED: u16 = 0xffff;
/// In the place of a port: the packets went to several.
pub const SEVERAL: u16 = 0xfffe;
/// In the place of a port: the packets went nowhere.
pub const DROPPED: u16 = 0xfffd;

/// A row of table NetFlow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetflowSettings {
    /// Who is told.
    pub targets: Vec<String>,
    /// What datagrams say of their sender.
    pub engine_type: u8,
    /// What datagrams say of their sender.
    pub engine_id: u8,
    /// After this time flows are told of that go on; `None` never.
    pub active_timeout: Option<Duration>,
    /// The engine's id is in the upper seven bits of ports' numbers, so that several bridges can be told apart.
    pub add_id_to_interface: bool,
}

impl NetflowSettings {
    /// Between reports of a flow that goes on where the row says nothing.
    pub const USUAL_TIMEOUT: Duration = Duration::from_secs(600);
}

impl Default for NetflowSettings {
    fn default() -> Self {
        NetflowSettings {
            targets: Vec::new(),
            engine_type: 0,
            engine_id: 0,
            active_timeout: Some(NetflowSettings::USUAL_TIMEOUT),
            add_id_to_interface: false,
        }
    }
}

/// What packets of a flow have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlowKey {
    /// OpenFlow port that they come in on.
    pub in_port: u16,
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// ToS, without the bits about congestion.
    pub tos: u8,
    /// IP protocol.
    pub protocol: u8,
    /// Source port, or the type of ICMP.
    pub src_port: u16,
    /// Destination port, or the code of ICMP.
    pub dst_port: u16,
}

/// Packets of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Traffic {
    /// How many.
    pub packets: u64,
    /// How many bytes.
    pub bytes: u64,
    /// TCP flags that any of them had.
    pub tcp_flags: u16,
    /// When the first came, if the flow is not known yet.
    pub first: Instant,
    /// When the last came.
    pub last: Instant,
}

/// A flow since it was told of last.
#[derive(Clone, Copy, Debug)]
struct Counted {
    output: u16,
    packets: u64,
    bytes: u64,
    tcp_flags: u16,
    first: Instant,
    last: Instant,
    told: Instant,
}

/// The exporter of a bridge.
#[derive(Debug)]
pub struct Netflow {
    settings: NetflowSettings,
    began: Instant,
    flows: HashMap<FlowKey, Counted>,
    /// The datagram being made.
    datagram: Vec<u8>,
    records: u16,
    /// Records made so far.
    sequence: u32,
    look_at: Instant,
}

impl Netflow {
    /// One that knows no flow.
    pub fn new(settings: NetflowSettings, now: Instant) -> Netflow {
        Netflow {
            settings,
            began: now,
            flows: HashMap::new(),
            datagram: Vec::new(),
            records: 0,
            sequence: 0,
            look_at: now,
        }
    }

    /// Changes what the row says; flows stay. Times begin anew.
    pub fn set(&mut self, settings: NetflowSettings, now: Instant) {
        if settings.active_timeout != self.settings.active_timeout {
            self.look_at = now;
            self.flows.values_mut().for_each(|f| f.told = now);
        }
        self.settings = settings;
    }

    /// What the row says.
    pub fn settings(&self) -> &NetflowSettings {
        &self.settings
    }

    /// Packets of a flow were seen that leave by `output`.
    pub fn add(&mut self, key: FlowKey, output: u16, t: &Traffic, now: Now, out: &mut Out<'_>) {
        let begin = Counted {
            output,
            packets: 0,
            bytes: 0,
            tcp_flags: 0,
            first: t.first.min(t.last),
            last: t.last,
            told: now.at,
        };
        let full = self.flows.len() >= MOST_FLOWS;
        let f = match self.flows.get_mut(&key) {
            Some(f) => f,
            None if full => {
                let one = Counted { packets: t.packets, bytes: t.bytes, tcp_flags: t.tcp_flags, ..begin };
                return self.tell(&key, &one, now, out);
            }
            None => self.flows.entry(key).or_insert(begin),
        };
        let before = (f.output != output).then(|| std::mem::replace(f, Counted { first: t.last, ..begin }));
        if f.packets == 0 && before.is_none() {
            f.first = f.first.max(t.first.min(t.last));
        }
        f.packets += t.packets;
        f.bytes += t.bytes;
        f.tcp_flags |= t.tcp_flags;
        f.last = f.last.max(t.last);
        if let Some(before) = before {
            self.tell(&key, &before, now, out);
        }
    }

    /// The switch knows a flow no more, which is told of and forgotten.
    pub fn end(&mut self, key: &FlowKey, now: Now, out: &mut Out<'_>) {
        if let Some(f) = self.flows.remove(key) {
            self.tell(key, &f, now, out);
        }
    }

    /// Sends what is there to be sent, and tells of flows that go on for long. To be called now and then.
    pub fn run(&mut self, now: Now, out: &mut Out<'_>) {
        self.send(out);
        let Some(timeout) = self.settings.active_timeout.filter(|_| now.at >= self.look_at) else { return };
        self.look_at = now.at + LOOK;
        let due: Vec<FlowKey> =
            self.flows.iter().filter(|(_, f)| now.at.since(f.told) > timeout).map(|(k, _)| *k).collect();
        for key in due {
            let Some(f) = self.flows.get_mut(&key) else { continue };
            let told = *f;
            // Whoever ended it may not have said so.
            let idle = f.packets == 0;
            *f = Counted { packets: 0, bytes: 0, tcp_flags: 0, first: f.last, told: now.at, ..*f };
            if idle {
                self.flows.remove(&key);
            }
            self.tell(&key, &told, now, out);
        }
        self.send(out);
    }

    /// Tells of every flow: nobody will tell of them later.
    pub fn finish(&mut self, now: Now, out: &mut Out<'_>) {
        for (key, f) in std::mem::take(&mut self.flows) {
            self.tell(&key, &f, now, out);
        }
        self.send(out);
    }

    fn tell(&mut self, key: &FlowKey, f: &Counted, now: Now, out: &mut Out<'_>) {
        if f.packets == 0 {
            return;
        }
        if f.bytes >= MOST_BYTES {
            tracing::warn!(target: "netflow", "impossible byte counter {}", f.bytes);
            return;
        }
        // As many records as the counters need, each with its share.
        let most = u64::from(u32::MAX);
        let n = f.bytes.div_ceil(most).max(f.packets.div_ceil(most)).max(1);
        for i in 0..n {
            let share = |all: u64| (all / n + u64::from(i < all % n)) as u32;
            self.record(key, f, (share(f.packets), share(f.bytes)), now, out);
        }
    }

    fn record(&mut self, key: &FlowKey, f: &Counted, counts: (u32, u32), now: Now, out: &mut Out<'_>) {
        if self.datagram.is_empty() {
            self.begin(now);
        }
        self.records += 1;
        self.sequence = self.sequence.wrapping_add(1);
        let uptime = |t: Instant| t.since(self.began).as_millis() as u32;
        let icmp = key.protocol == 1;
        // The type and the code of ICMP are in the destination port.
        let (src_port, dst_port) = match icmp {
            true => (0, key.src_port << 8 | key.dst_port & 0xff),
            false => (key.src_port, key.dst_port),
        };
        let mut r = Vec::with_capacity(48);
        r.extend(key.src.octets());
        r.extend(key.dst.octets());
        r.extend([0; 4]);
        r.extend(self.interface(key.in_port).to_be_bytes());
        r.extend(self.interface(f.output).to_be_bytes());
        r.extend(counts.0.to_be_bytes());
        r.extend(counts.1.to_be_bytes());
        r.extend(uptime(f.first).to_be_bytes());
        r.extend(uptime(f.last.max(f.first)).to_be_bytes());
        r.extend(src_port.to_be_bytes());
        r.extend(dst_port.to_be_bytes());
        r.extend([0, f.tcp_flags as u8, key.protocol, key.tos & 0xfc]);
        r.extend([0; 8]);
        self.datagram.extend(r);
        if self.records >= MOST_RECORDS {
            self.send(out);
        }
    }

    fn interface(&self, port: u16) -> u16 {
        match self.settings.add_id_to_interface {
            true => u16::from(self.settings.engine_id & 0x7f) << 9 | port & 0x1ff,
            false => port,
        }
    }

    fn begin(&mut self, now: Now) {
        let d = &mut self.datagram;
        d.extend(5u16.to_be_bytes());
        d.extend(0u16.to_be_bytes());
        d.extend((now.at.since(self.began).as_millis() as u32).to_be_bytes());
        d.extend((now.wall.as_secs() as u32).to_be_bytes());
        d.extend(now.wall.subsec_nanos().to_be_bytes());
        d.extend(self.sequence.to_be_bytes());
        d.extend([self.settings.engine_type, self.settings.engine_id, 0, 0]);
        debug_assert_eq!(d.len(), HEADER_BYTES);
    }

    fn send(&mut self, out: &mut Out<'_>) {
        if self.datagram.is_empty() {
            return;
        }
        self.datagram[2..4].copy_from_slice(&self.records.to_be_bytes());
        out(&self.datagram);
        self.datagram.clear();
        self.records = 0;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::Sent;

    const KEY: FlowKey = FlowKey {
        in_port: 1,
        src: Ipv4Addr::new(192, 168, 0, 1),
        dst: Ipv4Addr::new(192, 168, 0, 2),
        tos: 0x20,
        protocol: 6,
        src_port: 1234,
        dst_port: 80,
    };

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn now(ms: u64) -> Now {
        Now { at: at(ms), wall: Duration::new(1_700_000_000, 5) }
    }

    fn seen(packets: u64, ms: u64) -> Traffic {
        Traffic { packets, bytes: 100 * packets, tcp_flags: 0x12, first: at(ms), last: at(ms) }
    }

    fn netflow(settings: NetflowSettings) -> Netflow {
        Netflow::new(settings, at(500))
    }

    fn be(d: &[u8], at: usize, n: usize) -> u64 {
        d[at..at + n].iter().fold(0, |v, b| v << 8 | u64::from(*b))
    }

    /// Input, output, packets, bytes, first, last of each record of a datagram.
    fn records(d: &[u8]) -> Vec<[u64; 6]> {
        assert_eq!(be(d, 0, 2), 5);
        assert_eq!(d.len(), 24 + 48 * be(d, 2, 2) as usize);
        let fields = [(12, 2), (14, 2), (16, 4), (20, 4), (24, 4), (28, 4)];
        d[24..].chunks(48).map(|r| fields.map(|(at, n)| be(r, at, n))).collect()
    }

    #[test]
    fn a_datagram_is_as_version_5_has_it() {
        let mut sent: Vec<Vec<u8>> = Vec::new();
        let out: &mut Out<'_> = &mut |d| {
            sent.push(d.to_vec());
            Sent::default()
        };
        let mut n = netflow(NetflowSettings { engine_type: 2, engine_id: 1, ..NetflowSettings::default() });
        n.add(KEY, 2, &seen(3, 1500), now(1600), out);
        n.end(&KEY, now(2000), out);
        n.run(now(2500), out);
        let [d] = &sent[..] else { panic!("{} datagrams", sent.len()) };
        let hex: String = d.iter().map(|b| format!("{b:02x}")).collect();
        // version, count, uptime 1500 ms, 2023-11-14, 5 ns, sequence, engine
        let header = "00050001000005dc6553f100000000050000000002010000";
        let record = "c0a80001c0a8000200000000000100020000000300000\
                      12c000003e8000003e804d200500012062000000000\
                      00000000";
        assert_eq!(hex, format!("{header}{record}"));
    }

    #[test]
    fn a_flow_that_leaves_by_another_port_is_another() {
        let mut sent: Vec<Vec<u8>> = Vec::new();
        let out: &mut Out<'_> = &mut |d| {
            sent.push(d.to_vec());
            Sent::default()
        };
        let mut n = netflow(NetflowSettings::default());
        n.add(KEY, FLOODED, &seen(1, 1000), now(1000), out);
        n.add(KEY, 2, &seen(2, 2000), now(2000), out);
        n.add(KEY, 2, &seen(5, 3000), now(3000), out);
        n.finish(now(4000), out);
        let [d] = &sent[..] else { panic!("{} datagrams", sent.len()) };
        assert_eq!(records(d), [[1, 0xffff, 1, 100, 500, 500], [1, 2, 7, 700, 1500, 2500]]);
    }

    #[test]
    fn a_flow_that_goes_on_is_told_of_and_an_idle_one_is_forgotten() {
        let mut sent: Vec<Vec<u8>> = Vec::new();
        let out: &mut Out<'_> = &mut |d| {
            sent.push(d.to_vec());
            Sent::default()
        };
        let mut n = netflow(NetflowSettings {
            active_timeout: Some(Duration::from_secs(10)),
            ..NetflowSettings::default()
        });
        for s in 1..=25 {
            n.add(KEY, 2, &seen(1, 1000 * s), now(1000 * s), out);
            n.run(now(1000 * s), out);
        }
        for s in 26..=60 {
            n.run(now(1000 * s), out);
        }
        let told: Vec<u64> = sent.iter().flat_map(|d| records(d)).map(|r| r[2]).collect();
        assert_eq!(told.iter().sum::<u64>(), 25);
        assert_eq!(told.len(), 3);
        assert!(n.flows.is_empty());
        // Each record is numbered.
        assert_eq!(sent.iter().map(|d| be(d, 16, 4)).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn what_32_bits_do_not_hold_is_told_in_parts() {
        let mut sent: Vec<Vec<u8>> = Vec::new();
        let out: &mut Out<'_> = &mut |d| {
            sent.push(d.to_vec());
            Sent::default()
        };
        let mut n = netflow(NetflowSettings::default());
        let bytes = 100 * u64::from(u32::MAX) + 7;
        n.add(KEY, 2, &Traffic { bytes, packets: 1_000_001, ..seen(1, 1000) }, now(1000), out);
        n.finish(now(2000), out);
        let all: Vec<_> = sent.iter().flat_map(|d| records(d)).collect();
        assert_eq!(all.len(), 101);
        assert_eq!(sent.len(), 4, "of 30 records at most");
        assert_eq!(all.iter().map(|r| r[2]).sum::<u64>(), 1_000_001);
        assert_eq!(all.iter().map(|r| r[3]).sum::<u64>(), bytes);
    }

    #[test]
    fn flows_beyond_the_most_are_told_of_at_once() {
        let mut packets = 0;
        let out: &mut Out<'_> = &mut |d| {
            packets += records(d).iter().map(|r| r[2]).sum::<u64>();
            Sent::default()
        };
        let mut n = netflow(NetflowSettings { active_timeout: None, ..NetflowSettings::default() });
        let over = 300;
        for i in 0..(MOST_FLOWS + over) as u32 {
            n.add(FlowKey { src: i.into(), ..KEY }, 2, &seen(1, 1000), now(1000), out);
        }
        n.run(now(900_000), out);
        assert_eq!(n.flows.len(), MOST_FLOWS);
        n.finish(now(900_000), out);
        assert_eq!(packets, (MOST_FLOWS + over) as u64);
    }

    #[test]
    fn ports_carry_the_engine_and_icmp_is_in_the_destination_port() {
        let mut sent: Vec<Vec<u8>> = Vec::new();
        let out: &mut Out<'_> = &mut |d| {
            sent.push(d.to_vec());
            Sent::default()
        };
        let settings = NetflowSettings { engine_id: 0x85, add_id_to_interface: true, ..Default::default() };
        let mut n = netflow(settings);
        let ping = FlowKey { protocol: 1, src_port: 8, dst_port: 0, in_port: 0x3ff, ..KEY };
        n.add(ping, 3, &seen(1, 1000), now(1000), out);
        n.finish(now(1000), out);
        let d = &sent[0];
        assert_eq!(records(d)[0][..2], [0x5 << 9 | 0x1ff, 0x5 << 9 | 3]);
        assert_eq!((be(d, 24 + 32, 2), be(d, 24 + 34, 2)), (0, 0x0800));
    }
}
