//! OpenFlow's meters as policers of TC: two flows of UDP that share one, sent from a to b below and above its rate.
//!
//! Packets may be forwarded by software before their flow is a filter, and are metered there then; each side has a bucket of its own
//! (docs/adr/0051), which the bounds allow for. What b has got and what the meter has dropped has to be what was sent, to the packet.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::daemon::{Daemon, wait};
use crate::net::{filters, python, sh};
use crate::switch::Switch;

const METER: &str = "meter=7,burst,stats";
/// Where the two flows go; nobody listens.
const TO: [u16; 2] = [5001, 5002];

/// Sends UDP to b.
fn program(packets: u32, per_second: u32, bytes: usize) -> String {
    format!(
        r"
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); began = time.monotonic(); to = {TO:?}
for i in range({packets}):
    early = began + i / {per_second} - time.monotonic()
    if early > 0: time.sleep(early)
    s.sendto(b'x' * {bytes}, ('10.0.0.2', to[i % 2]))
print(time.monotonic() - began)
"
    )
}

/// Datagrams that b has got.
fn arrived() -> Result<u64> {
    let text = sh("ip netns exec b cat /proc/net/snmp")?;
    let mut rows = text.lines().filter(|l| l.starts_with("Udp:")).map(|l| l.split_whitespace());
    let (names, values) = (rows.next().context("no UDP")?, rows.next().context("no UDP")?);
    let both = names.zip(values).filter(|(n, _)| matches!(*n, "InDatagrams" | "NoPorts"));
    both.map(|(_, v)| Ok(v.parse::<u64>()?)).sum()
}

/// All that was sent.
#[derive(Default)]
struct Sent {
    packets: u64,
    arrived: u64,
}

impl Sent {
    /// Sends that much; how many arrived, and in how many seconds they were sent.
    fn send(&mut self, packets: u32, per_second: u32, bytes: usize) -> Result<(u64, f64)> {
        let before = arrived()?;
        let o = python("a", &program(packets, per_second, bytes)).output()?;
        let text = String::from_utf8_lossy(&o.stdout).into_owned();
        let took: f64 =
            text.trim().parse().with_context(|| String::from_utf8_lossy(&o.stderr).into_owned())?;
        let got = arrived()? - before;
        self.packets += u64::from(packets);
        self.arrived += got;
        Ok((got, took))
    }
}

/// What the stock `tc` says of the host's policers with numbers of ours.
fn policers() -> Result<String> {
    let text = sh("tc -s actions ls action police")?;
    // Each begins with an action's number in the list.
    let all = text.split("action order").filter(|t| t.contains("police 0x4") || t.contains("police 0x5"));
    Ok(all.collect())
}

/// The number behind `what` in a text.
fn number(text: &str, what: &str) -> Result<u64> {
    let rest = text.split(what).nth(1).with_context(|| format!("no {what}: {text}"))?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().with_context(|| format!("{what}: {text}"))
}

/// Numbers of the policers of the filters on va.
fn used() -> Result<Vec<u64>> {
    let all = filters("va")?;
    let actions = all.iter().filter_map(|f| f["options"]["actions"].as_array()).flatten();
    Ok(actions.filter(|a| a["kind"] == "police").filter_map(|a| a["index"].as_u64()).collect())
}

/// Waits until both flows are filters, while some packets of theirs come.
fn both_are_filters(d: &Daemon, s: &mut Sent) -> Result<Vec<u64>> {
    wait("both flows are filters with a policer", || {
        s.send(4, 20, 18)?;
        Ok(used()?.len() == 2)
    })
    .with_context(|| format!("{:?} {}", filters("va"), d.appctl("hoist/why").unwrap_or_default()))?;
    used()
}

/// Holds what arrived against a rate of packets, with a burst for each side.
fn about(what: &str, (got, took): (u64, f64), rate: f64, burst: f64) -> Result<()> {
    let (low, high) = (0.85 * rate * took, 1.1 * rate * took + 0.1 * rate + 2.0 * burst);
    ensure!(
        low <= got as f64 && got as f64 <= high,
        "{what}: {got} in {took:.2} s, wanted {low:.0} to {high:.0}"
    );
    Ok(())
}

