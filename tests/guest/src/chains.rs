//! Records of more than one pass on the real kernel: chains, connection tracking with translation, frames that a chain does not
//! catch, a tunnel's port, a bond.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use device::{BufferPool, PacketBatch, PacketIo, QueueId, RxQueue};
use flow::{Action, CtAction, FieldId, NatChoice, NatEnd, NatRange, PacketMatch, PortId, ct_state};
use netio::diverted::{DivertedPort, Places};
use offload::OffloadProvider;
use offload_tc::divert::Divert;
use offload_tc::kdp::{Connection, Connections};
use offload_tc::{Kernel, Misses, Place, TcConfig, TcPolicy};

use crate::checks::{A, B, C, IP4, transfer};
use crate::net::{self, filters, ping, python, received, sh};
use crate::switch::{Switch, ip, set, untagged};

/// How long a frame is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a check says that has not been made for want of zones.
const WITHOUT_ZONES: &str = "not shown, this kernel is built without zones";
const TRK: u16 = ct_state::TRACKED;

/// Tells what tags say, and keeps it.
struct Seen {
    misses: Misses,
    places: Mutex<Vec<Place>>,
}

impl Places for Seen {
    fn resume(&self, tci: u16) -> Option<u32> {
        let p = self.misses.place(tci)?;
        self.places.lock().unwrap_or_else(PoisonError::into_inner).push(p);
        Some(p.recirc)
    }
}

/// An interface whose frames come to us when no filter catches them.
struct Handed {
    /// Received and not asked for yet.
    pending: VecDeque<(Vec<u8>, Place)>,
    rx: Box<dyn RxQueue>,
    seen: Arc<Seen>,
    _io: DivertedPort,
    _divert: Divert<Kernel>,
}

impl Handed {
    fn open(name: &str, misses: &Misses, pool: &BufferPool) -> Result<Handed> {
        let seen = Arc::new(Seen { misses: misses.clone(), places: Mutex::default() });
        let mut io = DivertedPort::open(name, &format!("t{name}"), seen.clone(), pool)?;
        let divert = Divert::install(Kernel::open()?, net::index(name)?, io.tap_index(), misses)?;
        let (rx, _tx) = io.take_queues(QueueId(0))?;
        Ok(Handed { pending: VecDeque::new(), rx, seen, _io: io, _divert: divert })
    }

