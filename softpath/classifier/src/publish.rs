//! The table as its one writer and its many readers see it.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::version::Version;

/// A working version that only the writer sees, and the one last published.
///
/// Dereferences to the working [`Version`]. Nothing of what is done to it is visible to readers until
/// [`Classifier::publish`]; [`Classifier::revert`] takes it all back.
pub struct Classifier<R> {
    working: Version<R>,
    published: Arc<ArcSwap<Version<R>>>,
}

impl<R> Default for Classifier<R> {
    fn default() -> Self {
        Self::new(Version::new())
    }
}

impl<R> Classifier<R> {
    /// A classifier that starts with `version`, published.
    pub fn new(version: Version<R>) -> Self {
        Classifier { published: Arc::new(ArcSwap::from_pointee(version.clone())), working: version }
    }

    /// Makes everything done since the last time visible, at once.
    pub fn publish(&mut self) {
        self.published.store(Arc::new(self.working.clone()));
    }

    /// Takes back everything done since the last [`Classifier::publish`].
    pub fn revert(&mut self) {
        self.working = (**self.published.load()).clone();
    }

    /// The version last published.
    pub fn snapshot(&self) -> Arc<Version<R>> {
        self.published.load_full()
    }

    /// The cell that readers load from: keeps giving the version last published, without locks.
    pub fn reader(&self) -> Arc<ArcSwap<Version<R>>> {
        self.published.clone()
    }
}

impl<R> Deref for Classifier<R> {
    type Target = Version<R>;
    fn deref(&self) -> &Version<R> {
        &self.working
    }
}

impl<R> DerefMut for Classifier<R> {
    fn deref_mut(&mut self) -> &mut Version<R> {
        &mut self.working
    }
}
