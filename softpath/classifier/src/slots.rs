//! A growing array in pieces that versions share: a version is cloned for each change that is published, and a change of one
//! place copies the way from the root to it and nothing else.

use std::sync::Arc;

/// Places in a piece, as a power of two. Few: the first change of one copies it, and each place that is shared is counted, in
/// memory that is seldom at hand.
const BITS: u32 = 3;
const PIECE: usize = 1 << BITS;

#[derive(Clone)]
enum Node<T> {
    Leaf([T; PIECE]),
    Branch([Option<Arc<Node<T>>>; PIECE]),
}

/// A growing array. Places that were never set hold the default.
pub(crate) struct Slots<T> {
    root: Option<Arc<Node<T>>>,
    /// Branches above each leaf.
    height: u32,
    len: usize,
}

impl<T> Clone for Slots<T> {
    fn clone(&self) -> Self {
        Slots { root: self.root.clone(), height: self.height, len: self.len }
    }
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots { root: None, height: 0, len: 0 }
    }
}

impl<T> Slots<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn get(&self, i: usize) -> Option<&T> {
        if i >= self.len {
            return None;
        }
        let mut node = self.root.as_deref()?;
        let mut shift = self.height * BITS;
        loop {
            match node {
                Node::Leaf(items) => return items.get(i % PIECE),
                Node::Branch(below) => {
                    node = below[(i >> shift) % PIECE].as_deref()?;
                    shift -= BITS;
                }
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        // One way down for each leaf.
        (0..self.len).step_by(PIECE).flat_map(move |first| {
            let rest = (self.len - first).min(PIECE);
            (first..first + rest).filter_map(|i| self.get(i))
        })
    }
}

impl<T: Clone + Default> Slots<T> {
    fn leaf() -> Node<T> {
        Node::Leaf(std::array::from_fn(|_| T::default()))
    }

    /// Place `i`, which is made when it is not there; nothing when it is beyond the end.
    pub(crate) fn get_mut(&mut self, i: usize) -> Option<&mut T> {
        if i >= self.len {
            return None;
        }
        let mut height = self.height;
        let mut node = Arc::make_mut(self.root.get_or_insert_with(|| Arc::new(Self::leaf())));
        loop {
            match node {
                Node::Leaf(items) => return items.get_mut(i % PIECE),
                Node::Branch(below) => {
                    let next = &mut below[(i >> (height * BITS)) % PIECE];
                    height -= 1;
                    let made = || match height {
                        0 => Arc::new(Self::leaf()),
                        _ => Arc::new(Node::Branch(Default::default())),
                    };
                    node = Arc::make_mut(next.get_or_insert_with(made));
                }
            }
        }
    }

    pub(crate) fn push(&mut self, t: T) {
        if self.len == PIECE << (self.height * BITS) {
            // The tree is full: what there is becomes the first part of a higher one.
            let mut below: [Option<Arc<Node<T>>>; PIECE] = Default::default();
            below[0] = self.root.take();
            self.root = Some(Arc::new(Node::Branch(below)));
            self.height += 1;
        }
        self.len += 1;
        if let Some(place) = self.get_mut(self.len - 1) {
            *place = t;
        }
    }

    /// Takes the last away. The tree keeps its height.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let last = std::mem::take(self.get_mut(self.len.checked_sub(1)?)?);
        self.len -= 1;
        Some(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_is_as_it_was_whatever_changes() {
        let mut a = Slots::default();
        (0..5000).for_each(|i| a.push(i));
        let before = a.clone();
        *a.get_mut(40).unwrap() = 7;
        a.push(5000);
        assert_eq!((before.get(40), a.get(40), before.len(), a.len()), (Some(&40), Some(&7), 5000, 5001));
        assert_eq!((before.get(5000), a.get(5000), a.get(5001)), (None, Some(&5000), None));
        assert!(before.iter().copied().eq(0..5000));
        assert!((0..=5000).rev().all(|i| a.pop() == Some(if i == 40 { 7 } else { i })));
        assert_eq!((a.pop(), a.len(), before.len()), (None, 0, 5000));
    }

    #[test]
    fn a_change_copies_the_way_to_its_place_and_no_more() {
        let mut a = Slots::default();
        (0..4096).for_each(|i| a.push(i));
        let before = a.clone();
        *a.get_mut(4000).unwrap() = 0;
        let below = |s: &Slots<i32>| match s.root.as_deref() {
            Some(Node::Branch(b)) => b.clone(),
            _ => Default::default(),
        };
        let shared = below(&before).into_iter().flatten().zip(below(&a).into_iter().flatten());
        assert_eq!(shared.filter(|(x, y)| Arc::ptr_eq(x, y)).count(), PIECE - 1);
    }
}