/// Meters of the kernel's own datapath, and policers above it.
pub fn of_the_kernel(s: &mut Switch) -> Result<String> {
    s.provider_off()?;
    let d = crate::system::start("systemmeters")?;
    let mut sent = Sent::default();
    flows(&d, "pktps", "band=type=drop,rate=100,burst_size=20")?;
    let (got, _) = sent.send(80, 40, 18)?;
    ensure!(got == 80, "{got} of 80 below the rate");
    counts(&d, &sent)?;
    let known = crate::system::kernels()?;
    ensure!(known.contains("meter("), "{known}");
    // The kernel's bucket is as large as a burst and what comes in a second.
    let above = sent.send(1200, 400, 18)?;
    about("100 packets a second by the kernel", above, 100.0, 120.0)?;
    let dropped = counts(&d, &sent)?;
    d.ofctl("mod-meter", &format!("{METER},pktps,band=type=drop,rate=300,burst_size=20"))?;
    let changed = sent.send(1200, 600, 18)?;
    about("300 packets a second by the kernel", changed, 300.0, 320.0)?;
    counts(&d, &sent)?;
    d.vsctl("set Open_vSwitch . other_config:hw-offload=true other_config:tc-policy=skip_hw")?;
    both_are_filters(&d, &mut sent)?;
    let by_policer = sent.send(1800, 600, 18)?;
    about("300 packets a second by TC above it", by_policer, 300.0, 320.0)?;
    counts(&d, &sent)?;
    let by_tc = number(&policers()?, "dropped ")?;
    ensure!(by_tc > 500, "{by_tc} dropped by the policer");
    d.ofctl("del-meter", "meter=7")?;
    wait("the policer goes", || Ok(policers()?.is_empty() && used()?.is_empty()))?;
    wait("the kernel's flows go", || Ok(!crate::system::kernels()?.contains("meter(")))?;
    crate::system::stop(d)?;
    let per_second = |(got, took): (u64, f64)| got as f64 / took;
    Ok(format!(
        "{:.0} of 400 a second at 100, {:.0} of 600 at 300, {:.0} of 600 by the policer above; {dropped} dropped by the kernel's",
        per_second(above),
        per_second(changed),
        per_second(by_policer)
    ))
}

/// See the module's text.
pub fn keep_the_rate(s: &mut Switch) -> Result<String> {
    s.provider_off()?;
    let d = Daemon::start("meters", &["--database", "/run/hoist-meters.conf"])?;
    d.vsctl("set Open_vSwitch . other_config:hw-offload=true other_config:tc-policy=skip_hw")?;
    d.vsctl(
        "add-br br0 -- add-port br0 va -- set interface va ofport_request=1 \
         -- add-port br0 vb -- set interface vb ofport_request=2",
    )?;
    let text = metered(&d).with_context(|| format!("policers {:?}", policers()))?;
    // Killed while a meter is lent: what it leaves is no meter of the next life.
    let mut sent = Sent::default();
    flows(&d, "pktps", "band=type=drop,rate=50,burst_size=10")?;
    both_are_filters(&d, &mut sent)?;
    d.kill()?;
    ensure!(!policers()?.is_empty(), "no policer is left");
    let d = Daemon::start("meters", &["--database", "/run/hoist-meters.conf"])?;
    d.vsctl("get interface va ofport")?;
    wait("policers of a former life go", || Ok(policers()?.is_empty()))
        .with_context(|| format!("{:?}", policers()))?;
    // And stopped while one is.
    flows(&d, "pktps", "band=type=drop,rate=50,burst_size=10")?;
    sent = Sent::default();
    both_are_filters(&d, &mut sent)?;
    counts(&d, &sent)?;
    d.stop()?;
    ensure!(policers()?.is_empty(), "policers are left: {}", policers()?);
    Ok(text)
}

fn flows(d: &Daemon, unit: &str, band: &str) -> Result<()> {
    d.ofctl("add-meter", &format!("{METER},{unit},{band}"))?;
    for to in TO {
        d.ofctl("add-flow", &format!("priority=9,udp,in_port=1,tp_dst={to},actions=meter:7,output:2"))?;
    }
    Ok(())
}

