//! Running programs, in a namespace or not.

use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// A command that runs `program` in network namespace `ns`. Its process is the program itself.
pub fn inside(ns: &str, program: &str) -> Command {
    let mut c = Command::new("ip");
    c.args(["netns", "exec", ns, program]).stdin(Stdio::null());
    c
}

/// Runs a command to its end and gives its output.
///
/// # Errors
/// When it does not start, or fails; the error shows what it said.
pub fn done(c: &mut Command) -> Result<Output> {
    let args: Vec<_> = c.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
    let name = format!("{} {}", c.get_program().to_string_lossy(), args.join(" "));
    let o = c.stdin(Stdio::null()).output().with_context(|| format!("cannot start {name}"))?;
    if !o.status.success() {
        let said = [&o.stdout[..], &o.stderr[..]].concat();
        bail!("{name}: {}: {}", o.status, String::from_utf8_lossy(&said).trim());
    }
    Ok(o)
}

/// `ip ...`
pub(crate) fn ip(args: &[&str]) -> Result<()> {
    done(Command::new("ip").args(args)).map(drop)
}
