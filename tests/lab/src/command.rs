//! Running programs, in a namespace or not.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

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

/// A process that is ended, as by a crash, and waited for when this is dropped.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A controller's program for a test: what environment `variable` names, else `name` of what `cargo xtask setup` has installed.
pub fn controller(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(p) = std::env::var_os(variable) {
        return Some(p.into());
    }
    let own = std::env::current_exe().ok()?;
    let installed = own.ancestors().nth(3)?.join("xtask/controllers/bin").join(name);
    installed.is_file().then_some(installed)
}

/// `ip ...`
pub(crate) fn ip(args: &[&str]) -> Result<()> {
    done(Command::new("ip").args(args)).map(drop)
}
