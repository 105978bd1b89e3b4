//! Tunnel options (RFC 8926 3.5) as fields: which option `tun_metadata0` to `tun_metadata63` are, and where in a key.
//!
//! An option is looked at only when a controller has mapped it to a field. The mapping is the process's, as port numbers of a
//! datapath are: a key means the same on every bridge, to every datapath, and in every text. A mapped option has a run of the 32-bit
//! units of the words for options, and a bit that says whether the packet has it:
//!
//! ```text
//!   word   36             37            38                  52
//!        +-------------+-------------+-------------+-----+-------------+
//!        | 63 .. 1 0   | unit 0 │ 1  | unit 2 │ 3  | ... | unit 30 │ 31|     bit n of word 36: the option of
//!        +-------------+-------------+-------------+-----+-------------+     tun_metadata n is there
//! ```
//!
//! An option's units need not be neighbours: the first has its first bytes. What is not mapped leaves no trace in a key, so that it
//! costs no megaflow, and packets without options have none of these words.
//!
//! Readers take no lock. That a key was made by an older mapping is possible only where a mapping has been taken back and another
//! one made; a switch takes none back that a flow uses, and makes its flow records anew when mappings change.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::OpenError;
use crate::field::FieldId;
use crate::key::{Match, Words};
use crate::text::value::hex;

/// Fields that options can be mapped to.
pub const FIELDS: u8 = 64;
/// Bytes that all mapped options have together at most.
pub const MAX_BYTES: u32 = 128;
/// Bytes of the longest option (RFC 8926 3.5: five bits, in units of four).
pub const MAX_OPTION_BYTES: u8 = 124;
/// Bytes of all options of a header at most (RFC 8926 3.4: six bits, in units of four), with the heads of each.
pub const MAX_HEADER_BYTES: usize = 252;

/// The word that says which options are there.
const PRESENT: usize = 36;
/// The first of the words with their bytes.
const FIRST: usize = 37;

/// An option, and the field it is mapped to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Mapping {
    /// The field: `tun_metadata` with this number.
    pub index: u8,
    /// Class.
    pub class: u16,
    /// Type; the highest bit says that who does not know it must drop the packet.
    pub kind: u8,
    /// Bytes without the head; a multiple of 4, at most [`MAX_OPTION_BYTES`].
    pub bytes: u8,
}

impl Mapping {
    fn packed(self) -> u64 {
        1 << 32 | u64::from(self.bytes) << 24 | u64::from(self.kind) << 16 | u64::from(self.class)
    }

    fn unpacked(index: u8, v: u64) -> Option<Mapping> {
        (v >> 32 != 0).then_some(Mapping {
            index,
            class: v as u16,
            kind: (v >> 16) as u8,
            bytes: (v >> 24) as u8,
        })
    }

    /// Whether an option of a header is this one.
    fn is(&self, raw: &Raw<'_>) -> bool {
        (self.class, self.kind, usize::from(self.bytes)) == (raw.class, raw.kind, raw.data.len())
    }

    /// The field.
    pub fn field(self) -> Option<FieldId> {
        FieldId::tun_metadata(self.index)
    }
}

/// Which fields are mapped.
static MAPPED: AtomicU64 = AtomicU64::new(0);
/// To what each is, see [`Mapping::packed`].
static MAPPINGS: [AtomicU64; FIELDS as usize] = [const { AtomicU64::new(0) }; FIELDS as usize];
/// The units that each has.
static UNITS: [AtomicU64; FIELDS as usize] = [const { AtomicU64::new(0) }; FIELDS as usize];
/// How many have asked for each.
static USERS: Mutex<[u32; FIELDS as usize]> = Mutex::new([0; FIELDS as usize]);

/// Bits of a set, lowest first.
fn bits(mut set: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let n = (set != 0).then(|| set.trailing_zeros())?;
        set &= set - 1;
        Some(n)
    })
}

fn units(n: u8) -> u64 {
    UNITS.get(usize::from(n)).map_or(0, |u| u.load(Ordering::Acquire))
}

/// Why an option cannot be mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MapError {
    /// The field is mapped to another option.
    #[error("the field means another option already")]
    Taken,
    /// There is no room for its bytes.
    #[error("all mapped options together would have more than 128 bytes")]
    Full,
}

