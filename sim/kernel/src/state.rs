//! State as bytes: what a checkpoint's file is made of.
//!
//! A type says with [`state!`](crate::state) which fields it has; a field that is not listed does not compile, so new state is part of checkpoints from the
//! day it exists. Bytes are read back without trust: lengths are held against what is left of the input, numbers of variants against the
//! variants, and [`State::fits`] compares what was read with what a new device of the same configuration has: sizes of tables and queues,
//! timings, everything that the configuration decides.
//!
//! Neither cycle-level nor behavioural: state is taken between two cycles.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use crate::Cycles;

/// Bytes that are not the state they should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Where in the bytes.
    pub offset: usize,
    /// What was to be read there.
    pub what: &'static str,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no {} at byte {}", self.what, self.offset)
    }
}

impl std::error::Error for Damage {}

/// Takes bytes.
#[derive(Default, Debug)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Appends.
    pub fn bytes(&mut self, b: &[u8]) {
        self.0.extend_from_slice(b);
    }

    /// A length, then as many bytes.
    pub fn block(&mut self, b: &[u8]) {
        (b.len() as u64).save(self);
        self.bytes(b);
    }

    /// All of them.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Gives them back.
#[derive(Debug)]
pub struct Reader<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// From the beginning.
    pub fn new(all: &'a [u8]) -> Self {
        Reader { all, at: 0 }
    }

    /// An error at the current place.
    pub fn damage(&self, what: &'static str) -> Damage {
        Damage { offset: self.at, what }
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// When there are not so many.
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], Damage> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.all.len());
        let end = end.ok_or(self.damage("complete value"))?;
        let b = &self.all[self.at..end];
        self.at = end;
        Ok(b)
    }

    /// What [`Writer::block`] wrote.
    ///
    /// # Errors
    /// When it is not all there.
    pub fn block(&mut self) -> Result<&'a [u8], Damage> {
        let n = self.count()?;
        self.bytes(n)
    }

    /// A number of things to follow, each of a byte at least.
    ///
    /// # Errors
    /// When the bytes that are left are fewer.
    pub fn count(&mut self) -> Result<usize, Damage> {
        let n = u64::load(self)?;
        let left = self.all.len() - self.at;
        usize::try_from(n).ok().filter(|n| *n <= left).ok_or(self.damage("plausible length"))
    }

    /// That nothing is left.
    ///
    /// # Errors
    /// When something is.
    pub fn end(&self) -> Result<(), Damage> {
        if self.at == self.all.len() { Ok(()) } else { Err(self.damage("end")) }
    }
}

/// What can be written to a checkpoint and read back.
pub trait State: Sized {
    /// Appends it.
    fn save(&self, w: &mut Writer);

    /// Reads it.
    ///
    /// # Errors
    /// When the bytes are not one of these.
    fn load(r: &mut Reader<'_>) -> Result<Self, Damage>;

    /// Whether what the configuration decides is as in `made`, a new one of the same configuration.
    fn fits(&self, made: &Self) -> bool {
        let _ = made;
        true
    }
}

/// Writes and reads a `T` that is of another crate: a codec of ours.
pub trait Foreign<T> {
    /// Appends it.
    fn save(v: &T, w: &mut Writer);

