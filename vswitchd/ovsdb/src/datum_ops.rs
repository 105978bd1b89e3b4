//! Differences between values, and what follows from them: diffs for the log and for monitors, unions, subtraction.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::{Atom, ColumnType, Datum};

/// Which side of a comparison an element is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// In the old value only.
    Removed,
    /// In the new value only.
    Added,
}

/// Two slices without what they begin and end with in common. Large sets usually differ in one place.
fn trimmed<'a, T: PartialEq>(a: &'a [T], b: &'a [T]) -> (&'a [T], &'a [T]) {
    if std::ptr::eq(a, b) {
        return (&[], &[]);
    }
    let head = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[head..], &b[head..]);
    let tail = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
    (&a[..a.len() - tail], &b[..b.len() - tail])
}

/// Calls `f` with each element (and value, in maps) that is not in both. A key whose value changed comes twice.
pub fn each_difference(old: &Datum, new: &Datum, mut f: impl FnMut(Side, &Atom, Option<&Atom>)) {
    let (a, b) = trimmed(old.atoms(), new.atoms());
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    loop {
        let order = match (a.peek(), b.peek()) {
            (Some(x), Some(y)) => x.cmp(y),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => break,
        };
        if order == Ordering::Equal {
            a.next();
            b.next();
        } else if order == Ordering::Less {
            a.next().into_iter().for_each(|x| f(Side::Removed, x, None));
        } else {
            b.next().into_iter().for_each(|x| f(Side::Added, x, None));
        }
    }
    let (a, b) = trimmed(old.pairs(), new.pairs());
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    loop {
        let order = match (a.peek(), b.peek()) {
            (Some(x), Some(y)) => x.0.cmp(&y.0),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => break,
        };
        let removed = if order == Ordering::Greater { None } else { a.next() };
        let added = if order == Ordering::Less { None } else { b.next() };
        if let (Some(x), Some(y)) = (removed, added)
            && x.1 == y.1
        {
            continue;
        }
        removed.into_iter().for_each(|(k, v)| f(Side::Removed, k, Some(v)));
        added.into_iter().for_each(|(k, v)| f(Side::Added, k, Some(v)));
    }
}

impl Datum {
    /// The difference that leads from `self` to `new` (ovsdb-server(7), "update2"; also the log's `_is_diff`).
    ///
    /// For a column of at most one element it is the new value. For a set, the elements that are in one of the two.
    /// For a map, pairs that go as they were, pairs that come or change as they will be.
    pub fn diff(&self, new: &Self, ty: &ColumnType) -> Self {
        if !ty.is_composite() {
            return new.clone();
        }
        if ty.is_map() {
            let mut out: Vec<(Atom, Atom)> = Vec::new();
            each_difference(self, new, |_, k, v| {
                let Some(v) = v else { return };
                match out.last_mut().filter(|l| l.0 == *k) {
                    // The second mention of a key is its new value.
                    Some(last) => last.1 = v.clone(),
                    None => out.push((k.clone(), v.clone())),
                }
            });
            return Self::from_sorted_pairs(out);
        }
        let mut out = Vec::new();
        each_difference(self, new, |_, k, _| out.push(k.clone()));
        Self::from_sorted(out)
    }

    /// Applies a difference to `self`. The number of elements is for the caller to check.
    pub fn apply_diff(&self, diff: &Self, ty: &ColumnType) -> Self {
        if !ty.is_composite() {
            return diff.clone();
        }
        if !ty.is_map() {
            // Symmetric difference is its own inverse.
            return self.diff(diff, ty);
        }
        let (mut a, mut b) = (self.pairs().iter().peekable(), diff.pairs().iter().peekable());
        let mut out = Vec::with_capacity(self.len() + diff.len());
        loop {
            let order = match (a.peek(), b.peek()) {
                (Some(x), Some(y)) => x.0.cmp(&y.0),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return Self::from_sorted_pairs(out),
            };
            let old = if order == Ordering::Greater { None } else { a.next() };
            let new = if order == Ordering::Less { None } else { b.next() };
            match (old, new) {
                (Some(x), Some(y)) if x.1 == y.1 => {}
                (_, Some(y)) => out.push(y.clone()),
                (Some(x), None) => out.push(x.clone()),
                (None, None) => {}
            }
        }
    }

    /// Adds the elements of `other` that are missing; a map keeps the values of the keys that it has.
    ///
    /// Works in place if nothing else shares the value, so that a transaction may add elements one by one.
    pub(crate) fn union(&mut self, other: &Self) {
        for a in other.atoms() {
            match self {
                Self::Empty => *self = Self::One(a.clone()),
                Self::One(b) => {
                    if a != b {
                        *self = Self::from_atoms(vec![a.clone(), b.clone()]);
                    }
                }
                Self::Set(s) => {
                    if let Err(at) = s.binary_search(a) {
                        Arc::make_mut(s).insert(at, a.clone());
                    }
                }
                Self::Map(_) => {}
            }
        }
        if other.pairs().is_empty() {
            return;
        }
        if let Self::Map(m) = self {
            for (k, v) in other.pairs() {
                if let Err(at) = m.binary_search_by(|(x, _)| x.cmp(k)) {
                    Arc::make_mut(m).insert(at, (k.clone(), v.clone()));
                }
            }
        } else {
            *self = other.clone();
        }
    }

