//! What the platform does to a device from outside: an error that it reports (AER), a device that is asked for, taken out and put in
//! again, memory in huge pages.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::machine::{HOT_PLUGGED, ROCKER};
use serde_json::json;

use super::bed::{Bed, frame};
use super::checks::{A, B, TEST};

/// The station behind the port that is plugged.
const H: u8 = 0x1d;
/// Huge pages of the machine, of 2 MiB.
const HUGE_PAGES: u32 = 64;

/// Huge pages that nobody has.
fn free_huge_pages(b: &mut Bed) -> Result<u32> {
    let text = b.guest.done(&["grep", "HugePages_Free", "/proc/meminfo"])?;
    text.split_whitespace().nth(1).and_then(|n| n.parse().ok()).with_context(|| text.clone())
}

pub fn dma_is_confined(b: &mut Bed) -> Result<String> {
    let before = b.ours("vfio-guest", &[ROCKER, "small"])?;
    b.guest.done(&["sh", "-c", &format!("echo {HUGE_PAGES} > /proc/sys/vm/nr_hugepages")])?;
    let free = free_huge_pages(b)?;
    ensure!(free >= HUGE_PAGES / 2, "the machine has {free} huge pages");
    let said = b.ours("vfio-guest", &[ROCKER, "huge"])?;
    let kernel = b.guest.done(&["dmesg"])?;
    let faults = kernel.lines().filter(|l| l.contains("DMAR") && l.contains("fault addr")).count();
    let iommufd = b.guest.run(&["test", "-e", "/dev/iommu"])?.status == 0;
    let way = if iommufd { "by iommufd," } else { "by its IOMMU group," };
    ensure!([&before, &said].iter().all(|s| s.starts_with(way)), "{before}{said}");
    ensure!(faults >= 4, "the kernel tells of {faults} faults");
    Ok(format!("{}; {}; {faults} faults in the kernel's log", before.trim(), said.trim()))
}

/// The switch, which runs by now, has its packets in huge pages.
pub fn packets_are_in_huge_pages(b: &mut Bed) -> Result<String> {
    let free = free_huge_pages(b)?;
    ensure!(free < HUGE_PAGES, "all {free} huge pages are free");
    Ok(format!("{} of {HUGE_PAGES} taken", HUGE_PAGES - free))
}

/// Frames go both ways between the plugged port and the chip's first one, in the end.
fn passes(b: &mut Bed, text: &str) -> Result<()> {
    for (from, to, f) in [
        ("h", "p1", frame(A, H, None, TEST, text.as_bytes())),
        ("p1", "h", frame(H, A, None, TEST, text.as_bytes())),
    ] {
        b.until(&format!("{text}: {from} to {to}"), |b| {
            b.quiet()?;
            b.guest.wire(from)?.send(&f)?;
            let wanted = |x: &[u8]| x == f;
            Ok(b.guest.wire(to)?.receive_that(Duration::from_millis(500), &wanted)?.is_some())
        })?;
    }
    Ok(())
}

/// What the switch has logged since the beginning, from the end of `before` on.
fn logged(b: &Bed, before: &str) -> Result<String> {
    let all = std::fs::read_to_string(b.log()).unwrap_or_default();
    Ok(all.get(before.len()..).unwrap_or_default().to_owned())
}

pub fn fatal_errors_are_heard(b: &mut Bed) -> Result<String> {
    let options = format!("type=dpdk options:dpdk-devargs={HOT_PLUGGED} ofport_request=7");
    b.vsctl(&format!("add-port br0 h -- set interface h {options}"))?;
    let error = b.vsctl("get interface h error")?;
    ensure!(error.trim() == "[]", "{error}");
    passes(b, "plugged")?;
    let before = logged(b, "")?;
    // An uncorrectable error of the link, which the device sends to its root port and the kernel's AER driver hears of.
    let inject = json!({ "command-line": "pcie_aer_inject_error hot DLP" });
    let said = b.guest.qemu("human-monitor-command", inject)?;
    b.until("the driver hears of a fatal error", |b| {
        Ok(logged(b, &before)?.contains("the platform reports a fatal error"))
    })
    .with_context(|| {
        format!("QEMU: {said}; kernel: {}", tail(&b.guest.done(&["dmesg"]).unwrap_or_default()))
    })?;
    passes(b, "after the error")?;
    let log = logged(b, &before)?;
    ensure!(log.contains("device is back"), "{log}");
    Ok(String::new())
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn is_there(b: &mut Bed) -> Result<bool> {
    Ok(b.guest.run(&["test", "-e", &format!("/sys/bus/pci/devices/{HOT_PLUGGED}")])?.status == 0)
}

pub fn unplugged_and_plugged_again(b: &mut Bed) -> Result<String> {
    let before = logged(b, "")?;
    let began = Instant::now();
    b.guest.qemu("device_del", json!({ "id": "hot" }))?;
    b.until("the device is given back and gone", |b| {
        Ok(logged(b, &before)?.contains("given back, as the platform asks for it") && !is_there(b)?)
    })?;
    let gone = began.elapsed();
    // The switch is there, says what has become of the port, and forwards between the others.
    // The database is told of ports at intervals, not by what happens to them.
    b.until("the database says what has become of the port", |b| {
        Ok(b.vsctl("get interface h error")?.trim() != "[]")
    })?;
    b.quiet()?;
    let f = frame(B, A, None, TEST, b"meanwhile");
    let out = b.send("p1", &f, b"meanwhile", &["p2"])?;
    ensure!(out.len() == 1 && out[0] == ("p2".to_owned(), f), "came out at {out:x?}");
    let out = b.send("v", &frame(A, 0x1a, None, TEST, b"software"), b"software", &["p1"])?;
    ensure!(out.iter().any(|(p, _)| p == "p1"), "came out at {out:x?}");
    let began = Instant::now();
    b.guest.plug()?;
    b.until("the device is there", is_there)?;
    let said = b.ours("hoist", &["bind", HOT_PLUGGED])?;
    ensure!(said.contains("bound to vfio-pci"), "{said}");
    passes(b, "plugged again")?;
    b.until("the database says that the port is well", |b| {
        Ok(b.vsctl("get interface h error")?.trim() == "[]")
    })?;
    let (gone, back) = (gone.as_secs_f64(), began.elapsed().as_secs_f64());
    Ok(format!(
        "let go of after {gone:.1} s (\"{}\"), forwards again {back:.1} s after it was put in",
        reason(b, &before)?
    ))
}

/// What the switch said of why it gave the device up.
fn reason(b: &Bed, before: &str) -> Result<String> {
    let log = logged(b, before)?;
    let line = log.lines().find(|l| l.contains("given back")).unwrap_or_default();
    Ok(line.rsplit('|').next().unwrap_or_default().trim().to_owned())
}
