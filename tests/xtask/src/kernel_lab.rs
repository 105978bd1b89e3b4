//! `cargo xtask lab`: a guest kernel, and a program of ours in it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use lab::kernel::KernelLab;
use lab::machine::{Hardware, Kernel, Machine, QEMU};

use crate::{setup, step, vfio_lab};

/// How long the guest may take. It takes a tenth of that on an idle machine.
const LIMIT: Duration = Duration::from_secs(900);
/// How long a guest may take whose instructions are emulated.
const EMULATED_LIMIT: Duration = Duration::from_secs(3600);

/// What to run.
#[derive(clap::Args)]
pub struct Options {
    /// What is to be shown.
    #[arg(value_enum)]
    what: What,
    /// Of the checks of `tc`, only those whose name has this in it.
    #[arg(long, default_value = "")]
    only: String,
    /// Runs the checks of `tc` in the machine of `vfio`: slower, but on the kernel that Debian's users run, with zones of connections.
    #[arg(long)]
    machine: bool,
    /// Has the machine boot the kernel of this suite of Debian's, which is downloaded, such as `trixie-backports`.
    #[arg(long, conflicts_with = "kernel")]
    suite: Option<String>,
    /// Has the machine boot a kernel of yours: a folder with `lib/modules/VERSION` and `boot/vmlinuz-VERSION`. It needs, as modules or
    /// built in, the file systems 9p and overlay, virtio over PCI with 9p and console, and what is to be shown.
    #[arg(long, value_name = "DIR")]
    kernel: Option<PathBuf>,
}

impl Options {
    fn kernel(&self) -> Kernel {
        match (&self.suite, &self.kernel) {
            (Some(s), _) => Kernel::Suite(s.clone()),
            (None, Some(k)) => Kernel::Built(k.clone()),
            (None, None) => Kernel::Distribution,
        }
    }
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
        What::Tc if o.machine || o.kernel() != Kernel::Distribution => tc_in_machine(&o.only, &o.kernel()),
        What::Tc => tc(&o.only),
        What::Vfio => vfio_lab::run(&o.kernel()),
    }
}

/// The guest's lines that are for who runs it; the kernel's own about what it lacks are in the console's file.
fn show(line: &str) {
    if ["kernel ", "ok ", "FAIL ", "note", "not shown"].iter().any(|p| line.starts_with(p))
        || line.ends_with("checks passed")
    {
        println!("{line}");
    }
}

fn tc(only: &str) -> Result<()> {
    let program = step::build(&["guest", "vswitchd"])?.join("tc-guest");
    let scratch = step::scratch()?;
    let lab = KernelLab::prepare(&scratch.join("kernel-lab"))?;
    let results = scratch.join("kernel-lab-tc");
    let ended = lab.run(&program, &["only", only], &results, LIMIT, &mut show)?;
    println!("the guest ran for {:.1} s; its console is in {}", ended.took.as_secs_f64(), results.display());
    match ended.status {
        Some(0) => Ok(()),
        Some(n) => bail!("status {n}"),
        None => bail!("the guest left no status: {}", ended.console.lines().last().unwrap_or_default()),
    }
}

fn tc_in_machine(only: &str, kernel: &Kernel) -> Result<()> {
    setup::programs(&[(QEMU, "qemu-system-x86")])?;
    let programs = step::build(&["guest", "vswitchd"])?;
    let scratch = step::scratch()?;
    let boot = kernel.folder();
    let machine = Machine::prepare(&scratch.join(&boot), kernel)?;
    let results = scratch.join(format!("{boot}-lab-tc"));
    let mut guest = machine.start(&programs.join("lab-agent"), &results, Hardware::default())?;
    let log = results.join("log");
    let modules = format!("HOIST_MODULES={}", machine.modules_root().display());
    let program = programs.join("tc-guest").display().to_string();
    let pid = guest.start(&["env", &modules, &program, "only", only], "log")?;
    // Shown as it comes: this takes a while.
    let mut shown = 0;
    let mut more = || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let whole = text.rfind('\n').map_or(0, |n| n + 1);
        text.get(shown..whole).unwrap_or_default().lines().for_each(show);
        shown = whole;
    };
    let status = guest.wait_within(pid, EMULATED_LIMIT, &mut more)?;
    more();
    println!("what it wrote is in {}", log.display());
    if status != 0 {
        bail!("status {status}");
    }
    Ok(())
}
