//! Packets through filters, counted at both ends.

use std::io::Read;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use flow::{Action, FieldId, MeterId, PortId};
use offload::{ObjectId, ObjectKind, ObjectSpec, OffloadProvider, Reject};
use offload_tc::TcPolicy;

use crate::chains;
use crate::daemon;
use crate::datapath;
use crate::faults;
use crate::meters;
use crate::net::{self, filters, ping, python, received, sh};
use crate::options;
use crate::stock;
use crate::switch::{Switch, ip, set, untagged};
use crate::system;

pub const A: PortId = PortId(1);
pub const B: PortId = PortId(2);
pub const C: PortId = PortId(3);
const MAC_B: u128 = 0x0200_0000_0002;
pub const IP4: u16 = 0x0800;
const ARP: u16 = 0x0806;

type Check = fn(&mut Switch) -> Result<String>;

const CHECKS: &[(&str, Check)] = &[
    ("ping through two filters, counted to the byte", ping_is_forwarded_and_counted),
    ("a replacement forwards and counts on", a_replacement_counts_on),
    ("TCP", tcp_is_forwarded),
    ("VLAN push and pop", vlan_is_pushed_and_popped),
    ("addresses and TTL rewritten, checksums right", headers_are_rewritten),
    ("TCP to another address and port and back", tcp_is_translated),
    ("mirror", copies_are_mirrored),
    ("drop", drops_are_counted),
    ("police", a_meter_drops_what_exceeds),
    ("the kernel's words are the reason of a refusal", refusals_have_words),
    ("filters of others stay", others_filters_stay),
    (
        "fault: filters that somebody removes come back, and count on",
        faults::filters_that_somebody_removes_come_back,
    ),
    (
        "fault: counters are read while others change filters",
        faults::counters_are_read_while_others_change_filters,
    ),
    ("fault: an interface goes in the middle of batches", faults::an_interface_goes_in_the_middle_of_batches),
    ("VXLAN both ways", vxlan_both_ways),
    ("a tunnel is a port: VXLAN both ways by records", chains::a_tunnel_is_a_port),
    ("a record goes on in a chain, counted in both", chains::a_record_goes_on),
    (
        "conntrack with NAT through chains: TCP to an address that nobody has",
        chains::connections_are_translated,
    ),
    ("conntrack in two zones through chains, by records", chains::zones_are_apart),
    ("a miss in a later chain keeps its place", chains::a_miss_keeps_its_place),
    ("a bond is a port: its members share their filters", chains::a_bond_is_a_port),
    ("the daemon: each frame arrives once", daemon::each_frame_arrives_once),
    (
        "the daemon: priorities that somebody has taken, and what hands frames over taken away",
        daemon::priorities_that_are_taken,
    ),
    ("the daemon: rules of two passes", daemon::rules_of_two_passes),
    ("the daemon: the kernel's refusal is what hoist why tells", daemon::refusals_are_told),
    (
        "the daemon by the database: ovs-vsctl, hw-offload off and on, an interface goes and comes",
        daemon::by_the_database,
    ),
    (
        "the daemon: meters are policers that keep the rate, count what they drop, and go",
        meters::keep_the_rate,
    ),
    (
        "the kernel's own datapath: misses, flows, recirculation, packets for a controller, TC above it",
        datapath::the_kernels_datapath,
    ),
    (
        "datapath_type=system: ovs-vsctl makes it, ovs-dpctl tells its flows; ping, TCP, VLAN, TTL, ARP written, TC above it",
        system::forwarding,
    ),
    ("datapath_type=system: connections with mark and NAT", system::connections),
    ("datapath_type=system: VXLAN with and without group policy, TC above it", system::tunnels),
    ("datapath_type=system: meters of the kernel, and policers above it", meters::of_the_kernel),
    ("datapath_type=system: options of Geneve matched and written, TC above it", options::through_tunnels),
    ("datapath_type=system: killed, taken over, cleaned up, and without the module", system::lives),
    (
        "a stock ovs-vswitchd and ours: the same flow is the same filter, as tc tells it",
        stock::the_same_flow_is_the_same_filter,
    ),
    ("a restart finds what was left", a_restart_finds_filters),
];