    /// The first frame that is handed over and that `is` says yes to, and its place.
    fn wait(&mut self, is: impl Fn(&[u8]) -> bool) -> Result<(Vec<u8>, Place)> {
        let began = Instant::now();
        let mut batch = PacketBatch::new();
        while began.elapsed() < PATIENCE {
            self.rx.rx_burst(&mut batch)?;
            let mut places: Vec<Place> = {
                let mut all = self.seen.places.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut *all)
            };
            for (p, place) in batch.drain_all().zip(places.drain(..)) {
                ensure!(p.meta.resume == place.recirc, "{} is not {place:?}", p.meta.resume);
                self.pending.push_back((p.to_vec(), place));
            }
            while let Some((frame, place)) = self.pending.pop_front() {
                if is(&frame) {
                    return Ok((frame, place));
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        anyhow::bail!("no such frame was handed over")
    }
}

/// A provider with chains beside the one that every check has, and what is handed over.
struct Chained {
    switch: Switch,
    handed: Vec<Handed>,
}

fn chained() -> Result<Chained> {
    let (misses, pool) = (Misses::new(), BufferPool::new(256)?);
    let handed = ["va", "vb"].iter().map(|n| Handed::open(n, &misses, &pool)).collect::<Result<_>>()?;
    let (policy, misses) = (TcPolicy::SkipHw, Some(misses));
    let config = TcConfig { policy, misses, conntrack: true, first_prio: 0x4000, ..TcConfig::new("chains") };
    Ok(Chained { switch: Switch::with(config, &crate::switch::PORTS)?, handed })
}

/// A record's match for packets that have been in the tables before.
fn again(m: PacketMatch, id: u32) -> PacketMatch {
    let mut m = m;
    m.set(FieldId::RecircId, id.into());
    m
}

/// A record goes on in another chain; both count.
pub fn a_record_goes_on(_: &mut Switch) -> Result<String> {
    let mut c = chained()?;
    let s = &mut c.switch;
    let rewrite = set(FieldId::NwTos, 0x20);
    let second = s.install(again(untagged(A, IP4), 7), &[Action::Output(B)])?;
    let first = s.install(untagged(A, IP4), &[rewrite, Action::Recirc(7)])?;
    s.install(untagged(B, IP4), &[Action::Output(A)])?;
    let got = ping("a", "10.0.0.2", 5, 20)?;
    ensure!(got == 5, "{got} of 5 answered");
    for h in [first, second] {
        let n = s.stats(h)?;
        ensure!((n.packets, n.bytes) == (5, 490), "{} packets, {} bytes", n.packets, n.bytes);
    }
    let told = filters("va")?;
    let leads = told.iter().find(|f| f["options"]["actions"][2]["control_action"]["type"] == "goto");
    let leads = leads.with_context(|| format!("no filter leads to a chain: {told:?}"))?;
    let chain = leads["options"]["actions"][2]["control_action"]["chain"].as_u64().context("no chain")?;
    ensure!(told.iter().any(|f| f["chain"] == chain && f["protocol"] == "ip"), "{told:?}");
    s.provider.flush()?;
    ensure!(filters("va")?.iter().all(|f| f["chain"] == 0), "the chain is still there");
    Ok(format!("chain {chain}"))
}

fn nat(end: NatEnd, to: &str, port: u16) -> Result<NatRange> {
    let a = to.parse()?;
    let (addresses, ports) = (Some((a, a)), Some((port, port)));
    Ok(NatRange { end, addresses, ports, choice: NatChoice::Any, persistent: false })
}

fn in_state(m: PacketMatch, state: u16) -> PacketMatch {
    let mut m = m;
    m.set_masked(FieldId::CtState, (TRK | state).into(), (TRK | state).into());
    m
}

/// A server at an address that nobody has, by the kernel's connection tracking.
pub fn connections_are_translated(_: &mut Switch) -> Result<String> {
    let mut c = chained()?;
    let s = &mut c.switch;
    let track = Action::Ct(Box::new(CtAction { nat: Some(None), ..CtAction::default() }));
    let keep =
        CtAction { commit: true, nat: Some(Some(nat(NatEnd::Dst, "10.0.0.2", 80)?)), ..CtAction::default() };
    let keep = Action::Ct(Box::new(keep));
    let tcp = |port: PortId| {
        let mut m = untagged(port, IP4);
        m.set(FieldId::NwProto, 6);
        m
    };
    let new = s.install(in_state(again(tcp(A), 7), ct_state::NEW), &[keep, Action::Output(B)])?;
    let there = s.install(in_state(again(tcp(A), 7), ct_state::ESTABLISHED), &[Action::Output(B)])?;
    let reply = ct_state::ESTABLISHED | ct_state::REPLY;
    let back = s.install(in_state(again(tcp(B), 8), reply), &[Action::Output(A)])?;
    s.install(tcp(A), &[track.clone(), Action::Recirc(7)])?;
    s.install(tcp(B), &[track, Action::Recirc(8)])?;
    sh("ip -n a neigh replace 10.0.0.77 lladdr 02:00:00:00:00:02 dev ea")?;
    let text = transfer("10.0.0.77", 8080)?;
    let (n, t, b) = (s.stats(new)?.packets, s.stats(there)?.packets, s.stats(back)?.packets);
    ensure!(n >= 1 && t > 2 && b > 2, "{n} new, {t} there, {b} back");
    let table = sh("cat /proc/net/nf_conntrack")?;
    let translated = table.lines().find(|l| l.contains("dst=10.0.0.77") && l.contains("src=10.0.0.2 "));
    translated.with_context(|| format!("the kernel knows of no such connection: {table}"))?;
    let told = filters("va")?;
    let ct = told.iter().filter(|f| f["options"]["actions"][0]["kind"] == "ct").count();
    ensure!(ct == 2, "{ct} filters with ct: {told:?}");
    s.provider.flush()?;
    Ok(format!("{text}; {n} new, {t} there, {b} back"))
}

/// Whether this kernel tells the connections of zones apart, as `tc` finds.
fn has_zones() -> Result<bool> {
    sh("ip link add zones type veth peer name zones1")?;
    sh("tc qdisc add dev zones clsact")?;
    let asked = sh("tc filter add dev zones ingress protocol ip flower ct_state -trk action ct zone 5");
    sh("ip link del zones")?;
    Ok(asked.is_ok())
}

/// A connection of one zone is none of another, whose packets are new for ever.
pub fn zones_are_apart(_: &mut Switch) -> Result<String> {
    if !has_zones()? {
        return Ok(WITHOUT_ZONES.to_owned());
    }
    let mut c = chained()?;
    let s = &mut c.switch;
    let track = |zone| Action::Ct(Box::new(CtAction { zone, ..CtAction::default() }));
    let keep = CtAction { commit: true, zone: 5, mark: (7, u32::MAX), ..CtAction::default() };
    let keep = Action::Ct(Box::new(keep));
    let of_zone = |m: PacketMatch, zone: u16, state: u16| {
        let mut m = in_state(m, state);
        m.set(FieldId::CtZone, zone.into());
        m
    };
    let (there, back) = (untagged(A, IP4), untagged(B, IP4));
    let new = s.install(of_zone(again(there, 10), 5, ct_state::NEW), &[keep, Action::Output(B)])?;
    let known = of_zone(again(there, 10), 5, ct_state::ESTABLISHED);
    let known = s.install(known, &[track(6), Action::Recirc(11)])?;
    let other = s.install(of_zone(again(there, 11), 6, ct_state::NEW), &[Action::Output(B)])?;
    let mut reply = of_zone(again(back, 12), 5, ct_state::ESTABLISHED | ct_state::REPLY);
    reply.set(FieldId::CtMark, 7);
    let reply = s.install(reply, &[Action::Output(A)])?;
    s.install(there, &[track(5), Action::Recirc(10)])?;
    s.install(back, &[track(5), Action::Recirc(12)])?;
    let got = ping("a", "10.0.0.2", 5, 50)?;
    ensure!(got == 5, "{got} of 5 answered: {:?}", filters("va")?);
    let mut packets = Vec::new();
    for h in [new, known, other, reply] {
        packets.push(s.stats(h)?.packets);
    }
    ensure!(packets == [1, 4, 4, 5], "{packets:?} are new, known, new to the other zone, back");
    let mut kernel = Connections::new(Kernel::netfilter()?);
    let marks = |all: Vec<Connection>| all.iter().map(|c| c.mark).collect::<Vec<_>>();
    let (five, six) = (marks(kernel.dump(Some(5))?), marks(kernel.dump(Some(6))?));
    ensure!(five == [7] && six.is_empty(), "marks {five:?} in zone 5, {six:?} in zone 6");
    s.provider.flush()?;
    Ok("1 connection in one, 4 packets new in the other".to_owned())
}

/// What a chain does not catch says where it was, what connection tracking said, and is as far as it was.
pub fn a_miss_keeps_its_place(_: &mut Switch) -> Result<String> {
    let mut c = chained()?;
    let s = &mut c.switch;
    let track = Action::Ct(Box::default());
    s.install(untagged(A, IP4), &[set(FieldId::NwTos, 0x20), track, Action::Recirc(9)])?;
    sh("ip -n a neigh replace 10.0.0.88 lladdr 02:00:00:00:00:02 dev ea")?;
    ensure!(ping("a", "10.0.0.88", 1, 20)? == 0, "somebody answered");
    let to = |b: &[u8], last: u8| b.get(12..14) == Some(&[8, 0]) && b.get(30..34) == Some(&[10, 0, 0, last]);
    let (frame, place) = c.handed[0].wait(|b| to(b, 88))?;
    ensure!(place == Place { recirc: 9, ct_state: TRK | ct_state::NEW }, "{place:?}");
    ensure!(frame[15] == 0x20 && frame.len() == 98, "{} bytes, tos {:#x}", frame.len(), frame[15]);
    // What is caught nowhere begins anew.
    c.switch.provider.flush()?;
    ensure!(ping("a", "10.0.0.88", 1, 20)? == 0, "somebody answered");
    let (frame, place) = c.handed[0].wait(|b| to(b, 88))?;
    ensure!(place == Place::default() && frame[15] == 0, "{place:?}");
    Ok(String::new())
}

/// Records of a tunnel's port, as the switch makes them: metadata matched, metadata set.
pub fn a_tunnel_is_a_port(_: &mut Switch) -> Result<String> {
    crate::tunnel::underlay()?;
    let vx = PortId(4);
    let config = TcConfig { policy: TcPolicy::SkipHw, first_prio: 0x4000, ..TcConfig::new("tunnel") };
    let mut s = Switch::with(config, &[("va", A), ("vx0", vx)])?;
    let mut there = untagged(A, IP4);
    there.set(FieldId::NwDst, ip("10.0.0.22"));
    let into = [
        set(FieldId::TunId, 42),
        set(FieldId::TunSrc, ip("10.9.0.1")),
        set(FieldId::TunDst, ip("10.9.0.2")),
        set(FieldId::TunTtl, 64),
        set(FieldId::TunTpDst, 4789),
        Action::Output(vx),
    ];
    let there = s.install(there, &into)?;
    let mut back = untagged(vx, IP4);
    for (f, v) in [(FieldId::TunId, 42), (FieldId::TunSrc, ip("10.9.0.2")), (FieldId::TunDst, ip("10.9.0.1"))]
    {
        back.set(f, v);
    }
    let back = s.install(back, &[Action::Output(A)])?;
    let got = ping("a", "10.0.0.22", 5, 20)?;
    ensure!(got == 5, "{got} of 5 answered: {:?}", filters("vx0")?);
    for h in [there, back] {
        ensure!(s.stats(h)?.packets == 5, "{:?}", s.stats(h)?);
    }
    let told = filters("vx0")?;
    let kinds: Vec<&str> = (0..2).filter_map(|i| told[0]["options"]["actions"][i]["kind"].as_str()).collect();
    ensure!(kinds == ["tunnel_key", "mirred"], "{told:?}");
    s.provider.flush()?;
    drop(s);
    crate::tunnel::underlay_off()?;
    Ok(String::new())
}

const SEND: &str = r"
import socket
for dev in ('ed0', 'ed1'):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind((dev, 0))
    for i in range(3):
        s.send(bytes.fromhex('02000000000302000000000408004500001c00000000401100000a0000040a00000304d204d200080000') + bytes(18))
    s.send(bytes.fromhex('0180c2000002020000000004880901') + bytes(50))
";

/// What any member of a bond receives meets the bond's filters; what the members say of the bond goes to the bond.
pub fn a_bond_is_a_port(_: &mut Switch) -> Result<String> {
    sh("ip netns add d")?;
    sh("ip link add bond0 type bond mode active-backup")?;
    for i in 0..2 {
        sh(&format!("ip link add vd{i} type veth peer name ed{i} netns d"))?;
        sh(&format!("ip link set vd{i} master bond0"))?;
        sh(&format!("ip -n d link set ed{i} up"))?;
    }
    sh("ip link set bond0 up")?;
    let (misses, pool) = (Misses::new(), BufferPool::new(256)?);
    let mut handed = Handed::open("bond0", &misses, &pool)?;
    let bond = PortId(5);
    let (policy, misses) = (TcPolicy::SkipHw, Some(misses));
    let config = TcConfig { policy, misses, first_prio: 0x4000, ..TcConfig::new("bond") };
    let mut s = Switch::with(config, &[("bond0", bond), ("vc", C)])?;
    let before = received("c", "ec")?;
    let h = s.install(untagged(bond, IP4), &[Action::Output(C)])?;
    let sent = python("d", SEND).output()?;
    ensure!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let n = s.stats(h)?.packets;
    let got = received("c", "ec")? - before;
    ensure!(n == 6 && got >= 6, "{n} counted, {got} received");
    ensure!(filters("vd0")?.len() == filters("vd1")?.len(), "the members do not share their filters");
    // Nothing of LACP is handed over; of the rest everything.
    s.provider.flush()?;
    let sent = python("d", SEND).output()?;
    ensure!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    for _ in 0..6 {
        let (frame, _) = handed.wait(|b| b.get(12..14) != Some(&[0x86, 0xdd]))?;
        ensure!(frame[12..14] == [8, 0], "{:02x?}", &frame[12..14]);
    }
    drop(s);
    drop(handed);
    sh("ip link del bond0")?;
    sh("ip netns del d")?;
    Ok(String::new())
}
