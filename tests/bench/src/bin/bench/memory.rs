//! Bytes per megaflow, counted by an allocator that counts.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bench::softpath::{Bed, SetupError, exact_mask, frame, record};
use datapath_api::Datapath;
use flow::{Action, PortId};

/// Counts the bytes that are allocated now.
struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, l: Layout) -> *mut u8 {
        BYTES.fetch_add(l.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(l) }
    }

    unsafe fn dealloc(&self, p: *mut u8, l: Layout) {
        BYTES.fetch_sub(l.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(p, l) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Prints bytes per megaflow: of the record, and of what the datapath keeps beside it, at `n` flows.
pub fn bytes_per_megaflow(n: u32) -> Result<(), SetupError> {
    let mut bed = Bed::new(1, &[], 4)?;
    let keys: Vec<_> = (0..n).map(|i| flow::parse(&frame(i), PortId(9)).map(|p| p.key)).collect();
    let actions: Arc<[Action]> = [Action::Output(PortId(2))].into();
    let start = BYTES.load(Ordering::Relaxed);
    let records: Vec<_> = keys
        .iter()
        .flatten()
        .enumerate()
        .map(|(i, k)| record(1000 + i as u64, k, &exact_mask(), actions.clone()))
        .collect();
    let made = BYTES.load(Ordering::Relaxed);
    for r in &records {
        bed.dp.flow_put(r.clone())?;
    }
    bed.measure("settle", 1)?;
    let put = BYTES.load(Ordering::Relaxed);
    let each = |bytes: usize| bytes as f64 / f64::from(n);
    println!("{:<40} {:>10.0} bytes", format!("megaflow record, {n} flows"), each(made - start));
    println!("{:<40} {:>10.0} bytes", "  beside it, in the datapath", each(put - made));
    Ok(())
}
