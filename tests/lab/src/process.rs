//! What the kernel says of a process.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Processor time of all threads of a process so far.
///
/// # Errors
/// When it has ended.
pub fn cpu(pid: u32) -> Result<Duration> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("the process has ended")?;
    let ns = tasks.flatten().filter_map(|t| {
        fs::read_to_string(t.path().join("schedstat")).ok()?.split(' ').next()?.parse::<u64>().ok()
    });
    Ok(Duration::from_nanos(ns.sum()))
}

/// Memory of its own that is resident, in bytes: what was touched and is not of a file.
///
/// # Errors
/// When it has ended.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    status_bytes(pid, "RssAnon:")
}

/// The most that has been resident, in bytes, since [`forget_peak`].
///
/// # Errors
/// When it has ended.
pub fn peak_bytes(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmHWM:")
}

/// Has [`peak_bytes`] begin with what is resident now, which is returned.
///
/// # Errors
/// When it has ended, or is somebody else's.
pub fn forget_peak(pid: u32) -> Result<u64> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("cannot reset the peak")?;
    status_bytes(pid, "VmRSS:")
}

fn status_bytes(pid: u32, line: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process has ended")?;
    let value = status.lines().find_map(|l| l.strip_prefix(line)).with_context(|| format!("no {line}"))?;
    let kb: u64 =
        value.trim().trim_end_matches("kB").trim().parse().with_context(|| format!("{line} is no number"))?;
    Ok(kb * 1024)
}
