//! Running a command as a step: announced, timed, its output kept for the summary.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// The workspace's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map(Path::to_path_buf).unwrap_or_default()
}

/// Where tasks keep what they write: `target/xtask`.
pub fn scratch() -> Result<PathBuf> {
    let dir = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), PathBuf::from)
        .join("xtask");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// That the disk of the target folder has room for `gib` GiB more: a disk that fills up half-way fails every later step, for
/// reasons that say little.
///
/// # Errors
/// When it has not, with what is left; when nobody can say.
pub fn room(gib: u64) -> Result<()> {
    let dir = scratch()?;
    let disk =
        nix::sys::statvfs::statvfs(&dir).with_context(|| format!("room on the disk of {}", dir.display()))?;
    let free = disk.blocks_available().saturating_mul(disk.fragment_size()) >> 30;
    if free < gib {
        bail!(
            "{free} GiB are free on the disk of {}, and {gib} are needed: make room, or put CARGO_TARGET_DIR elsewhere",
            dir.display()
        );
    }
    Ok(())
}

/// `cargo` as this task was started by, in the workspace's root.
pub fn cargo(args: &[&str]) -> Command {
    let mut c = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    c.args(args).current_dir(root());
    c
}

/// Builds the programs of `packages`; the folder that they are in.
///
/// # Errors
/// When they do not build.
pub fn build(packages: &[&str]) -> Result<PathBuf> {
    let mut c = cargo(&["build", "--quiet", "--bins"]);
    for p in packages {
        c.args(["--package", p]);
    }
    let status = c.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("{} does not build ({status})", packages.join(", "));
    }
    Ok(scratch()?.parent().context("no target folder")?.join("debug"))
}

/// Runs `command`, passing what it says, on both its outputs, line by line to `seen`.
///
/// # Errors
/// When it cannot be started or exits with another status than 0.
pub fn run(title: &str, command: &mut Command, seen: &mut dyn FnMut(&str)) -> Result<()> {
    println!("== {title}");
    let begin = Instant::now();
    let (said, to) = std::io::pipe().context("a pipe")?;
    command.stdin(Stdio::null()).stdout(to.try_clone().context("a pipe")?).stderr(to);
    let child = command.spawn();
    // Our own ends of the pipe, which would keep it open.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = child
        .with_context(|| format!("{title}: cannot start {}", command.get_program().to_string_lossy()))?;
    for line in BufReader::new(said).split(b'\n') {
        let line = line.with_context(|| format!("{title}: reading its output"))?;
        seen(&String::from_utf8_lossy(&line));
    }
    let status = child.wait().with_context(|| format!("{title}: waiting for it"))?;
    println!("== {title}: {status} after {:.1} s", begin.elapsed().as_secs_f64());
    if !status.success() {
        bail!("{title} failed ({status})");
    }
    Ok(())
}
