//! `cargo xtask asan`: the drivers on devices that misbehave, under the address sanitizer.
//!
//! The pinned compiler has the sanitizer's runtime but takes its flag only as an unstable one, which `RUSTC_BOOTSTRAP` lets through.
//! The standard library is as it comes, without instrumentation: what is checked is the memory that this workspace reads and writes,
//! DMA memory and buffers before all. Built apart from everything else, in `target/asan`.

use std::process::Command;

use anyhow::{Context, Result};

use crate::fuzz::host;
use crate::step;

/// Crates whose tests run: what has `unsafe` below drivers, and the drivers on their models.
const CRATES: [&str; 6] = ["device", "ixgbe", "models", "rocker", "simnic", "virtio-net"];
/// Tests of theirs that need no other program and no simulator.
const TESTS: [&str; 5] = ["filters", "storm", "on_model", "misbehaving_device", "routing"];

/// How long the tests may take once they are built, in seconds: some twenty are needed.
const LIMIT_S: &str = "600";

/// Runs them.
///
/// # Errors
/// When one does not build, fails, does not end, or touches memory that is not its own.
pub fn run() -> Result<()> {
    let target = step::scratch()?.parent().context("the target folder has no parent")?.join("asan");
    let host = host()?;
    // Of the tests alone the time is bounded: what a build takes is the machine's.
    let steps = [("the drivers' tests are built with the address sanitizer", true), ("they run", false)];
    for (title, build) in steps {
        let cargo = step::cargo(&["test", "--quiet", "--lib", "--no-fail-fast"]);
        let mut c = if build {
            cargo
        } else {
            let mut c = Command::new("timeout");
            c.args(["--kill-after=10", LIMIT_S]).arg(cargo.get_program()).args(cargo.get_args());
            c.current_dir(step::root());
            c
        };
        c.args(build.then_some("--no-run"));
        c.args(CRATES.iter().flat_map(|p| ["--package", p]));
        c.args(TESTS.iter().flat_map(|t| ["--test", t]));
        // A target named: the flags are for it alone, not for build scripts and macros.
        c.args(["--target", &host, "--target-dir"]).arg(&target);
        c.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", FLAGS).env("ASAN_OPTIONS", "detect_leaks=1");
        step::run(title, &mut c, &mut |line| println!("{line}"))?;
    }
    Ok(())
}

/// The sanitizer, with a standard library that was built without it.
const FLAGS: &str = "-Zsanitizer=address -Cunsafe-allow-abi-mismatch=sanitizer";