/// Runs every check whose name has `only` in it, on one set of interfaces.
pub fn run(only: &str) -> Result<()> {
    net::make()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("kernel {}", kernel.trim());
    let mut failed = 0;
    let chosen: Vec<_> = CHECKS.iter().filter(|(name, _)| name.contains(only)).collect();
    for (name, check) in &chosen {
        let began = Instant::now();
        // ARP is there for all of them.
        let outcome = Switch::new(TcPolicy::SkipHw).and_then(|mut s| {
            s.provider.flush()?;
            s.connect(ARP, A, B)?;
            let text = check(&mut s)?;
            s.provider.flush()?;
            Ok(text)
        });
        let ms = began.elapsed().as_millis();
        match outcome {
            Ok(text) if text.is_empty() => println!("ok    {name} ({ms} ms)"),
            Ok(text) => println!("ok    {name}: {text} ({ms} ms)"),
            Err(e) => {
                failed += 1;
                println!("FAIL  {name}: {e:#}");
            }
        }
    }
    println!("not shown here: in_hw (no driver in this kernel takes filters)");
    println!("{} of {} checks passed", chosen.len() - failed, chosen.len());
    if failed > 0 {
        bail!("{failed} failed");
    }
    Ok(())
}

fn ping_is_forwarded_and_counted(s: &mut Switch) -> Result<String> {
    let [ab, ba] = s.connect(IP4, A, B)?;
    let got = ping("a", "10.0.0.2", 5, 20)?;
    ensure!(got == 5, "{got} of 5 answered");
    // An echo of 56 bytes is a frame of 98.
    for h in [ab, ba] {
        let c = s.stats(h)?;
        ensure!((c.packets, c.bytes) == (5, 5 * 98), "{} packets, {} bytes", c.packets, c.bytes);
    }
    let told = filters("va")?;
    let ip = told.iter().find(|f| f["protocol"] == "ip").context("tc tells of no filter for ip")?;
    let keys = &ip["options"]["keys"];
    ensure!(keys["eth_type"] == "ipv4", "{keys}");
    ensure!(keys["ip_flags"]["frag"] == false, "{keys}");
    let a = &ip["options"]["actions"][0];
    ensure!(a["kind"] == "mirred" && a["mirred_action"] == "redirect" && a["to_dev"] == "vb", "{a}");
    ensure!(a["stats"]["packets"] == 5, "{a}");
    ensure!(ip["options"]["skip_hw"] == true || ip["options"]["not_in_hw"] == true, "{ip}");
    let last = s.remove(ab)?;
    ensure!((last.packets, last.bytes) == (5, 490), "last counters {last:?}");
    ensure!(ping("a", "10.0.0.2", 1, 20)? == 0, "forwarded without a filter");
    Ok(String::new())
}

fn a_replacement_counts_on(s: &mut Switch) -> Result<String> {
    let [ab, _] = s.connect(IP4, A, B)?;
    ping("a", "10.0.0.2", 3, 20)?;
    let m = untagged(A, IP4);
    s.replace(ab, m, &[Action::Output(C), Action::Output(B)])?;
    let before = received("c", "ec")?;
    let got = ping("a", "10.0.0.2", 3, 20)?;
    ensure!(got == 3, "{got} of 3 answered after the change");
    let copies = received("c", "ec")? - before;
    ensure!(copies >= 3, "{copies} copies");
    s.replace(ab, m, &[Action::Output(B)])?;
    ping("a", "10.0.0.2", 1, 20)?;
    let c = s.stats(ab)?;
    ensure!((c.packets, c.bytes) == (7, 7 * 98), "{} packets, {} bytes", c.packets, c.bytes);
    Ok(String::new())
}

const SERVER: &str = r"
import socket, sys, hashlib
s = socket.create_server(('0.0.0.0', 80)); s.settimeout(20)
print('ready', flush=True)
c, _ = s.accept(); c.settimeout(20)
h = hashlib.sha1(); n = 0
while True:
    b = c.recv(65536)
    if not b: break
    h.update(b); n += len(b)
c.sendall((h.hexdigest() + ' %d' % n).encode()); c.close()
";

/// Sends 256,000 bytes to `to` from a, to a server in b; whether they came through whole.
pub fn transfer(to: &str, port: u16) -> Result<String> {
    let client = format!(
        r"
import socket, sys, hashlib
data = bytes(range(256)) * 1000
s = socket.create_connection(('{to}', {port}), timeout=20); s.sendall(data); s.shutdown(socket.SHUT_WR)
said = b''
while True:
    b = s.recv(1000)
    if not b: break
    said += b
want = hashlib.sha1(data).hexdigest() + ' %d' % len(data)
print('same' if said.decode() == want else 'other: ' + said.decode())
"
    );
    let mut server = python("b", SERVER).spawn()?;
    let mut out = server.stdout.take().context("no output")?;
    let mut ready = [0; 6];
    out.read_exact(&mut ready).context("the server did not start")?;
    let began = Instant::now();
    let said = python("a", &client).output()?;
    let took = began.elapsed();
    let _ = server.kill();
    let _ = server.wait();
    let text = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    ensure!(text == "same", "{text}{}", String::from_utf8_lossy(&said.stderr));
    Ok(format!("256 kB in {} ms", took.as_millis()))
}