    /// Reads it.
    ///
    /// # Errors
    /// When the bytes are not one of these.
    fn load(r: &mut Reader<'_>) -> Result<T, Damage>;
}

/// Says that a type is [`State`], by its fields or variants:
///
/// ```
/// # use kernel::state;
/// struct Queue { depth: u32, items: Vec<u64>, turn: u8 }
/// state!(struct Queue { depth: fixed, items, turn });
/// enum Phase { Idle, Busy(u64) }
/// state!(enum Phase { 0 => Idle, 1 => Busy(until) });
/// ```
///
/// After a field `fixed` says that the configuration decides it, `sized` that it decides the length, `shaped` that it decides whether there
/// is one, `spare` that it is storage kept for later and begins empty, `via C` that codec `C` ([`Foreign`]) writes
/// and reads it.
#[macro_export]
macro_rules! state {
    (struct $name:ident $(<$g:ident: $b:path>)? {
        $($field:ident $(: $kind:ident $($via:ident)?)?),* $(,)?
    }) => {
        impl $(<$g: $b>)? $crate::State for $name $(<$g>)? {
            fn save(&self, w: &mut $crate::Writer) {
                let $name { $($field),* } = self;
                $($crate::state!(@save $field, w $(, $kind $($via)?)?);)*
            }
            fn load(r: &mut $crate::Reader<'_>) -> Result<Self, $crate::Damage> {
                Ok($name { $($field: $crate::state!(@load r $(, $kind $($via)?)?)),* })
            }
            fn fits(&self, made: &Self) -> bool {
                let $name { $($field),* } = self;
                true $(&& $crate::state!(@fits $field, &made.$field $(, $kind $($via)?)?))*
            }
        }
    };
    (struct $name:ident ($field:ident $(: $kind:ident $($via:ident)?)?)) => {
        impl $crate::State for $name {
            fn save(&self, w: &mut $crate::Writer) {
                let $name($field) = self;
                $crate::state!(@save $field, w $(, $kind $($via)?)?);
            }
            fn load(r: &mut $crate::Reader<'_>) -> Result<Self, $crate::Damage> {
                Ok($name($crate::state!(@load r $(, $kind $($via)?)?)))
            }
            fn fits(&self, made: &Self) -> bool {
                let $name($field) = self;
                $crate::state!(@fits $field, &made.0 $(, $kind $($via)?)?)
            }
        }
    };
    (enum $name:ident {
        $($tag:literal => $variant:ident $(($($x:ident),*))? $({ $($y:ident),* })?),* $(,)?
    }) => {
        impl $crate::State for $name {
            fn save(&self, w: &mut $crate::Writer) {
                match self {
                    $($name::$variant $(($($x),*))? $({ $($y),* })? => {
                        w.bytes(&[$tag]);
                        $($($crate::State::save($x, w);)*)?
                        $($($crate::State::save($y, w);)*)?
                    })*
                }
            }
            fn load(r: &mut $crate::Reader<'_>) -> Result<Self, $crate::Damage> {
                match <u8 as $crate::State>::load(r)? {
                    $($tag => {
                        $($(let $x = $crate::State::load(r)?;)*)?
                        $($(let $y = $crate::State::load(r)?;)*)?
                        Ok($name::$variant $(($($x),*))? $({ $($y),* })?)
                    })*
                    _ => Err(r.damage(stringify!($name))),
                }
            }
        }
    };
    (@save $f:expr, $w:expr, via $via:ident) => { <$via as $crate::Foreign<_>>::save($f, $w) };
    (@save $f:expr, $w:expr, spare) => { { let _ = $f; } };
    (@save $f:expr, $w:expr $(, $kind:ident)?) => { $crate::State::save($f, $w) };
    (@load $r:expr, via $via:ident) => { <$via as $crate::Foreign<_>>::load($r)? };
    (@load $r:expr, spare) => { Default::default() };
    (@load $r:expr $(, $kind:ident)?) => { $crate::State::load($r)? };
    (@fits $a:expr, $b:expr, fixed) => { $a == $b };
    (@fits $a:expr, $b:expr, sized) => { $a.len() == $b.len() && $crate::State::fits($a, $b) };
    (@fits $a:expr, $b:expr, shaped) => {
        $a.is_some() == $b.is_some() && $crate::State::fits($a, $b)
    };
    (@fits $a:expr, $b:expr, via $via:ident) => { { let _ = ($a, $b); true } };
    (@fits $a:expr, $b:expr, spare) => { { let _ = ($a, $b); true } };
    (@fits $a:expr, $b:expr) => { $crate::State::fits($a, $b) };
}

macro_rules! numbers {
    ($($t:ty),*) => {$(
        impl State for $t {
            fn save(&self, w: &mut Writer) {
                w.bytes(&self.to_le_bytes());
            }
            fn load(r: &mut Reader<'_>) -> Result<Self, Damage> {
                let mut b = [0; size_of::<$t>()];
                b.copy_from_slice(r.bytes(size_of::<$t>())?);
                Ok(<$t>::from_le_bytes(b))
            }
        }
    )*};
}
numbers!(u8, u16, u32, u64, u128);

impl State for usize {
    fn save(&self, w: &mut Writer) {
        (*self as u64).save(w);
    }
    fn load(r: &mut Reader<'_>) -> Result<Self, Damage> {
        usize::try_from(u64::load(r)?).map_err(|_| r.damage("size"))
    }
}

impl State for bool {
    fn save(&self, w: &mut Writer) {
        w.bytes(&[u8::from(*self)]);
    }
    fn load(r: &mut Reader<'_>) -> Result<Self, Damage> {
        match u8::load(r)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(r.damage("truth value")),
        }
    }
}

impl State for f64 {
    fn save(&self, w: &mut Writer) {
        self.to_bits().save(w);
    }
    fn load(r: &mut Reader<'_>) -> Result<Self, Damage> {
        u64::load(r).map(f64::from_bits)
    }
}

impl State for () {
    fn save(&self, _: &mut Writer) {}
    fn load(_: &mut Reader<'_>) -> Result<Self, Damage> {
        Ok(())
    }
}

impl State for Cycles {
    fn save(&self, w: &mut Writer) {
        self.0.save(w);
    }
    fn load(r: &mut Reader<'_>) -> Result<Self, Damage> {
        u64::load(r).map(Cycles)
    }
}

impl State for String {
    fn save(&self, w: &mut Writer) {
        w.block(self.as_bytes());
    }
    fn load(r: &mut Reader<'_>) -> Result<Self, Damage> {
        let b = r.block()?.to_vec();
        String::from_utf8(b).map_err(|_| r.damage("text"))
    }
}

impl<T: State> State for Option<T> {
    fn save(&self, w: &mut Writer) {
        self.is_some().save(w);
        if let Some(v) = self {
            v.save(w);
        }
    }
    fn load(r: &mut Reader<'_>) -> Result<Self, Damage> {
        Ok(if bool::load(r)? { Some(T::load(r)?) } else { None })
    }
    fn fits(&self, made: &Self) -> bool {
        match (self, made) {
            (Some(a), Some(b)) => a.fits(b),
            _ => true,
        }
    }
}

impl<T: State, E: State> State for Result<T, E> {
    fn save(&self, w: &mut Writer) {
        self.is_ok().save(w);
        match self {
            Ok(v) => v.save(w),
            Err(e) => e.save(w),
        }
    }
    fn load(r: &mut Reader<'_>) -> Result<Self, Damage> {
        Ok(if bool::load(r)? { Ok(T::load(r)?) } else { Err(E::load(r)?) })
    }
}

macro_rules! holders {
    ($($h:ident),*) => {$(
        impl<T: State> State for $h<T> {
            fn save(&self, w: &mut Writer) {
                T::save(self, w);
            }
            fn load(r: &mut Reader<'_>) -> Result<Self, Damage> {
                T::load(r).map($h::new)
            }
            fn fits(&self, made: &Self) -> bool {
                T::fits(self, made)
            }
        }
    )*};
}
holders!(Box, Arc);

macro_rules! lists {
    ($($l:ident),*) => {$(
        impl<T: State> State for $l<T> {
            fn save(&self, w: &mut Writer) {
                (self.len() as u64).save(w);
                self.iter().for_each(|v| v.save(w));
            }
            fn load(r: &mut Reader<'_>) -> Result<Self, Damage> {
                let n = r.count()?;
                // Grows as elements come: a length that lies takes no memory.
                (0..n).map(|_| T::load(r)).collect()
            }
            fn fits(&self, made: &Self) -> bool {
                self.iter().zip(made).all(|(a, b)| a.fits(b))
            }
        }
    )*};
}
lists!(Vec, VecDeque);

impl<T: State> State for Box<[T]> {
    fn save(&self, w: &mut Writer) {
        (self.len() as u64).save(w);
        self.iter().for_each(|v| v.save(w));
    }
    fn load(r: &mut Reader<'_>) -> Result<Self, Damage> {
        Vec::load(r).map(Vec::into_boxed_slice)
    }
}

impl<T: State, const N: usize> State for [T; N] {
    fn save(&self, w: &mut Writer) {
        self.iter().for_each(|v| v.save(w));
    }
    fn load(r: &mut Reader<'_>) -> Result<Self, Damage> {
        let all: Vec<T> = (0..N).map(|_| T::load(r)).collect::<Result<_, _>>()?;
        all.try_into().map_err(|_| r.damage("array"))
    }
    fn fits(&self, made: &Self) -> bool {
        self.iter().zip(made).all(|(a, b)| a.fits(b))
    }
}

macro_rules! tuples {
    ($($t:ident $i:tt),*) => {
        impl<$($t: State),*> State for ($($t,)*) {
            fn save(&self, w: &mut Writer) {
                $(self.$i.save(w);)*
            }
            fn load(r: &mut Reader<'_>) -> Result<Self, Damage> {
                Ok(($($t::load(r)?,)*))
            }
            fn fits(&self, made: &Self) -> bool {
                true $(&& self.$i.fits(&made.$i))*
            }
        }
    };
}
tuples!(A 0, B 1);
tuples!(A 0, B 1, C 2);
tuples!(A 0, B 1, C 2, D 3);

impl<K: State + Ord, V: State> State for BTreeMap<K, V> {
    fn save(&self, w: &mut Writer) {
        (self.len() as u64).save(w);
        for (k, v) in self {
            k.save(w);
            v.save(w);
        }
    }
    fn load(r: &mut Reader<'_>) -> Result<Self, Damage> {
        let n = r.count()?;
        (0..n).map(|_| Ok((K::load(r)?, V::load(r)?))).collect()
    }
}

/// In order of the keys, so that equal maps have equal bytes.
impl<K: State + Ord + Hash + Clone, V: State> State for HashMap<K, V> {
    fn save(&self, w: &mut Writer) {
        let mut all: Vec<_> = self.iter().collect();
        all.sort_by_key(|(k, _)| *k);
        (all.len() as u64).save(w);
        for (k, v) in all {
            k.save(w);
            v.save(w);
        }
    }
    fn load(r: &mut Reader<'_>) -> Result<Self, Damage> {
        let n = r.count()?;
        (0..n).map(|_| Ok((K::load(r)?, V::load(r)?))).collect()
    }
}

/// In order, likewise.
impl<K: State + Ord + Hash> State for HashSet<K> {
    fn save(&self, w: &mut Writer) {
        let mut all: Vec<_> = self.iter().collect();
        all.sort();
        (all.len() as u64).save(w);
        all.iter().for_each(|k| k.save(w));
    }
    fn load(r: &mut Reader<'_>) -> Result<Self, Damage> {
        let n = r.count()?;
        (0..n).map(|_| K::load(r)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Pipe, Rng, Timing};

    #[derive(Clone, PartialEq, Debug)]
    struct Queue {
        depth: u32,
        items: Vec<(u64, Option<bool>)>,
        phase: Phase,
        named: HashMap<u8, String>,
    }
    #[derive(Clone, PartialEq, Debug)]
    enum Phase {
        Idle,
        Busy(u64, u8),
        Named { who: [u16; 3] },
    }
    state!(struct Queue { depth: fixed, items: sized, phase, named });
    state!(enum Phase { 0 => Idle, 1 => Busy(until, who), 2 => Named { who } });

    fn queue() -> Queue {
        Queue {
            depth: 7,
            items: vec![(1, None), (u64::MAX, Some(true))],
            phase: Phase::Named { who: [1, 2, 0xffff] },
            named: [(3, "c".into()), (1, "a".into())].into(),
        }
    }

    fn bytes(v: &impl State) -> Vec<u8> {
        let mut w = Writer::default();
        v.save(&mut w);
        w.finish()
    }

    fn back<T: State>(b: &[u8]) -> Result<T, Damage> {
        let mut r = Reader::new(b);
        let v = T::load(&mut r)?;
        r.end()?;
        Ok(v)
    }

    #[test]
    fn what_was_saved_is_read_back() {
        let q = queue();
        assert_eq!(back::<Queue>(&bytes(&q)), Ok(q.clone()));
        for phase in [Phase::Idle, Phase::Busy(9, 1)] {
            assert_eq!(back::<Phase>(&bytes(&phase)), Ok(phase));
        }
        let mut p = Pipe::new(Timing::new(3, 2, 8).unwrap());
        p.push(Cycles(5), 77u32).unwrap();
        let mut again: Pipe<u32> = back(&bytes(&p)).unwrap();
        assert!(again.fits(&p) && !again.fits(&Pipe::new(Timing::new(3, 2, 9).unwrap())));
        assert_eq!((again.pop(Cycles(7)), again.pop(Cycles(8))), (None, Some(77)));
    }

    #[test]
    fn what_the_configuration_decides_is_compared() {
        let (q, mut o) = (queue(), queue());
        (o.phase, o.named) = (Phase::Idle, HashMap::new());
        assert!(o.fits(&q));
        assert!(!Queue { depth: 8, ..q.clone() }.fits(&q));
        o.items.pop();
        assert!(!o.fits(&q));
    }

    #[test]
    fn damaged_bytes_are_refused_and_take_no_memory() {
        let whole = bytes(&queue());
        for n in 0..whole.len() {
            assert!(back::<Queue>(&whole[..n]).is_err(), "the first {n} bytes");
        }
        assert_eq!(back::<Phase>(&[3]), Err(Damage { offset: 1, what: "Phase" }));
        assert_eq!(
            back::<Vec<u64>>(&u64::MAX.to_le_bytes()),
            Err(Damage { offset: 8, what: "plausible length" })
        );
        assert_eq!(back::<bool>(&[2]).unwrap_err().to_string(), "no truth value at byte 1");
        let mut r = Rng::new(1);
        for _ in 0..2000 {
            let mut b = whole.clone();
            let at = r.below(b.len() as u64) as usize;
            b[at] ^= 1 << r.below(8);
            let _ = back::<Queue>(&b);
        }
    }
}
