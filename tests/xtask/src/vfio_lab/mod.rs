//! `cargo xtask lab vfio`: the switch drives hardware that it did not make, behind an IOMMU, in a machine that QEMU emulates.
//!
//! The checks run here, on the host: they put frames into the machine's ports, have the agent inside run the switch and the stock
//! tools, and ask QEMU what the emulated chip has counted.
//!
//! `cargo xtask lab vfio --suite trixie-backports` is the same on a newer kernel. Where a kernel has iommufd the devices have to be opened by
//! it; Debian's for amd64 have been built without, up to 7.3: `--kernel DIR` boots one that the caller has built with it.

mod bed;
mod checks;
mod platform;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use lab::machine::{Hardware, Kernel, Machine, QEMU};

use crate::{setup, step};
use bed::Bed;

/// When it is too slow, with half of that on other programs.
const BUDGET: Duration = Duration::from_secs(240);
/// Ports of the switch chip.
const PORTS: u16 = 4;

/// Runs it.
///
/// # Errors
/// When a check fails. What is missing and cannot be had is printed, and the checks are skipped.
pub fn run(kernel: &Kernel) -> Result<()> {
    if let Err(e) = setup::programs(&[(QEMU, "qemu-system-x86")]) {
        println!("skip: lab vfio needs QEMU: {e:#}");
        return Ok(());
    }
    let programs = step::build(&["guest", "vswitchd", "hoist"])?;
    let scratch = step::scratch()?;
    let boot = kernel.folder();
    let machine = match Machine::prepare(&scratch.join(&boot), kernel) {
        Ok(m) => m,
        Err(e) => {
            println!("skip: lab vfio needs a kernel to boot: {e:#}");
            return Ok(());
        }
    };
    let began = Instant::now();
    let results = scratch.join(format!("{boot}-lab-vfio"));
    let hardware = Hardware { rocker_ports: PORTS, virtio: true, e1000e: true, hot_plugged: true };
    let guest = machine.start(&programs.join("lab-agent"), &results, hardware)?;
    println!("kernel {}, up after {:.1} s", machine.kernel_version(), guest.booted().as_secs_f64());
    let mut bed = Bed::new(guest, programs);
    let mut passed = 0;
    for (name, check) in checks::CHECKS {
        let at = Instant::now();
        match check(&mut bed) {
            Ok(text) => {
                let text = if text.is_empty() { text } else { format!(": {text}") };
                println!("ok    {name}{text} ({:.1} s)", at.elapsed().as_secs_f64());
                passed += 1;
            }
            Err(e) => {
                println!("FAIL  {name}: {e:#}");
                println!("the machine's console and the switch's log are in {}", results.display());
                // Those behind it go on from where it would have ended.
                break;
            }
        }
    }
    let took = began.elapsed();
    println!("{passed} of {} checks passed after {:.0} s", checks::CHECKS.len(), took.as_secs_f64());
    if took > BUDGET {
        println!(
            "note: longer than {} s, which is what it takes at most on a machine that does nothing else",
            BUDGET.as_secs()
        );
    }
    if passed < checks::CHECKS.len() {
        bail!("{} did not pass", checks::CHECKS.len() - passed);
    }
    Ok(())
}
