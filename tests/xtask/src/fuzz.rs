//! `cargo xtask fuzz`: the targets of tests/fuzz under libFuzzer.
//!
//! Built apart from everything else, with the compiler's coverage counters (what `cargo fuzz` asks of it too); no sanitizer, which
//! would take a nightly compiler. What was found to reach new code stays in `target/fuzz/corpus`, what made a target panic in
//! `target/fuzz/found`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{setup, step};

/// What to feed, and for how long.
#[derive(clap::Args)]
pub struct Options {
    /// Targets; all when none is named. `--list` lists them.
    targets: Vec<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only this input, once: how a finding is looked at.
    #[arg(long)]
    input: Option<PathBuf>,
    /// Lists the targets and ends.
    #[arg(long)]
    list: bool,
}

/// Memory that a target may use, in MiB: whatever comes from outside, it is bounded.
const MEMORY_MIB: u32 = 1024;
/// Seconds that one input may take.
const INPUT_S: u32 = 5;

/// Coverage as libFuzzer reads it.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                     -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
                     -Cdebug-assertions -Coverflow-checks";

/// Runs the targets one after the other.
///
/// # Errors
/// When one cannot be built or is not known, or a target panicked: where the input is, is printed.
pub fn run(o: &Options) -> Result<()> {
    let known = names()?;
    if o.list {
        println!("{}", known.join("\n"));
        return Ok(());
    }
    if let Some(t) = o.targets.iter().find(|t| !known.contains(t)) {
        bail!("there is no target {t}; there are {}", known.join(", "));
    }
    let program = build()?;
    let dir = folder()?;
    let targets = if o.targets.is_empty() { &known } else { &o.targets };
    let mut broken = Vec::new();
    for t in targets {
        let (corpus, found) = (dir.join("corpus").join(t), dir.join("found").join(t));
        std::fs::create_dir_all(&corpus).and_then(|()| std::fs::create_dir_all(&found))?;
        let mut c = Command::new(&program);
        c.env("FUZZ_TARGET", t).stdin(Stdio::null());
        match &o.input {
            Some(i) => c.arg(i),
            None => {
                write_seeds(t, &corpus)?;
                c.arg(&corpus).arg(format!("-max_total_time={}", o.seconds)).args([
                    format!("-artifact_prefix={}/", found.display()),
                    format!("-rss_limit_mb={MEMORY_MIB}"),
                    format!("-timeout={INPUT_S}"),
                    "-print_final_stats=1".to_owned(),
                    "-max_len=4096".to_owned(),
                ])
            }
        };
        println!("== {t}");
        let out = c
            .stderr(Stdio::piped())
            .output()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let text = String::from_utf8_lossy(&out.stderr);
        if out.status.success() {
            let stat =
                |n: &str| text.lines().find_map(|l| l.strip_prefix(n)).map_or("?", str::trim).to_owned();
            let last = text.lines().rev().find(|l| l.contains(" cov: ")).unwrap_or_default();
            let coverage =
                last.split(" cov: ").nth(1).and_then(|r| r.split_whitespace().next()).unwrap_or("?");
            println!(
                "{} inputs, {} a second, {coverage} places reached, nothing found",
                stat("stat::number_of_executed_units:"),
                stat("stat::average_exec_per_sec:")
            );
        } else {
            println!("{text}");
            println!("look at it again: cargo xtask fuzz {t} --input FILE (a file in {})", found.display());
            broken.push(t.as_str());
        }
    }
    if broken.is_empty() { Ok(()) } else { bail!("broken: {}", broken.join(", ")) }
}

fn folder() -> Result<PathBuf> {
    let scratch = step::scratch()?;
    let target = scratch.parent().context("the target folder has no parent")?;
    Ok(target.join("fuzz"))
}

/// Builds the program with coverage, in a folder of its own.
fn build() -> Result<PathBuf> {
    if !setup::has("c++") {
        bail!("libFuzzer is built by a C++ compiler: install g++");
    }
    let dir = folder()?;
    let mut c = step::cargo(&[
        "build",
        "--quiet",
        "--release",
        "-p",
        "fuzz",
        "--bin",
        "fuzz",
        "--features",
        "libfuzzer",
    ]);
    // A target named: the flags are for it alone, not for build scripts and macros.
    let host = host()?;
    c.args(["--target", &host, "--target-dir"]).arg(&dir);
    c.env("RUSTFLAGS", FLAGS)
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    step::run("build with coverage", &mut c, &mut |line| println!("{line}"))?;
    Ok(dir.join(host).join("release/fuzz"))
}

/// The compiler's own target triple.
pub(crate) fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let out = Command::new(rustc).arg("-vV").output().context("cannot start rustc")?;
    let text = String::from_utf8_lossy(&out.stdout);
    let host = text.lines().find_map(|l| l.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not say what it runs on")
}

/// What the plain program of the targets prints.
fn plain(args: &[&str]) -> Result<Vec<u8>> {
    let mut c = step::cargo(&["run", "--quiet", "-p", "fuzz", "--bin", "targets", "--"]);
    let out = c.args(args).stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !out.status.success() {
        bail!("the list of targets cannot be had ({})", out.status);
    }
    Ok(out.stdout)
}

fn names() -> Result<Vec<String>> {
    Ok(String::from_utf8_lossy(&plain(&["names"])?).lines().map(str::to_owned).collect())
}

fn write_seeds(target: &str, to: &Path) -> Result<()> {
    plain(&["seeds", target, to.to_str().context("the folder's name is not UTF-8")?]).map(drop)
}