/// Maps an option, or finds it mapped already. Each call that succeeds wants one of [`unmap`].
///
/// # Errors
/// [`MapError`]; nothing has changed then.
pub fn map(m: Mapping) -> Result<(), MapError> {
    let mut users = USERS.lock().unwrap_or_else(PoisonError::into_inner);
    let i = usize::from(m.index);
    let Some(count) = users.get_mut(i) else { return Err(MapError::Full) };
    if *count > 0 {
        if MAPPINGS[i].load(Ordering::Relaxed) != m.packed() {
            return Err(MapError::Taken);
        }
        *count += 1;
        return Ok(());
    }
    let used = UNITS.iter().fold(0, |all, u| all | u.load(Ordering::Relaxed));
    let wanted = usize::from(m.bytes / 4);
    let own: Vec<u32> = bits(!used & u64::from(u32::MAX)).take(wanted).collect();
    if own.len() < wanted {
        return Err(MapError::Full);
    }
    *count = 1;
    UNITS[i].store(own.iter().fold(0, |set, u| set | 1 << u), Ordering::Release);
    MAPPINGS[i].store(m.packed(), Ordering::Release);
    MAPPED.fetch_or(1 << i, Ordering::Release);
    Ok(())
}

/// Takes a [`map`] back.
pub fn unmap(m: Mapping) {
    let mut users = USERS.lock().unwrap_or_else(PoisonError::into_inner);
    let i = usize::from(m.index);
    let Some(count) = users.get_mut(i).filter(|c| **c > 0) else { return };
    if MAPPINGS[i].load(Ordering::Relaxed) != m.packed() {
        return;
    }
    *count -= 1;
    if *count == 0 {
        MAPPED.fetch_and(!(1 << i), Ordering::Release);
        MAPPINGS[i].store(0, Ordering::Release);
        UNITS[i].store(0, Ordering::Release);
    }
}

/// To which option field `n` is mapped.
pub fn mapping(n: u8) -> Option<Mapping> {
    Mapping::unpacked(n, MAPPINGS.get(usize::from(n))?.load(Ordering::Acquire))
}

/// Whether there is any mapping.
pub fn any_mapped() -> bool {
    MAPPED.load(Ordering::Acquire) != 0
}

/// Every mapping, in the order of fields.
pub fn mappings() -> impl Iterator<Item = Mapping> {
    bits(MAPPED.load(Ordering::Acquire)).filter_map(|n| mapping(n as u8))
}

/// Bits of the value of field `n`; 0 when it is not mapped.
pub fn width(n: u8) -> u16 {
    mapping(n).map_or(0, |m| u16::from(m.bytes) * 8)
}

/// A unit's word, and its place in it.
fn place(unit: u32) -> (usize, u32) {
    (FIRST + unit as usize / 2, if unit.is_multiple_of(2) { 32 } else { 0 })
}

/// The value of field `n`, right-aligned; of a longer one the last 16 bytes.
pub(crate) fn get<const N: usize, R>(w: &Words<N, R>, n: u8) -> u128 {
    bits(units(n)).fold(0, |v, u| {
        let (word, shift) = place(u);
        v << 32 | u128::from((w.word(word) >> shift) as u32)
    })
}

/// Sets bits of field `n`, and that it is there.
pub(crate) fn set<const N: usize, R>(w: &mut Words<N, R>, n: u8, mut v: u128, mut mask: u128) {
    if mapping(n).is_none() {
        return;
    }
    w.or_word(PRESENT, 1 << n);
    let own = units(n);
    // The whole of a longer option; all ones are those of a mask.
    let whole = mask == u128::MAX;
    let ones = whole && v == u128::MAX;
    for u in (0..32).rev().filter(|u| own >> u & 1 != 0) {
        let (word, shift) = place(u);
        let (bits, m) = (u64::from(v as u32) << shift, u64::from(mask as u32) << shift);
        w.set_word(word, w.word(word) & !m | bits & m);
        (v, mask) = (if ones { v } else { v >> 32 }, if whole { mask } else { mask >> 32 });
    }
}

/// Whether the packet (or, of a mask, whether it matters that it) has the option of field `n`.
pub fn is_there<const N: usize, R>(w: &Words<N, R>, n: u8) -> bool {
    w.word(PRESENT) >> n & 1 != 0
}

/// Takes the option of field `n` away.
pub fn remove<const N: usize, R>(w: &mut Words<N, R>, n: u8) {
    w.set_word(PRESENT, w.word(PRESENT) & !(1 << n));
    write_bytes(w, n, &[]);
}