fn tcp_is_forwarded(s: &mut Switch) -> Result<String> {
    let [ab, _] = s.connect(IP4, A, B)?;
    let text = transfer("10.0.0.2", 80)?;
    let c = s.stats(ab)?;
    ensure!(c.bytes > 256_000, "{} bytes counted", c.bytes);
    Ok(format!("{text}, {} packets", c.packets))
}

fn vlan_is_pushed_and_popped(s: &mut Switch) -> Result<String> {
    let _ = sh("ip -n b link add link eb name eb.100 type vlan id 100");
    let _ = sh("ip -n b addr add 10.0.100.2/24 dev eb.100");
    sh("ip -n b link set eb.100 up")?;
    let _ = sh("ip -n a addr add 10.0.100.1/24 dev ea");
    // Instead of the ones for everybody.
    s.provider.flush()?;
    let push = Action::PushVlan { tpid: 0x8100, tci: 100 | 3 << 13 };
    let mut counted = None;
    for t in [IP4, ARP] {
        let h = s.install(untagged(A, t), &[push.clone(), Action::Output(B)])?;
        counted = counted.or(Some(h));
        let mut m = untagged(B, t);
        m.set_masked(FieldId::VlanTci, 0x1000 | 100, 0x1fff);
        s.install(m, &[Action::PopVlan, Action::Output(A)])?;
    }
    let got = ping("a", "10.0.100.2", 5, 20)?;
    ensure!(got == 5, "{got} of 5 answered");
    let c = s.stats(counted.context("no handle")?)?;
    ensure!((c.packets, c.bytes) == (5, 490), "{} packets, {} bytes", c.packets, c.bytes);
    let vlan = filters("vb")?.iter().filter(|f| f["protocol"] == "802.1Q").count();
    ensure!(vlan == 2, "{vlan} filters for tagged packets");
    Ok(String::new())
}

/// Filters that make 10.0.0.77 of b, seen from a, and answer for it.
fn translate(s: &mut Switch, proto: Option<u8>, more: [&[Action]; 2]) -> Result<()> {
    let (mut there, mut back) = (untagged(A, IP4), untagged(B, IP4));
    there.set(FieldId::NwDst, ip("10.0.0.77"));
    back.set(FieldId::NwSrc, ip("10.0.0.2"));
    // A TTL that may be decremented, as translation would have it.
    there.set_masked(FieldId::NwTtl, 0x40, 0xc0);
    for m in [&mut there, &mut back] {
        if let Some(p) = proto {
            m.set(FieldId::NwProto, p.into());
        }
    }
    let mut to = vec![set(FieldId::EthDst, MAC_B), set(FieldId::NwDst, ip("10.0.0.2")), Action::DecTtl];
    to.extend_from_slice(more[0]);
    to.push(Action::Output(B));
    s.install(there, &to)?;
    let mut from = vec![set(FieldId::NwSrc, ip("10.0.0.77")), set(FieldId::EthSrc, 0x0200_0000_0077)];
    from.extend_from_slice(more[1]);
    from.push(Action::Output(A));
    s.install(back, &from)?;
    sh("ip -n a neigh replace 10.0.0.77 lladdr 02:00:00:00:00:77 dev ea")?;
    sh("ip -n b neigh replace 10.0.0.1 lladdr 02:00:00:00:00:01 dev eb")?;
    Ok(())
}

fn headers_are_rewritten(s: &mut Switch) -> Result<String> {
    translate(s, None, [&[], &[]])?;
    let got = ping("a", "10.0.0.77", 5, 20)?;
    ensure!(got == 5, "{got} of 5 answered");
    let sniff = r"
import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x800)); s.bind(('eb', 0)); s.settimeout(10)
print('ready', flush=True)
while True:
    b = s.recv(2000)
    if b[23] == 1 and b[34] == 8:
        print(b[:6].hex(), b[22], socket.inet_ntoa(b[30:34])); break
";
    let mut c = python("b", sniff).spawn()?;
    let mut out = c.stdout.take().context("no output")?;
    out.read_exact(&mut [0; 6])?;
    ping("a", "10.0.0.77", 1, 20)?;
    let mut text = String::new();
    out.read_to_string(&mut text)?;
    c.wait()?;
    let want = format!("{MAC_B:012x} 63 10.0.0.2");
    ensure!(text.trim() == want, "arrives as {text}");
    Ok(text.trim().to_owned())
}

