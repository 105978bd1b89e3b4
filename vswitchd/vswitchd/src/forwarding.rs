//! The forwarding threads: each runs one core of the software datapath.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use datapath::SoftDatapath;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// The processors that forwarding threads are pinned to, in the order of cores.
pub(crate) struct Processors(Vec<usize>);

impl Processors {
    pub(crate) fn new(processors: Vec<usize>) -> Self {
        Processors(processors)
    }

    /// That of a core; `None` when it runs wherever the system puts it.
    pub(crate) fn pinned(&self, core: usize) -> Option<usize> {
        self.0.get(core).copied()
    }

    /// The number that a core goes by where people expect a processor's.
    pub(crate) fn processor(&self, core: usize) -> usize {
        self.pinned(core).unwrap_or(core)
    }
}

/// Starts a thread for each core of `dp`, pinned to `processors` in order as far as there are any. They end soon after
/// `stop` is set and the datapath is woken.
///
/// # Errors
/// When there are no threads left, or a core was taken; what was started ends with `stop`.
pub fn start(
    dp: &SoftDatapath,
    processors: &[usize],
    stop: &Arc<AtomicBool>,
) -> std::io::Result<Vec<JoinHandle<()>>> {
    (0..dp.cores())
        .map(|i| {
            let mut core = dp.take_core(i).map_err(std::io::Error::other)?;
            let (stop, processor) = (Arc::clone(stop), processors.get(i).copied());
            std::thread::Builder::new().name(format!("fwd{i}")).spawn(move || {
                if let Some(p) = processor {
                    pin(p);
                }
                core.run(&stop);
            })
        })
        .collect()
}

/// Keeps the calling thread on one processor. A thread that cannot be pinned forwards all the same.
fn pin(processor: usize) {
    let mut set = CpuSet::new();
    let pinned = set.set(processor).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    match pinned {
        Ok(()) => tracing::info!("pinned to processor {processor}"),
        Err(e) => tracing::warn!("cannot be pinned to processor {processor}: {e}"),
    }
}
