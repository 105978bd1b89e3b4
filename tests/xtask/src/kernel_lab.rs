//! `cargo xtask lab`: a guest kernel, and a program of ours in it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::kernel::KernelLab;

use crate::{setup, step, vfio_lab};

/// How long the guest may take. It takes a tenth of that on an idle machine.
const LIMIT: Duration = Duration::from_secs(900);

/// What to run.
#[derive(clap::Args)]
pub struct Options {
    /// What is to be shown.
    #[arg(value_enum)]
    what: What,
    /// Of the checks of `tc`, only those whose name has this in it.
    #[arg(long, default_value = "")]
    only: String,
    /// Has `vfio` boot the kernel of this suite of Debian's, which is downloaded, such as `trixie-backports`.
    #[arg(long)]
    suite: Option<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum What {
    /// TC flower: filters that the provider installs, with packets through them.
    Tc,
    /// VFIO: a switch chip and NICs behind an IOMMU, in a machine that QEMU emulates.
    Vfio,
}

/// Runs it.
///
/// # Errors
/// When something is missing and cannot be had, or a check fails.
pub fn run(o: &Options) -> Result<()> {
    setup::packages()?;
    match o.what {
        What::Tc => tc(&o.only),
        What::Vfio => vfio_lab::run(o.suite.as_deref()),
    }
}

fn tc(only: &str) -> Result<()> {
    step::build(&["guest", "vswitchd"])?;
    let scratch = step::scratch()?;
    let program = scratch.parent().context("no target folder")?.join("debug/tc-guest");
    let lab = KernelLab::prepare(&scratch.join("kernel-lab"))?;
    let results = scratch.join("kernel-lab-tc");
    // The kernel's own lines about what it lacks are in the console's file.
    let mut show = |line: &str| {
        if ["kernel ", "ok ", "FAIL ", "note", "not shown"].iter().any(|p| line.starts_with(p))
            || line.ends_with("checks passed")
        {
            println!("{line}");
        }
    };
    let ended = lab.run(&program, &["only", only], &results, LIMIT, &mut show)?;
    println!("the guest ran for {:.1} s; its console is in {}", ended.took.as_secs_f64(), results.display());
    match ended.status {
        Some(0) => Ok(()),
        Some(n) => bail!("status {n}"),
        None => bail!("the guest left no status: {}", ended.console.lines().last().unwrap_or_default()),
    }
}