    /// Takes the elements of `other` out; for a map, `other` is either a set of keys or a map of exact pairs.
    pub(crate) fn subtract(&mut self, other: &Self) {
        match self {
            Self::Map(_) => {
                let gone = |k: &Atom, v: &Atom| match other {
                    Self::Map(_) => other.value_of(k) == Some(v),
                    _ => other.has_key(k),
                };
                self.retain_pairs(|k, v| !gone(k, v));
            }
            _ => self.retain_atoms(|a| !other.has_key(a)),
        }
    }

    /// Keeps the elements of a set that `keep` wants.
    pub(crate) fn retain_atoms(&mut self, mut keep: impl FnMut(&Atom) -> bool) {
        match self {
            Self::One(a) => {
                if !keep(a) {
                    *self = Self::Empty;
                }
            }
            Self::Set(s) => {
                // Looked at first: nothing to remove is the usual case and must not copy.
                if s.iter().all(&mut keep) {
                    return;
                }
                let left: Vec<_> = s.iter().filter(|a| keep(a)).cloned().collect();
                *self = Self::from_sorted(left);
            }
            Self::Empty | Self::Map(_) => {}
        }
    }

    /// Keeps the pairs of a map that `keep` wants.
    pub(crate) fn retain_pairs(&mut self, mut keep: impl FnMut(&Atom, &Atom) -> bool) {
        if let Self::Map(m) = self {
            if m.iter().all(|(k, v)| keep(k, v)) {
                return;
            }
            let left: Vec<_> = m.iter().filter(|(k, v)| keep(k, v)).cloned().collect();
            *self = Self::from_sorted_pairs(left);
        }
    }

    /// True if each element (pair) of `self` is in `other`.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.atoms().iter().all(|a| other.has_key(a))
            && self.pairs().iter().all(|(k, v)| other.value_of(k) == Some(v))
    }

    /// True if no element (pair) of `self` is in `other`.
    pub fn is_disjoint(&self, other: &Self) -> bool {
        !self.atoms().iter().any(|a| other.has_key(a))
            && !self.pairs().iter().any(|(k, v)| other.value_of(k) == Some(v))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AtomType;
    use crate::types::UNLIMITED;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn set_type() -> ColumnType {
        ColumnType { min: 0, max: UNLIMITED, ..AtomType::Integer.into() }
    }

    fn map_type() -> ColumnType {
        ColumnType { value: Some(AtomType::Integer.into()), ..set_type() }
    }

    fn set(s: &BTreeSet<i64>) -> Datum {
        Datum::from_atoms(s.iter().map(|i| Atom::from(*i)).collect())
    }

    fn map(m: &BTreeMap<i64, i64>) -> Datum {
        Datum::from_pairs(m.iter().map(|(k, v)| (Atom::from(*k), Atom::from(*v))).collect())
    }

    proptest! {
        #[test]
        fn sets_behave_like_plain_sets(
            a in prop::collection::btree_set(0..9_i64, 0..6),
            b in prop::collection::btree_set(0..9_i64, 0..6),
        ) {
            let (x, y) = (set(&a), set(&b));
            let d = x.diff(&y, &set_type());
            prop_assert_eq!(&d, &set(&a.symmetric_difference(&b).copied().collect()));
            prop_assert_eq!(x.apply_diff(&d, &set_type()), y.clone());
            let mut u = x.clone();
            u.union(&y);
            prop_assert_eq!(u, set(&a.union(&b).copied().collect()));
            let mut m = x.clone();
            m.subtract(&y);
            prop_assert_eq!(m, set(&a.difference(&b).copied().collect()));
            prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
            prop_assert_eq!(x.is_disjoint(&y), a.is_disjoint(&b));
        }

        #[test]
        fn maps_behave_like_plain_maps(
            a in prop::collection::btree_map(0..6_i64, 0..3_i64, 0..5),
            b in prop::collection::btree_map(0..6_i64, 0..3_i64, 0..5),
        ) {
            let (x, y) = (map(&a), map(&b));
            let d = x.diff(&y, &map_type());
            prop_assert_eq!(x.apply_diff(&d, &map_type()), y.clone());
            for (k, v) in d.pairs() {
                let k = k.as_integer().unwrap();
                let v = v.as_integer().unwrap();
                prop_assert!(a.get(&k) != b.get(&k));
                prop_assert_eq!(Some(&v), b.get(&k).or(a.get(&k)));
            }
            let mut u = x.clone();
            u.union(&y);
            let mut plain = b.clone();
            plain.extend(a.clone());
            prop_assert_eq!(u, map(&plain));
            let mut exact = x.clone();
            exact.subtract(&y);
            let left = a.iter().filter(|(k, v)| b.get(k) != Some(v)).map(|(k, v)| (*k, *v)).collect();
            prop_assert_eq!(exact, map(&left));
            let mut by_key = x.clone();
            by_key.subtract(&set(&b.keys().copied().collect()));
            let left = a.iter().filter(|(k, _)| !b.contains_key(k)).map(|(k, v)| (*k, *v)).collect();
            prop_assert_eq!(by_key, map(&left));
        }
    }
}