/// Holds the counts of rules and meter against what was sent; what was dropped.
fn counts(d: &Daemon, sent: &Sent) -> Result<u64> {
    let dropped = sent.packets - sent.arrived;
    let mut last = String::new();
    wait("rules and meter count what was sent", || {
        let rules: u64 = TO.iter().map(|to| d.counted(&format!("udp,tp_dst={to}"))).sum::<Result<u64>>()?;
        let m = d.ofctl("meter-stats", "meter=7")?;
        last = format!("{} sent, {dropped} dropped, rules {rules}, {m}", sent.packets);
        Ok(rules == sent.packets
            && number(&m, "packet_in_count:")? == sent.packets
            && number(m.split("bands:").nth(1).unwrap_or_default(), "packet_count:")? == dropped)
    })
    .with_context(|| last.clone())?;
    let halves: Vec<u64> =
        TO.iter().map(|to| d.counted(&format!("udp,tp_dst={to}"))).collect::<Result<_>>()?;
    ensure!(halves.iter().all(|n| *n == sent.packets / 2), "{halves:?} of {}", sent.packets);
    Ok(dropped)
}

fn metered(d: &Daemon) -> Result<String> {
    let mut sent = Sent::default();
    flows(d, "pktps", "band=type=drop,rate=100,burst_size=20")?;
    let used_ones = both_are_filters(d, &mut sent)?;
    ensure!(used_ones[0] == used_ones[1], "two policers: {used_ones:?}");
    let index = used_ones[0];
    let there = policers()?;
    ensure!(number(&there, "pkts_rate ")? == 100 && there.contains(&format!("{index:x}")), "{there}");
    // Below the rate all of it.
    let (got, _) = sent.send(80, 40, 18)?;
    ensure!(got == 80, "{got} of 80 below the rate");
    ensure!(counts(d, &sent)? == 0, "dropped below the rate");
    // Four times the rate.
    let above = sent.send(1200, 400, 18)?;
    about("100 packets a second", above, 100.0, 20.0)?;
    let dropped = counts(d, &sent)?;
    let by_tc = number(&policers()?, "dropped ")?;
    ensure!(by_tc <= dropped && by_tc * 10 >= dropped * 8, "{by_tc} of {dropped} dropped by the policer");
    // Changed under the flows: the same policer, at another rate.
    d.ofctl("mod-meter", &format!("{METER},pktps,band=type=drop,rate=300,burst_size=20"))?;
    wait("the policer has the new rate", || Ok(number(&policers()?, "pkts_rate ")? == 300))?;
    let changed = sent.send(1200, 600, 18)?;
    about("300 packets a second", changed, 300.0, 20.0)?;
    ensure!(used()?.iter().all(|i| *i == index), "{:?}", used()?);
    counts(d, &sent)?;
    // By bits, of short frames and of long ones: with their Ethernet headers 60 and 1042 bytes.
    d.ofctl("mod-meter", &format!("{METER},kbps,band=type=drop,rate=400,burst_size=40"))?;
    wait("the policer is one of bits", || Ok(policers()?.contains("rate 400Kbit")))?;
    let bits = sent.send(600, 200, 1000)?;
    about("400 kbit a second", bits, 400_000.0 / 8.0 / 1042.0, 40_000.0 / 8.0 / 1042.0)?;
    counts(d, &sent)?;
    d.ofctl("mod-meter", &format!("{METER},kbps,band=type=drop,rate=48,burst_size=16"))?;
    wait("the policer is slower", || Ok(policers()?.contains("rate 48Kbit")))?;
    let short = sent.send(1200, 300, 18)?;
    about("48 kbit a second of short frames", short, 48_000.0 / 8.0 / 60.0, 2048.0 / 60.0)?;
    counts(d, &sent)?;
    // Gone with its flows.
    d.ofctl("del-meter", "meter=7")?;
    wait("the policer goes", || Ok(policers()?.is_empty() && used()?.is_empty()))
        .with_context(|| format!("{:?}", policers()))?;
    let left = d.ofctl("dump-flows", "")?;
    ensure!(!left.contains("meter"), "{left}");
    let told: Value = serde_json::from_str(&d.appctl("hoist/flows --hw")?)?;
    ensure!(!told.to_string().contains("meter"), "{told}");
    let per_second = |(got, took): (u64, f64)| got as f64 / took;
    Ok(format!(
        "{:.0} of 400 a second at 100, {:.0} of 600 at 300, {:.0} of 200 at 400 kbit, {:.0} of 300 at 48 kbit; {by_tc} of {dropped} dropped by the policer",
        per_second(above),
        per_second(changed),
        per_second(bits),
        per_second(short)
    ))
}
