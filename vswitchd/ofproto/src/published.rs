//! The tables of a bridge as everybody sees them, and how one change is made to them.
//!
//! Who reads takes the version that is there and keeps it for as long as it likes; it never changes. So a change is made to a
//! copy that shares what stays, the way to each place that changes is copied, and the copy put in the place of the last version.
//! While controllers fill tables there is mostly nobody who reads, and all that copying is for nobody: then the version is taken out,
//! changed, and put back.
//!
//! ```text
//!   load ── there ──► the version                       change ── somebody holds it, or did of late ──► a copy, stored
//!        └─ taken out ──► waits for the writer               └─ nobody does ──► taken out, changed, put back
//! ```
//!
//! A reader that finds nothing waits for the writer, a flow-mod's time; and because it did, changes are made to copies for a while,
//! so that a core that forwards waits once in [`COPIES`] changes at most. Only what cannot fail may be done to the tables
//! themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use crate::tables::Pipeline;

/// Changes that are made to copies after a reader has had to wait.
const COPIES: u32 = 4096;

/// The version there is.
pub(crate) struct Published {
    /// None while it is being changed.
    now: ArcSwapOption<Pipeline>,
    /// So many changes are made to copies.
    copies: AtomicU32,
}

impl Published {
    pub(crate) fn new(p: Pipeline) -> Self {
        Published { now: ArcSwapOption::from_pointee(p), copies: AtomicU32::new(0) }
    }

    /// The version there is. `writer` is what those hold who change it.
    pub(crate) fn load<W>(&self, writer: &Mutex<W>) -> Arc<Pipeline> {
        loop {
            if let Some(p) = self.now.load_full() {
                return p;
            }
            self.copies.store(COPIES, Ordering::Relaxed);
            drop(writer.lock());
        }
    }

    /// Puts another version in its place. To be called by the writer.
    pub(crate) fn store(&self, p: Arc<Pipeline>) {
        self.now.store(Some(p));
    }

    /// Carries out `f`, which cannot fail, on the version there is or on a copy that takes its place. To be called by the writer,
    /// whom `f` must not ask for the version there is.
    pub(crate) fn change<T>(&self, f: impl FnOnce(&mut Pipeline) -> T) -> T {
        let copies = self.copies.load(Ordering::Relaxed);
        if copies == 0 {
            // There always is one: nobody else takes it out.
            let mut taken = Taken { from: &self.now, version: self.now.swap(None) };
            if let Some(p) = taken.version.as_mut().and_then(Arc::get_mut) {
                return f(p);
            }
        } else {
            self.copies.store(copies - 1, Ordering::Relaxed);
        }
        let mut p = self.now.load().as_deref().cloned().unwrap_or_default();
        let out = f(&mut p);
        self.store(Arc::new(p));
        out
    }
}

/// A version that is out. Goes back in the end, whatever happens.
struct Taken<'a> {
    from: &'a ArcSwapOption<Pipeline>,
    version: Option<Arc<Pipeline>>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.from.store(self.version.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(p: &Published, w: &Mutex<()>) -> u64 {
        p.load(w).generation
    }

    #[test]
    fn a_version_that_somebody_has_never_changes() {
        let (p, w) = (Published::new(Pipeline::default()), Mutex::new(()));
        let at = Arc::as_ptr(&p.load(&w));
        p.change(|p| p.generation = 1);
        assert_eq!((Arc::as_ptr(&p.load(&w)), generation(&p, &w)), (at, 1), "nobody had it");
        let kept = p.load(&w);
        p.change(|p| p.generation = 2);
        assert_eq!((kept.generation, generation(&p, &w)), (1, 2));
    }

    #[test]
    fn who_finds_it_out_waits_and_then_copies_are_made() {
        let (p, w) = (Published::new(Pipeline::default()), Mutex::new(()));
        std::thread::scope(|s| {
            let one = w.lock();
            let reader = p.change(|t| {
                let reader = s.spawn(|| generation(&p, &w));
                while p.copies.load(Ordering::Relaxed) == 0 {
                    std::thread::yield_now();
                }
                t.generation = 7;
                reader
            });
            drop(one);
            assert_eq!(reader.join().unwrap(), 7);
        });
        for n in 0..COPIES {
            p.change(|p| p.generation += 1);
            assert_eq!(p.copies.load(Ordering::Relaxed), COPIES - 1 - n);
        }
        let at = Arc::as_ptr(&p.load(&w));
        p.change(|p| p.generation += 1);
        assert_eq!(at, Arc::as_ptr(&p.load(&w)));
    }

    #[test]
    fn a_version_goes_back_when_a_change_ends_badly() {
        let (p, w) = (Published::new(Pipeline::default()), Mutex::new(()));
        let all = std::panic::AssertUnwindSafe(|| p.change(|_| panic!("as asked")));
        assert!(std::panic::catch_unwind(all).is_err());
        assert_eq!(generation(&p, &w), 0);
    }
}