/// Makes it matter whether a packet has the option of field `n`.
pub fn require_presence<const N: usize, R>(mask: &mut Words<N, R>, n: u8) {
    mask.or_word(PRESENT, 1 << n);
}

/// Makes all bits of field `n`, and whether it is there, ones: of a mask, what matters.
pub fn cover<const N: usize, R>(w: &mut Words<N, R>, n: u8) {
    w.or_word(PRESENT, 1 << n);
    write_bytes(w, n, &[0xff; MAX_OPTION_BYTES as usize]);
}

/// The bytes of field `n`.
pub fn bytes<const N: usize, R>(w: &Words<N, R>, n: u8) -> Vec<u8> {
    bits(units(n))
        .flat_map(|u| {
            let (word, shift) = place(u);
            ((w.word(word) >> shift) as u32).to_be_bytes()
        })
        .collect()
}

/// Sets the bytes of field `n`, but not that it is there; what `b` has too few is zero, what it has too many is left out.
pub(crate) fn write_bytes<const N: usize, R>(w: &mut Words<N, R>, n: u8, b: &[u8]) {
    let mut chunks = b.chunks_exact(4);
    for u in bits(units(n)) {
        let four = chunks.next().and_then(|c| c.first_chunk()).copied().unwrap_or_default();
        let (word, shift) = place(u);
        let keep = w.word(word) & !(u64::from(u32::MAX) << shift);
        w.set_word(word, keep | u64::from(u32::from_be_bytes(four)) << shift);
    }
}

/// Requires of field `n` that the bytes that `mask` has be those of `value`, and that it is there. Both are right-aligned.
pub fn require<const N: usize>(m: &mut Match<N>, n: u8, value: &[u8], mask: &[u8]) {
    let whole = usize::from(width(n) / 8);
    let aligned = |b: &[u8]| {
        let mut all = vec![0; whole.saturating_sub(b.len())];
        all.extend(&b[b.len().saturating_sub(whole)..]);
        all
    };
    let (mut key, mut wc) = (*m.key(), *m.mask());
    key.or_word(PRESENT, 1 << n);
    wc.or_word(PRESENT, 1 << n);
    write_bytes(&mut key, n, &aligned(value));
    write_bytes(&mut wc, n, &aligned(mask));
    *m = Match::new(&key, &wc);
}

/// Requires that a packet does not have the option of field `n`.
pub fn require_absent<const N: usize>(m: &mut Match<N>, n: u8) {
    let (mut key, mut wc) = (*m.key(), *m.mask());
    remove(&mut key, n);
    wc.or_word(PRESENT, 1 << n);
    *m = Match::new(&key, &wc);
}

/// The fields of the options that matter in `mask`.
pub(crate) fn matter<const N: usize, R>(mask: &Words<N, R>) -> impl Iterator<Item = FieldId> + '_ {
    let any = any_word(mask);
    let of_it = |m: &Mapping| is_there(mask, m.index) || bytes(mask, m.index).iter().any(|b| *b != 0);
    mappings().filter(move |m| any && of_it(m)).filter_map(Mapping::field)
}

/// What matters of words for options, cleared from a mask.
pub fn clear<const N: usize, R>(w: &mut Words<N, R>) {
    for i in PRESENT..FIRST + MAX_BYTES as usize / 8 {
        w.set_word(i, 0);
    }
}

/// Whether a field of the table is a word for options.
pub fn is_word(f: FieldId) -> bool {
    f.option().is_none() && f >= FieldId::TunOptions && f <= FieldId::TunOption15
}

/// The words for options.
pub fn words() -> impl Iterator<Item = FieldId> {
    let (first, last) = (FieldId::TunOptions as usize, FieldId::TunOption15 as usize);
    crate::field::FIELDS[first..=last].iter().map(|f| f.id)
}

/// Whether one of the words for options is not zero.
pub(crate) fn any_word<const N: usize, R>(w: &Words<N, R>) -> bool {
    const ALL: u64 = ((1 << (1 + MAX_BYTES / 8)) - 1) << PRESENT;
    w.present() & ALL != 0
}

/// Whether there is an option.
#[inline]
pub fn any<const N: usize, R>(w: &Words<N, R>) -> bool {
    w.word(PRESENT) != 0
}

