//! What `cargo xtask lab vfio` runs inside the lab's machine beside the switch: has a rocker do DMA where its IOMMU has no mapping,
//! and then where it has.
#![forbid(unsafe_code)]

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clock::Deadline;
use device::{DeviceBacking, DmaMemory, Iova, RegOffset, Registers};
use pci::VfioBacking;
use rocker_defs::regs;

/// Bytes of the memory that is and is not reached.
const BYTES: usize = 4096;
/// What it holds before.
const BEFORE: u8 = 0x55;
/// How long the device may take. It does it at once.
const LIMIT: Duration = Duration::from_secs(2);

/// Has the device fill `BYTES` at `at`; whether all of `mem` is filled within [`LIMIT`] then.
fn fill(backing: &VfioBacking, bar: &impl Registers, at: Iova, mem: &DmaMemory) -> bool {
    mem.fill(0, BYTES, BEFORE);
    bar.write64(RegOffset(regs::TEST_DMA_ADDR), at.0);
    bar.write32(RegOffset(regs::TEST_DMA_SIZE), BYTES as u32);
    bar.write32(RegOffset(regs::TEST_DMA_CTRL), regs::TEST_DMA_FILL);
    let want = u64::from_ne_bytes([regs::TEST_FILL_BYTE; 8]);
    let filled = || (0..BYTES).step_by(8).all(|o| mem.load64(o) == want);
    backing.wait_until(&mut || filled(), Deadline::after(backing.now(), LIMIT)).is_ok()
}

fn main() -> Result<()> {
    if std::env::var_os("HOIST_GUEST").is_none() {
        bail!("this is for the inside of the lab's machine: cargo xtask lab vfio");
    }
    let address = std::env::args().nth(1).context("no PCI address")?;
    let address = pci::parse_address(&address).with_context(|| address.clone())?;
    let mut backing = VfioBacking::open(address)?;
    let bar = backing.map_bar(regs::BAR_REGS)?;
    backing.set_bus_master(true)?;
    let mem = DmaMemory::new(BYTES)?;
    let before = u64::from_ne_bytes([BEFORE; 8]);
    let untouched = || (0..BYTES).step_by(8).all(|o| mem.load64(o) == before);

    let at = backing.dma_map(&mem)?;
    ensure!(fill(&backing, &bar, at, &mem), "mapped memory was not reached");
    backing.dma_unmap(at)?;
    ensure!(!fill(&backing, &bar, at, &mem) && untouched(), "memory was reached after its mapping had ended");
    let wild = Iova(0x40_0000_0000);
    ensure!(!fill(&backing, &bar, wild, &mem) && untouched(), "memory was reached that was never mapped");
    let at = backing.dma_map(&mem)?;
    ensure!(fill(&backing, &bar, at, &mem), "the device did not survive");
    println!("blocked at {at:?} and {wild:?}, and reached once mapped again");
    Ok(())
}