fn tcp_is_translated(s: &mut Switch) -> Result<String> {
    translate(s, Some(6), [&[set(FieldId::TpDst, 80)], &[set(FieldId::TpSrc, 8080)]])?;
    transfer("10.0.0.77", 8080)
}

fn copies_are_mirrored(s: &mut Switch) -> Result<String> {
    s.install(untagged(A, IP4), &[Action::Output(C), Action::Output(B)])?;
    s.install(untagged(B, IP4), &[Action::Output(C), Action::Output(A)])?;
    let before = received("c", "ec")?;
    let got = ping("a", "10.0.0.2", 10, 20)?;
    let copies = received("c", "ec")? - before;
    ensure!(got == 10 && copies == 20, "{got} answered, {copies} copies");
    Ok(String::new())
}

fn drops_are_counted(s: &mut Switch) -> Result<String> {
    let h = s.install(untagged(A, IP4), &[])?;
    let got = ping("a", "10.0.0.2", 3, 20)?;
    let c = s.stats(h)?;
    ensure!(got == 0 && c.packets == 3, "{got} answered, {} counted", c.packets);
    Ok(String::new())
}

fn a_meter_drops_what_exceeds(s: &mut Switch) -> Result<String> {
    let id = ObjectId { kind: ObjectKind::Meter, number: 1 };
    let spec = ObjectSpec::Meter { rate_pps: 0, rate_bps: 8_000, burst: 8 * 2048 };
    s.provider.objects().put(id, &spec)?;
    let m = Action::Meter(MeterId(1));
    let ab = s.install(untagged(A, IP4), &[m.clone(), Action::Output(B)])?;
    s.install(untagged(B, IP4), &[Action::Output(A)])?;
    // 100 frames of 84 bytes behind the Ethernet header: 24 fit the bucket, 12 the rate of each second.
    let got = ping("a", "10.0.0.2", 100, 2)?;
    let c = s.stats(ab)?;
    let stats = s.provider.objects().stats(id)?;
    ensure!(c.packets == 100, "{} packets counted", c.packets);
    ensure!((20..100).contains(&got), "{got} of 100 passed");
    ensure!(stats.packets == 100 && stats.dropped_packets == u64::from(100 - got), "{stats:?}, {got} passed");
    ensure!(s.provider.objects().remove(id).is_err(), "removed while in use");
    s.remove(ab)?;
    s.provider.objects().remove(id)?;
    Ok(format!("{got} of 100 passed"))
}

fn refusals_have_words(s: &mut Switch) -> Result<String> {
    let _ = s;
    let mut hw = Switch::new(TcPolicy::SkipSw)?;
    let refused = hw.offer(untagged(A, IP4), &[Action::Output(B)])?;
    let Err(Reject::Device { errno, text, .. }) = refused else { bail!("{refused:?}") };
    ensure!(errno == 95 && !text.is_empty(), "{errno} {text}");
    // Where it can only say that something is wrong, the kernel says what.
    sh("tc qdisc del dev vc clsact")?;
    let refused = hw.offer(untagged(C, IP4), &[Action::Output(B)])?;
    let Err(Reject::Device { text: second, .. }) = refused else { bail!("{refused:?}") };
    ensure!(second.contains("Qdisc"), "{second}");
    Ok(format!("\"{text}\", \"{second}\""))
}

fn others_filters_stay(s: &mut Switch) -> Result<String> {
    sh("tc filter add dev va ingress protocol ip prio 9000 flower ip_proto 89 action drop")?;
    s.connect(IP4, A, B)?;
    s.provider.flush()?;
    let left = filters("va")?;
    ensure!(left.len() == 1 && left[0]["pref"] == 9000, "{left:?}");
    sh("tc filter del dev va ingress protocol ip prio 9000")?;
    Ok(String::new())
}

fn vxlan_both_ways(s: &mut Switch) -> Result<String> {
    crate::tunnel::both_ways(s)
}

fn a_restart_finds_filters(s: &mut Switch) -> Result<String> {
    s.connect(IP4, A, B)?;
    ping("a", "10.0.0.2", 2, 20)?;
    let mut second = Switch::new(TcPolicy::SkipHw)?;
    let found = second.provider.dump()?;
    ensure!(found.len() == 4, "{} found", found.len());
    let counted = found.iter().filter(|f| f.stats.packets == 2 && f.stats.bytes == 196).count();
    ensure!(counted == 2, "{counted} with the counters they had");
    for f in found {
        second.remove(f.handle)?;
    }
    ensure!(filters("va")?.is_empty() && filters("vb")?.is_empty(), "some are left");
    Ok(String::new())
}
