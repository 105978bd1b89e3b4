//! What goes wrong on a real kernel: filters that somebody removes, an interface that goes while filters are put on it, dumps while others
//! change what is dumped.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use flow::{Action, FieldId, PortId};
use offload::{FlowOp, OffloadProvider, OpId, OpResult, Reject, StatsCursor};

use crate::checks::{A, B, IP4};
use crate::net::{self, filters, ping, sh};
use crate::switch::{PORTS, Switch, untagged};

/// Filters of a batch.
const BATCH: u32 = 64;

/// One, some and all of ours are removed, with `tc`, and come back with the next counters; traffic goes on, and counts.
pub fn filters_that_somebody_removes_come_back(s: &mut Switch) -> Result<String> {
    let [ab, _] = s.connect(IP4, A, B)?;
    ping("a", "10.0.0.2", 5, 20)?;
    let mut total = s.stats(ab)?.packets;
    ensure!(total == 5, "{total} counted");
    for how in [
        "tc filter del dev va ingress",
        "tc filter del dev va ingress protocol ip",
        "tc qdisc del dev va clsact",
    ] {
        sh(how).or_else(|_| {
            // Without a priority some kernels want the filter's own.
            let all = filters("va")?;
            let f = all.iter().find(|f| f["protocol"] == "ip").context("no filter")?;
            sh(&format!("tc filter del dev va ingress protocol ip prio {}", f["pref"]))
        })?;
        let before = s.provider.counters().put_back;
        s.stats(ab)?;
        ensure!(s.provider.counters().put_back > before, "{how}: nothing was put back");
        ensure!(filters("va")?.len() == 2, "{how}: {:?}", filters("va")?);
        let got = ping("a", "10.0.0.2", 3, 20)?;
        let n = s.stats(ab)?.packets;
        ensure!(got == 3 && n == total + 3, "{how}: {got} of 3 answered, {n} counted of {}", total + 3);
        total = n;
    }
    Ok(format!("{} put back", s.provider.counters().put_back))
}

fn many(s: &mut Switch, n: u32, from: u32) -> Vec<FlowOp> {
    (from..from + n)
        .map(|i| {
            let mut m = untagged(A, IP4);
            m.set(FieldId::NwDst, u128::from(0x0b00_0000 + i));
            FlowOp::Install(OpId(i.into()), s.rule(m, &[Action::Output(B)]))
        })
        .collect()
}

/// An interface goes while batches of filters are put on it: each has one answer, nothing is believed to be there that is not, and when
/// the interface is back so are filters.
pub fn an_interface_goes_in_the_middle_of_batches(s: &mut Switch) -> Result<String> {
    let mut going = None;
    let (mut asked, mut done, mut at) = (0, Vec::new(), 0);
    let gone = |o: &OpResult| matches!(o, OpResult::Rejected(Reject::Device { errno: 19, .. }, None));
    for round in 0..400 {
        if round == 3 {
            going = Some(Command::new("ip").args(["link", "del", "va"]).stdin(Stdio::null()).spawn()?);
        }
        let ops = many(s, BATCH, at);
        at += BATCH;
        let mut sent = 0;
        while sent < ops.len() {
            sent += s.provider.submit(&ops[sent..]);
            s.provider.poll(&mut done, usize::MAX);
        }
        asked += sent;
        if done.iter().any(|c| gone(&c.result)) {
            break;
        }
    }
    while done.len() < asked {
        s.provider.poll(&mut done, usize::MAX);
    }
    if let Some(mut c) = going {
        c.wait()?;
    }
    ensure!(done.len() == asked, "{} answers to {asked}", done.len());
    let installed = done.iter().filter(|c| matches!(c.result, OpResult::Installed(..))).count();
    let refused = done.iter().filter(|c| gone(&c.result)).count();
    ensure!(
        installed + refused == asked && refused > 0,
        "{installed} and {refused} of {asked}: {:?}",
        done.last()
    );
    let mut lost = 0;
    let mut cursor = StatsCursor::default();
    for _ in 0..1000 {
        lost += s.provider.poll_stats(&mut cursor, 1000)?.lost.len();
        if s.provider.filters() <= 1 {
            break;
        }
    }
    // One is of ARP from b to an interface that is gone, which the kernel keeps as it is.
    ensure!(s.provider.filters() <= 1 && lost >= installed, "{lost} lost of {installed}");
    sh("ip link add va type veth peer name ea netns a")?;
    sh("sysctl -qw net.ipv6.conf.va.disable_ipv6=1")?;
    sh("ip link set va up promisc on")?;
    sh("ip -n a link set ea address 02:00:00:00:00:01 up")?;
    sh("ip -n a addr add 10.0.0.1/24 dev ea")?;
    s.provider.set_interfaces(&[])?;
    let ports: Vec<(PortId, u32)> =
        PORTS.iter().filter_map(|(name, p)| Some((*p, net::index(name).ok()?))).collect();
    s.provider.set_interfaces(&ports)?;
    s.connect(IP4, A, B)?;
    s.connect(0x0806, A, B)?;
    let got = ping("a", "10.0.0.2", 3, 50)?;
    ensure!(got == 3, "{got} of 3 answered after it came back");
    Ok(format!("{installed} put, {refused} refused, {lost} lost"))
}

/// Counters are read while somebody else puts and removes filters on the same interface: each of ours is told every time.
pub fn counters_are_read_while_others_change_filters(s: &mut Switch) -> Result<String> {
    let ops = many(s, 200, 0);
    let (mut sent, mut done) = (0, Vec::new());
    while done.len() < ops.len() {
        sent += s.provider.submit(&ops[sent..]);
        s.provider.poll(&mut done, usize::MAX);
    }
    ensure!(done.iter().all(|c| matches!(c.result, OpResult::Installed(..))), "{:?}", done.last());
    let churn = r"
for i in $(seq 1 20); do
  tc filter add dev va ingress protocol ip prio 77 handle $i flower dst_ip 12.0.0.$i action drop
  tc filter del dev va ingress protocol ip prio 77 handle $i flower
done";
    let mut other =
        Command::new("bash").args(["-c", churn]).stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let mut rounds = 0;
    loop {
        let over = other.try_wait()?.is_some();
        let b = s.provider.poll_stats(&mut StatsCursor::default(), usize::MAX)?;
        // Those for everybody's ARP besides.
        ensure!(b.stats.len() == 202 && b.lost.is_empty(), "{} told, {} lost", b.stats.len(), b.lost.len());
        rounds += 1;
        if over {
            break;
        }
    }
    ensure!(s.provider.counters().put_back == 0, "{:?}", s.provider.counters());
    let theirs = filters("va")?.iter().filter(|f| f["pref"] == 77).count();
    ensure!(theirs == 0, "{theirs} of theirs");
    Ok(format!("{rounds} rounds"))
}