/// The options that the packet has, as a header has them: heads and bytes, in the order of fields. At most
/// [`MAX_HEADER_BYTES`]; what does not fit is left out.
pub fn header<const N: usize, R>(w: &Words<N, R>) -> Vec<u8> {
    let mut out = Vec::new();
    for m in mappings().filter(|m| is_there(w, m.index)) {
        if out.len() + 4 + usize::from(m.bytes) <= MAX_HEADER_BYTES {
            out.extend(m.class.to_be_bytes());
            out.extend([m.kind, m.bytes / 4]);
            out.extend(bytes(w, m.index));
        }
    }
    out
}

/// What of a header's options matters when `mask` is of a key: which options there are, and in which order, as a whole; of the bytes of
/// those that are mapped what the mask has, of others none. As long as `header`.
pub fn mask_of_header<const N: usize, R>(mask: &Words<N, R>, header: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(header.len());
    let mut rest = header;
    while let Ok(Some(raw)) = next(&mut rest) {
        // Three bits of a head are reserved.
        out.extend([0xff, 0xff, 0xff, 0x1f]);
        match mappings().find(|m| m.is(&raw)) {
            Some(m) => out.extend(bytes(mask, m.index)),
            None => out.extend(raw.data.iter().map(|_| 0)),
        }
    }
    out.resize(header.len(), 0);
    out
}

/// One option of a header.
pub(crate) struct Raw<'a> {
    pub(crate) class: u16,
    pub(crate) kind: u8,
    pub(crate) data: &'a [u8],
}

/// Takes the next option off `rest`; `None` at the end.
///
/// # Errors
/// [`OpenError::Malformed`] when it is cut short.
pub(crate) fn next<'a>(rest: &mut &'a [u8]) -> Result<Option<Raw<'a>>, OpenError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let (head, tail) = rest.split_first_chunk::<4>().ok_or(OpenError::Malformed)?;
    let len = usize::from(head[3] & 0x1f) * 4;
    let (data, tail) = tail.split_at_checked(len).ok_or(OpenError::Malformed)?;
    *rest = tail;
    Ok(Some(Raw { class: u16::from_be_bytes([head[0], head[1]]), kind: head[2], data }))
}

/// Whether one of the options of a header must be known to whoever takes the packet out (RFC 8926 3.5).
pub(crate) fn any_critical(mut rest: &[u8]) -> bool {
    while let Ok(Some(raw)) = next(&mut rest) {
        if raw.kind & 0x80 != 0 {
            return true;
        }
    }
    false
}

/// The words for options of a packet. A packet without options has nothing but a null pointer here: what has a tunnel or goes through the
/// tables again is copied often, and rarely has any.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OptionWords(Option<Box<Bytes>>);

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Bytes {
    present: u64,
    words: [u64; MAX_BYTES as usize / 8],
}

impl OptionWords {
    /// Those of a packet that has none.
    pub const NONE: OptionWords = OptionWords(None);

    /// Those of a key.
    #[inline]
    pub fn of<const N: usize, R>(key: &Words<N, R>) -> OptionWords {
        if any(key) { Self::kept(key) } else { Self::NONE }
    }

    #[cold]
    fn kept<const N: usize, R>(key: &Words<N, R>) -> OptionWords {
        let words = std::array::from_fn(|i| key.word(FIRST + i));
        OptionWords(Some(Box::new(Bytes { present: key.word(PRESENT), words })))
    }

    /// Reads the options of a header (RFC 8926 3.5). What is not mapped, or has another length than it is mapped with, is passed
    /// over; `critical` ones, too, or the packet is refused for them.
    ///
    /// # Errors
    /// [`OpenError::Malformed`] when one is cut short; [`OpenError::Unknown`] for one that must be known and is not.
    pub fn read(mut rest: &[u8], critical: Critical) -> Result<OptionWords, OpenError> {
        let mut o = Bytes::default();
        while let Some(raw) = next(&mut rest)? {
            let mut known = false;
            for m in mappings().filter(|m| m.is(&raw)) {
                known = true;
                o.present |= 1 << m.index;
                for (u, four) in bits(units(m.index)).zip(raw.data.chunks_exact(4)) {
                    let (word, shift) = place(u);
                    let v = four.first_chunk().copied().map_or(0, u32::from_be_bytes);
                    let w = &mut o.words[word - FIRST];
                    *w = *w & !(u64::from(u32::MAX) << shift) | u64::from(v) << shift;
                }
            }
            if !known && raw.kind & 0x80 != 0 && critical == Critical::MustBeKnown {
                return Err(OpenError::Unknown);
            }
        }
        Ok(OptionWords((o.present != 0).then(|| Box::new(o))))
    }

