//! `push_nsh(..)`.

use std::fmt::Write;

use super::attr;
use super::parse_match::{at, each_part};
use crate::key::PacketKey;
use crate::nsh::{MAX_TYPE_2_BYTES, NshHeader, NshMetadata};
use crate::text::scan::Scan;
use crate::text::value;
use crate::text::{Reason, TextError};

/// Writes the action.
pub(super) fn write_push(out: &mut String, h: &NshHeader) {
    let _ = write!(
        out,
        "push_nsh(flags={},ttl={},mdtype={},np={},spi={:#x},si={}",
        h.flags,
        h.ttl,
        h.md_type(),
        h.next,
        h.spi,
        h.si
    );
    match &h.metadata {
        NshMetadata::Fixed(words) => {
            for (i, w) in words.iter().enumerate() {
                let _ = write!(out, ",c{}={w:#x}", i + 1);
            }
        }
        NshMetadata::Options(o) => {
            out.push_str(if o.is_empty() { ",md2=" } else { ",md2=0x" });
            for b in o {
                let _ = write!(out, "{b:02x}");
            }
        }
    }
    out.push(')');
}

/// Reads the inside of `push_nsh(..)`; what is not said is as in [`NshHeader::default`].
pub(super) fn read_push(inside: Scan<'_>) -> Result<NshHeader, TextError> {
    let mut key = PacketKey::ZERO;
    let (mut md_type, mut options) = (1, Vec::new());
    let h = NshHeader::default();
    use crate::field::FieldId as F;
    for (f, v) in [(F::NshTtl, h.ttl), (F::NshNp, h.next), (F::NshSi, h.si)] {
        key.set(f, v.into());
    }
    each_part(inside, |name, v| {
        if name == "md2" {
            let digits = v.rest().strip_prefix("0x").unwrap_or(v.rest());
            options = at(&v, bytes(digits).ok_or(Reason::Expected("hexadecimal digits of whole words")))?;
            return Ok(());
        }
        let Some(sub) = attr::NSH.subs.iter().find(|s| s.name == name) else {
            return v.fail(Reason::UnknownKeyword);
        };
        let bits = match sub.field {
            F::NshFlags => 2,
            F::NshTtl => 6,
            f => f.info().bits,
        };
        let n = at(&v, value::number(v.rest(), bits))?.0;
        if sub.field == F::NshMdtype {
            if !(1..=2).contains(&n) {
                return v.fail(Reason::Expected("1 or 2"));
            }
            md_type = n;
        }
        key.set(sub.field, n);
        Ok(())
    })?;
    Ok(NshHeader::of_key(&key, (md_type == 2).then_some(&options)))
}

/// Whole words of hexadecimal digits, as many as a header has room for.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    let whole = digits.is_ascii() && digits.len().is_multiple_of(8) && digits.len() <= 2 * MAX_TYPE_2_BYTES;
    let pairs = whole.then(|| digits.as_bytes().chunks(2))?;
    pairs.map(|p| u8::from_str_radix(std::str::from_utf8(p).ok()?, 16).ok()).collect()
}
