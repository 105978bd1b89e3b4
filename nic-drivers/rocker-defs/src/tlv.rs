//! TLVs (guide, section 4, figure 1): a header of 8 bytes (type of 32 bits, length of 16 with the header, 16 reserved), a
//! value padded to 8 bytes. A nest's value is more of them.

const HEADER_BYTES: usize = 8;

/// TLVs being written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tlvs(Vec<u8>);

impl Tlvs {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn header(&mut self, kind: u32, value_bytes: usize) {
        self.0.extend(kind.to_le_bytes());
        // Commands are far below the 64 KiB that a length can say.
        self.0.extend(((value_bytes + HEADER_BYTES) as u16).to_le_bytes());
        self.0.extend([0; 2]);
    }

    /// Appends a value as it is.
    pub fn put(mut self, kind: u32, value: &[u8]) -> Self {
        self.header(kind, value.len());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self
    }

    /// Appends 8 bits.
    pub fn u8(self, kind: u32, v: u8) -> Self {
        self.put(kind, &[v])
    }

    /// Appends 16 bits, little-endian.
    pub fn u16(self, kind: u32, v: u16) -> Self {
        self.put(kind, &v.to_le_bytes())
    }

    /// Appends 32 bits, little-endian.
    pub fn u32(self, kind: u32, v: u32) -> Self {
        self.put(kind, &v.to_le_bytes())
    }

    /// Appends 64 bits, little-endian.
    pub fn u64(self, kind: u32, v: u64) -> Self {
        self.put(kind, &v.to_le_bytes())
    }

    /// Appends 16 bits in network order: what the guide marks with (N).
    pub fn be16(self, kind: u32, v: u16) -> Self {
        self.put(kind, &v.to_be_bytes())
    }

    /// Appends 32 bits in network order.
    pub fn be32(self, kind: u32, v: u32) -> Self {
        self.put(kind, &v.to_be_bytes())
    }

    /// Appends a nest.
    pub fn nest(mut self, kind: u32, inner: &Tlvs) -> Self {
        self.header(kind, inner.0.len());
        self.0.extend(&inner.0);
        self
    }
}

/// What is wrong with TLVs that the device wrote.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
#[error("TLV at byte {at} says {len} bytes, {left} are left")]
pub struct TlvError {
    /// Where it begins.
    pub at: usize,
    /// What it says.
    pub len: usize,
    /// What there is.
    pub left: usize,
}

/// The types and values in `bytes`, in order.
///
/// # Errors
/// [`TlvError`] at the first that does not fit.
pub fn read_tlvs(bytes: &[u8]) -> Result<Vec<(u32, &[u8])>, TlvError> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(h) = bytes.get(at..at + HEADER_BYTES) {
        let kind = u32::from_le_bytes([h[0], h[1], h[2], h[3]]);
        let len = usize::from(u16::from_le_bytes([h[4], h[5]]));
        let left = bytes.len() - at;
        match bytes.get(at + HEADER_BYTES..at + len) {
            Some(v) if len >= HEADER_BYTES => out.push((kind, v)),
            _ => return Err(TlvError { at, len, left }),
        }
        at += len.next_multiple_of(8);
    }
    Ok(out)
}

/// The value of type `kind` at the outermost level of `bytes`, without taking memory; `None` too when one before it does not
/// fit.
pub fn find(bytes: &[u8], kind: u32) -> Option<&[u8]> {
    let mut at = 0;
    loop {
        let h = bytes.get(at..at + HEADER_BYTES)?;
        let len = usize::from(u16::from_le_bytes([h[4], h[5]]));
        let v = bytes.get(at + HEADER_BYTES..at + len)?;
        if u32::from_le_bytes([h[0], h[1], h[2], h[3]]) == kind {
            return Some(v);
        }
        at += len.max(HEADER_BYTES).next_multiple_of(8);
    }
}

/// The value of type `kind` as a little-endian number of `N` bytes; `None` when it is absent or shorter.
pub fn number<const N: usize>(tlvs: &[(u32, &[u8])], kind: u32) -> Option<u64> {
    let v = tlvs.iter().rfind(|(k, _)| *k == kind)?.1.get(..N)?;
    Some(v.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
}

/// The value of type `kind`.
pub fn value<'a>(tlvs: &[(u32, &'a [u8])], kind: u32) -> Option<&'a [u8]> {
    tlvs.iter().rfind(|(k, _)| *k == kind).map(|(_, v)| *v)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_padded_and_nests_are_counted_whole() {
        let inner = Tlvs::new().u8(3, 0xaa).be16(4, 0x1234);
        let t = Tlvs::new().u16(1, 0x0102).nest(2, &inner);
        let b = t.bytes();
        assert_eq!(b[..16], [1, 0, 0, 0, 10, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(b[16..24], [2, 0, 0, 0, 40, 0, 0, 0]);
        assert_eq!(b.len(), 56);
        let top = read_tlvs(b).unwrap();
        assert_eq!(number::<2>(&top, 1), Some(0x0102));
        let nested = read_tlvs(value(&top, 2).unwrap()).unwrap();
        assert_eq!(nested, [(3, &[0xaa][..]), (4, &[0x12, 0x34][..])]);
        assert_eq!((number::<4>(&nested, 3), number::<1>(&nested, 9)), (None, None));
    }

    #[test]
    fn impossible_lengths_are_told() {
        let mut b = Tlvs::new().u64(1, 7).bytes().to_vec();
        b[4] = 40;
        assert_eq!(read_tlvs(&b), Err(TlvError { at: 0, len: 40, left: 16 }));
        b[4] = 3;
        assert!(read_tlvs(&b).is_err());
        assert_eq!(read_tlvs(&[0; 7]).unwrap(), []);
        let t = Tlvs::new().u16(1, 7).u64(2, 9);
        assert_eq!(find(t.bytes(), 2), Some(&[9, 0, 0, 0, 0, 0, 0, 0][..]));
        assert_eq!((find(t.bytes(), 3), find(&b, 2), find(&[0; 64], 2)), (None, None, None));
    }
}
