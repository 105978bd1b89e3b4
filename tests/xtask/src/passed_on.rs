//! Tasks that are programs of other crates, built optimised and given the rest of the command line.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result, bail};

use crate::step;

/// Everything after the task's name.
#[derive(clap::Args)]
pub struct Arguments {
    /// Passed on as they are.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

impl Arguments {
    /// Whether the first of them is `word`.
    pub fn begin_with(&self, word: &str) -> bool {
        self.rest.first().is_some_and(|a| a == word)
    }
}

/// Builds the programs of `package` optimised: what another program runs beside itself.
///
/// # Errors
/// When building fails.
pub fn build(package: &str) -> Result<()> {
    let status = step::cargo(&["build", "--quiet", "--release", "--bins", "--package", package])
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("{package} does not build ({status})");
    }
    Ok(())
}

/// Builds program `bin` of `package` optimised and becomes it, in the caller's folder: signals for this process are for it, and its
/// exit status is this process's.
///
/// # Errors
/// When there is no cargo to build it; does not return otherwise.
pub fn run(package: &str, bin: &str, a: &Arguments) -> Result<()> {
    let here = std::env::current_dir().context("the current folder is gone")?;
    let manifest = step::root().join("Cargo.toml");
    let mut c =
        step::cargo(&["run", "--quiet", "--release", "--package", package, "--bin", bin, "--manifest-path"]);
    c.arg(manifest).arg("--");
    c.current_dir(here).args(&a.rest);
    Err(c.exec()).with_context(|| format!("cannot start cargo for {bin}"))
}
