//! What `cargo xtask lab vfio` runs inside the lab's machine beside the switch: has a rocker do DMA where its IOMMU has no mapping,
//! and then where it has, at both ends of memory that is said to be in huge pages or is not.
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

/// Memory that is large enough for huge pages, in bytes.
const LARGE_BYTES: usize = 4 << 20;
/// Where interrupt messages go on this platform (Intel VT-d 3.13): never memory's.
const MESSAGES: u64 = 0xfee0_0000;

/// Has the device fill [`BYTES`] at `at`, where `offset` of `mem` is; whether it is filled within [`LIMIT`] then.
fn fill(backing: &VfioBacking, bar: &impl Registers, at: Iova, mem: &DmaMemory, offset: usize) -> bool {
    mem.fill(offset, BYTES, BEFORE);
    bar.write64(RegOffset(regs::TEST_DMA_ADDR), at.0);
    bar.write32(RegOffset(regs::TEST_DMA_SIZE), BYTES as u32);
    bar.write32(RegOffset(regs::TEST_DMA_CTRL), regs::TEST_DMA_FILL);
    let want = u64::from_ne_bytes([regs::TEST_FILL_BYTE; 8]);
    let filled = || (0..BYTES).step_by(8).all(|o| mem.load64(offset + o) == want);
    backing.wait_until(&mut || filled(), Deadline::after(backing.now(), LIMIT)).is_ok()
}

/// The ranges that the IOMMU reports, which leave out those of messages, and memory mapped in them.
fn ranges_hold(backing: &mut VfioBacking) -> Result<String> {
    let ranges = backing.iova_ranges().to_vec();
    let shown: Vec<_> = ranges.iter().map(|r| format!("{:#x}-{:#x}", r.start, r.last)).collect();
    ensure!(!ranges.is_empty(), "no ranges");
    ensure!(ranges.iter().all(|r| !(r.start..=r.last).contains(&MESSAGES)), "{shown:?}");
    let mem = DmaMemory::new(BYTES)?;
    let mut at = Vec::new();
    for _ in 0..64 {
        at.push(backing.dma_map(&mem)?);
    }
    let inside = |a: &Iova| ranges.iter().any(|r| r.start <= a.0 && a.0 + BYTES as u64 - 1 <= r.last);
    ensure!(at.iter().all(inside), "{at:?} in {shown:?}");
    at.into_iter().try_for_each(|a| backing.dma_unmap(a))?;
    Ok(shown.join(", "))
}

fn main() -> Result<()> {
    if std::env::var_os("HOIST_GUEST").is_none() {
        bail!("this is for the inside of the lab's machine: cargo xtask lab vfio");
    }
    let address = std::env::args().nth(1).context("no PCI address")?;
    let huge = std::env::args().nth(2).as_deref() == Some("huge");
    let address = pci::parse_address(&address).with_context(|| address.clone())?;
    let mut backing = VfioBacking::open(address)?;
    let way = backing.way();
    let bar = backing.map_bar(regs::BAR_REGS)?;
    backing.set_bus_master(true)?;
    let ranges = ranges_hold(&mut backing)?;
    let mem = DmaMemory::new(LARGE_BYTES)?;
    ensure!(mem.is_huge() == huge, "in huge pages: {}", mem.is_huge());
    let before = u64::from_ne_bytes([BEFORE; 8]);
    let last = LARGE_BYTES - BYTES;
    let untouched = |o: usize| (o..o + BYTES).step_by(8).all(|o| mem.load64(o) == before);

    let at = backing.dma_map(&mem)?;
    for o in [0, last] {
        ensure!(fill(&backing, &bar, at.offset(o), &mem, o), "mapped memory was not reached at {o:#x}");
    }
    backing.dma_unmap(at)?;
    ensure!(
        !fill(&backing, &bar, at, &mem, 0) && untouched(0),
        "memory was reached after its mapping had ended"
    );
    let wild = Iova(0x40_0000_0000);
    ensure!(!fill(&backing, &bar, wild, &mem, 0) && untouched(0), "memory was reached that was never mapped");
    let at = backing.dma_map(&mem)?;
    ensure!(fill(&backing, &bar, at.offset(last), &mem, last), "the device did not survive");
    let pages = if huge { "huge pages" } else { "small pages" };
    println!(
        "by {way}, ranges {ranges}: {pages} blocked at {at:?} and {wild:?}, and reached once mapped again"
    );
    Ok(())
}