    /// Writes them into a key that has zeros there.
    #[inline]
    pub fn write<const N: usize, R>(&self, key: &mut Words<N, R>) {
        let Some(o) = &self.0 else { return };
        key.set_word(PRESENT, o.present);
        for (i, w) in o.words.iter().enumerate().filter(|(_, w)| **w != 0) {
            key.set_word(FIRST + i, *w);
        }
    }
}

/// What becomes of a packet with an option that says that it must be known, and is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Critical {
    /// Whoever takes the packet out of the tunnel must not pass over it (RFC 8926 3.5).
    MustBeKnown,
    /// Somebody else has taken the packet out.
    PassedOver,
}

/// Bytes as one number in hexadecimal.
fn number(b: &[u8]) -> String {
    let all: String = b.iter().map(|b| format!("{b:02x}")).collect();
    match all.trim_start_matches('0') {
        "" => "0".to_owned(),
        digits => format!("0x{digits}"),
    }
}

/// Reads a number in hexadecimal of at most `len` bytes, right-aligned.
pub(crate) fn parse_number(s: &str, len: usize) -> Option<Vec<u8>> {
    let digits = s.strip_prefix("0x").or_else(|| s.strip_prefix("0X"));
    if digits.is_none() {
        // Decimal, as a short one may be.
        let v: u128 = s.parse().ok()?;
        let all = v.to_be_bytes();
        let have = &all[16usize.saturating_sub(len)..];
        if all[..16 - have.len()].iter().any(|b| *b != 0) {
            return None;
        }
        let mut out = vec![0; len - have.len()];
        out.extend(have);
        return Some(out);
    }
    let digits = digits?.trim_start_matches('0');
    if digits.len() > 2 * len {
        return None;
    }
    let padded = format!("{digits:0>width$}", width = 2 * len);
    (0..len).map(|i| u8::from_str_radix(padded.get(2 * i..2 * i + 2)?, 16).ok()).collect()
}

/// One option as datapath flows have it: `{class=0xffff,type=0x1,len=4,0x123/0xff}`.
fn write_one(out: &mut String, (class, kind): (u16, u8), value: &[u8], mask: Option<&[u8]>) {
    let _ = write!(out, "{{class={},type={},len={}", hex(class.into()), hex(kind.into()), value.len());
    if !value.is_empty() {
        let _ = write!(out, ",{}", number(value));
        if let Some(mask) = mask.filter(|m| m.iter().any(|b| *b != 0xff)) {
            let _ = write!(out, "/{}", number(mask));
        }
    }
    out.push('}');
}

/// Writes the options of a header.
pub(crate) fn write_header(out: &mut String, mut rest: &[u8]) {
    while let Ok(Some(raw)) = next(&mut rest) {
        write_one(out, (raw.class, raw.kind), raw.data, None);
    }
}

/// Writes the options that matter in a datapath flow and are there, without what is around them.
pub(crate) fn write_match<const N: usize, K, M>(out: &mut String, key: &Words<N, K>, mask: &Words<N, M>) {
    for m in mappings().filter(|m| is_there(mask, m.index) && is_there(key, m.index)) {
        write_one(out, (m.class, m.kind), &bytes(key, m.index), Some(&bytes(mask, m.index)));
    }
}

/// The options that matter in an OpenFlow match, as [`crate::text::ofctl`] has them: `tun_metadata0=0xb/0xf`, `tun_metadata1` for one
/// that only has to be there, `tun_metadata2=NP` for one that must not.
pub(crate) fn words_of_match<const N: usize>(m: &Match<N>) -> Vec<String> {
    let mut out = Vec::new();
    for o in mappings().filter(|o| is_there(m.mask(), o.index)) {
        let name = format!("tun_metadata{}", o.index);
        let (value, mask) = (bytes(m.key(), o.index), bytes(m.mask(), o.index));
        out.push(if !is_there(m.key(), o.index) {
            format!("{name}=NP")
        } else if mask.iter().all(|b| *b == 0) {
            name
        } else if mask.iter().all(|b| *b == 0xff) {
            format!("{name}={}", number(&value))
        } else {
            format!("{name}={}/{}", number(&value), number(&mask))
        });
    }
    out
}
