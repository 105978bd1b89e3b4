//! Subtables by number, in pieces that versions share: a version is cloned for each change that is published, and where there are
//! thousands of subtables a count for each of them would be most of what a change costs.

use std::ops::{Index, IndexMut};
use std::sync::Arc;

/// Places in a piece. Few: the first change of one copies it.
const PIECE: usize = 16;

/// A growing array.
pub(crate) struct Slots<T> {
    pieces: Vec<Arc<Vec<T>>>,
    len: usize,
}

impl<T> Clone for Slots<T> {
    fn clone(&self) -> Self {
        Slots { pieces: self.pieces.clone(), len: self.len }
    }
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots { pieces: Vec::new(), len: 0 }
    }
}

impl<T: Clone> Slots<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn get(&self, i: usize) -> Option<&T> {
        self.pieces.get(i / PIECE)?.get(i % PIECE)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flat_map(|p| p.iter())
    }

    pub(crate) fn push(&mut self, t: T) {
        if self.len.is_multiple_of(PIECE) {
            self.pieces.push(Arc::new(Vec::with_capacity(PIECE)));
        }
        if let Some(p) = self.pieces.last_mut() {
            Arc::make_mut(p).push(t);
            self.len += 1;
        }
    }
}

impl<T> Index<usize> for Slots<T> {
    type Output = T;
    fn index(&self, i: usize) -> &T {
        &self.pieces[i / PIECE][i % PIECE]
    }
}

impl<T: Clone> IndexMut<usize> for Slots<T> {
    fn index_mut(&mut self, i: usize) -> &mut T {
        &mut Arc::make_mut(&mut self.pieces[i / PIECE])[i % PIECE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_shares_what_is_not_changed() {
        let mut a = Slots::default();
        (0..100).for_each(|i| a.push(i));
        let before = a.clone();
        a[40] = 7;
        a.push(100);
        assert_eq!((before[40], a[40], before.len(), a.len()), (40, 7, 100, 101));
        assert_eq!((before.get(100), a.get(100), a.get(101)), (None, Some(&100), None));
        assert!(before.iter().copied().eq(0..100));
        let shared = before.pieces.iter().zip(&a.pieces).filter(|(x, y)| Arc::ptr_eq(x, y)).count();
        assert_eq!(shared, before.pieces.len() - 2);
    }
}
