//! OXM and NXM headers: which field a number names and how wide it is on the wire.
//!
//! ```text
//!  31            16 15      9  8  7       0
//! +----------------+---------+---+---------+    class 0xffff is followed by a 32-bit experimenter id,
//! |     class      |  field  | M | length  |    which counts in the length
//! +----------------+---------+---+---------+
//! ```
//! Sources: OpenFlow 1.3.5 7.2.3.2 and 7.2.3.7; ONF extensions 109 and 233 for `tcp_flags` and `actset_output`, which
//! OpenFlow 1.5 made basic; Nicira's classes 0 and 1, and its experimenter fields of network service headers. Every number is understood in every version.

use std::sync::LazyLock;

use flow::tunnel::options;
use flow::{FIELDS, FieldId};

use super::cursor::{Put, Reader};
use super::{NICIRA, ONF};
use crate::error::{ErrorCode, Nicira};
use crate::version::Version;

/// The class of experimenter fields.
const CLASS_EXPERIMENTER: u16 = 0xffff;

/// A header as it was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OxmHeader {
    pub(crate) class: u16,
    pub(crate) field: u8,
    pub(crate) has_mask: bool,
    /// Of value and mask, without an experimenter id.
    pub(crate) payload_bytes: u8,
    pub(crate) experimenter: Option<u32>,
}

impl OxmHeader {
    /// Reads a header; the payload is next.
    pub(crate) fn read(r: &mut Reader<'_>) -> Result<OxmHeader, ErrorCode> {
        let h = r.u32()?;
        let experimenter = if h >> 16 == u32::from(CLASS_EXPERIMENTER) { Some(r.u32()?) } else { None };
        OxmHeader::from_parts(h, experimenter).ok_or(r.short())
    }

    /// A header's parts; `None` when its length has no room for its experimenter id.
    pub(crate) fn from_parts(h: u32, experimenter: Option<u32>) -> Option<OxmHeader> {
        let payload_bytes = (h as u8).checked_sub(if experimenter.is_some() { 4 } else { 0 })?;
        Some(OxmHeader {
            class: (h >> 16) as u16,
            field: (h >> 9) as u8 & 0x7f,
            has_mask: h & 0x100 != 0,
            payload_bytes,
            experimenter,
        })
    }

    /// The field it names, and its width on the wire.
    pub(crate) fn resolve(&self) -> Option<WireField> {
        let field = match self.experimenter {
            Some(ONF) => match self.field {
                42 => FieldId::TcpFlags,
                43 => FieldId::ActsetOutput,
                _ => return None,
            },
            Some(NICIRA) => *flow::tunnel::HEADER_FIELDS
                .get(usize::from(self.field).checked_sub(HEADER_FIRST as usize)?)?,
            Some(NSH) => *NSH_FIELDS.get(usize::from(self.field).checked_sub(1)?)?,
            Some(_) => return None,
            None => {
                let number = u32::from(self.class) << 8 | u32::from(self.field);
                if number == NXM_IN_PORT {
                    return Some(WireField { field: FieldId::InPort, bytes: 2, nxm_port: true });
                }
                let class = CLASSES.iter().position(|c| *c == self.class)?;
                (*NUMBERS[class].get(usize::from(self.field))?)?
            }
        };
        let bytes = match field.option() {
            None => wire_bytes(field),
            // As many as there are; what is missing in front is zero.
            Some(_) => usize::from(self.payload_bytes) / if self.has_mask { 2 } else { 1 },
        };
        Some(WireField { field, bytes, nxm_port: false })
    }

    /// As [`OxmHeader::resolve`]; `otherwise` when there is no such field.
    ///
    /// # Errors
    /// `NXFMFC_INVALID_TLV_FIELD` for a tunnel option's field that is not mapped.
    pub(crate) fn field(&self, otherwise: impl Into<ErrorCode>) -> Result<WireField, ErrorCode> {
        let w = self.resolve().ok_or(otherwise.into())?;
        match w.field.option() {
            Some(n) if options::mapping(n).is_none() => Err(Nicira::InvalidTlvField.into()),
            _ => Ok(w),
        }
    }
}

/// A field with its width on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WireField {
    pub(crate) field: FieldId,
    pub(crate) bytes: usize,
    /// NXM_OF_IN_PORT: a 16-bit port number of OpenFlow 1.0.
    nxm_port: bool,
}

const NXM_IN_PORT: u32 = 0;

/// The experimenter of the fields of network service headers.
const NSH: u32 = 0x005a_d650;
/// Its fields; the first has number 1.
const NSH_FIELDS: [FieldId; 10] = {
    use FieldId::*;
    [NshFlags, NshMdtype, NshNp, NshSpi, NshSi, NshC1, NshC2, NshC3, NshC4, NshTtl]
};

/// The number of the first of the fields of some tunnels' headers, which are an experimenter's too.
const HEADER_FIRST: u32 = 11;

/// The number of a field of a tunnel's header.
fn header_number(f: FieldId) -> Option<u32> {
    flow::tunnel::HEADER_FIELDS.iter().position(|n| *n == f).map(|i| i as u32 + HEADER_FIRST)
}

/// The number of a field of a network service header.
fn nsh_number(f: FieldId) -> Option<u32> {
    NSH_FIELDS.iter().position(|n| *n == f).map(|i| i as u32 + 1)
}

/// The classes that fields of ours are in: the basic one of OpenFlow and that of its packet registers, and two of Nicira.
const CLASSES: [u16; 4] = [0x8000, 0x8001, 0, 1];

/// The fields of each of [`CLASSES`] by number.
static NUMBERS: LazyLock<[[Option<FieldId>; 128]; CLASSES.len()]> = LazyLock::new(|| {
    let mut all = [[None; 128]; CLASSES.len()];
    for f in FIELDS.iter() {
        for n in [(f.oxm != 0).then_some(f.oxm), f.nxm].into_iter().flatten() {
            if let Some(class) = CLASSES.iter().position(|c| u32::from(*c) == n >> 8) {
                all[class][n as usize & 0x7f] = Some(f.id);
            }
        }
    }
    all
});

/// Width of a field's value in bytes on the wire.
fn wire_bytes(f: FieldId) -> usize {
    match f {
        FieldId::CtState => 4,
        FieldId::ArpOp => 2,
        _ if f.option().is_some() => usize::from(f.width() / 8),
        _ => match f.info().bits {
            0..=8 => 1,
            9..=16 => 2,
            17..=32 => 4,
            33..=48 => 6,
            49..=64 => 8,
            _ => 16,
        },
    }
}

impl WireField {
    /// A value as it was read, as the field has it. `None` when it does not fit.
    pub(crate) fn value_in(&self, v: u128) -> Option<u128> {
        if self.nxm_port {
            // 16-bit reserved ports begin at 0xff00 (OpenFlow 1.0, OFPP_MAX).
            return Some(if v >= 0xff00 { v | 0xffff_0000 } else { v });
        }
        if self.field == FieldId::InPort && (0xff00..0xffff_ff00).contains(&v) {
            // No port can have such a number; stock tools cannot print a flow that says so.
            return None;
        }
        (v <= value_bits(self.field)).then_some(v)
    }

    /// A mask as it was read: bits the field does not have are dropped.
    pub(crate) fn mask_in(&self, m: u128) -> u128 {
        if self.nxm_port && m == 0xffff {
            return self.field.info().max();
        }
        m & value_bits(self.field)
    }
}

/// The bits of a field that mean anything: a fragment has two, whatever the field's width.
pub(crate) fn value_bits(f: FieldId) -> u128 {
    if f == FieldId::NwFrag { 3 } else { f.ones() }
}

/// Whether only an experimenter has a number for a field: its headers are long.
pub(crate) fn is_experimenters(f: FieldId) -> bool {
    nsh_number(f).or(header_number(f)).is_some()
}

/// Whether a field has an OXM or NXM number, and so can be in a match or be set.
pub fn has_number(f: FieldId) -> bool {
    f.info().oxm != 0 || f.info().nxm.is_some() || is_experimenters(f)
}

/// How a version names a field.
enum Number {
    /// Class and field.
    Basic(u32),
    /// An experimenter's field: who, and number.
    Of(u32, u32),
}

/// The number of `f` in `v`: OXM where the version has it, NXM before. OpenFlow 1.0 has NXM, and OXM numbers only for what
/// NXM lacks, as stock switches send it.
fn number(v: Version, f: FieldId) -> Option<Number> {
    let info = f.info();
    let oxm = (info.oxm != 0).then_some(info.oxm);
    let onf = v < Version::V15 && v >= Version::V12;
    Some(match f {
        FieldId::TcpFlags if v == Version::V13 || v == Version::V14 => Number::Of(ONF, 42),
        FieldId::ActsetOutput if onf => Number::Of(ONF, 43),
        f if flow::nsh::is_field(f) => Number::Of(NSH, nsh_number(f)?),
        f if header_number(f).is_some() => Number::Of(NICIRA, header_number(f)?),
        FieldId::TcpFlags if v < Version::V15 => Number::Basic(info.nxm?),
        FieldId::TunId if v == Version::V12 => Number::Basic(info.nxm?),
        _ if v < Version::V12 => Number::Basic(info.nxm.or(oxm)?),
        _ => Number::Basic(oxm.or(info.nxm)?),
    })
}

/// Appends the header of `f`, without payload, as version `v` has it; `values` is how many values follow (1, or 2 with a
/// mask). Returns the width of one value, `None` (and appends nothing) when the field has no number.
pub(crate) fn put_header(out: &mut Vec<u8>, v: Version, f: FieldId, values: u8) -> Option<usize> {
    let number = number(v, f)?;
    let bytes = match number {
        Number::Basic(NXM_IN_PORT) => 2,
        _ => wire_bytes(f),
    };
    let mask = u32::from(values == 2) << 8;
    let len = u32::from(values) * bytes as u32;
    match number {
        Number::Of(who, n) => {
            out.put_u32(u32::from(CLASS_EXPERIMENTER) << 16 | n << 9 | mask | (len + 4));
            out.put_u32(who);
        }
        Number::Basic(n) => out.put_u32((n >> 8) << 16 | (n & 0x7f) << 9 | mask | len),
    }
    Some(bytes)
}

/// As [`put_header`] but never longer than four bytes, for the Nicira actions that have room for no more: the NXM number
/// where there is one, as stock switches send it. `end` is the first bit of the field that is not meant. `None` when there
/// is no such number.
pub(crate) fn put_short_header(out: &mut Vec<u8>, f: FieldId, end: u16) -> Option<()> {
    if f == FieldId::InPort && end <= 16 {
        out.put_u32(2);
        return Some(());
    }
    let info = f.info();
    // NXM_OF_IN_PORT has 16 bits only.
    let number = match info.nxm {
        Some(n) if f != FieldId::InPort => n,
        _ if info.oxm != 0 => info.oxm,
        _ => return None,
    };
    out.put_u32((number >> 8) << 16 | (number & 0x7f) << 9 | wire_bytes(f) as u32);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::BadMatch;

    #[test]
    fn a_port_number_that_no_port_can_have_is_no_value() {
        let w = WireField { field: FieldId::InPort, bytes: 4, nxm_port: false };
        assert_eq!(w.value_in(0xfeff), Some(0xfeff));
        assert_eq!(w.value_in(0xff00), None);
        assert_eq!(w.value_in(0xffff_feff), None);
        assert_eq!(w.value_in(0xffff_fffe), Some(0xffff_fffe), "LOCAL");
    }

    #[test]
    fn a_tunnel_option_is_as_long_as_it_is_mapped_and_unknown_until_then() {
        let m = options::Mapping { index: 63, class: 0xfff1, kind: 9, bytes: 8 };
        let f = FieldId::TunMetadata63;
        let read = |b: &[u8]| {
            OxmHeader::read(&mut Reader::new(b, BadMatch::BadLen)).unwrap().field(BadMatch::BadField)
        };
        // Class 1, field 103, four bytes.
        let short = [0, 1, 103 << 1, 4];
        assert_eq!(read(&short), Err(Nicira::InvalidTlvField.into()));
        options::map(m).unwrap();
        assert_eq!(read(&short), Ok(WireField { field: f, bytes: 4, nxm_port: false }));
        let mut b = Vec::new();
        put_short_header(&mut b, f, 64).unwrap();
        assert_eq!(b, [0, 1, 103 << 1, 8]);
        options::unmap(m);
        assert_eq!(read(&short), Err(Nicira::InvalidTlvField.into()));
    }

    #[test]
    fn every_numbered_field_is_found_again_by_its_header() {
        for f in FIELDS.iter().filter(|f| has_number(f.id) && f.id.option().is_none()) {
            for version in
                [None, Some(Version::V10), Some(Version::V12), Some(Version::V13), Some(Version::V15)]
            {
                let mut b = Vec::new();
                let mut bytes = wire_bytes(f.id);
                match version {
                    None if is_experimenters(f.id) => continue,
                    None => {
                        put_short_header(&mut b, f.id, f.bits.into()).unwrap();
                        assert_eq!(b.len(), 4);
                    }
                    Some(v) => bytes = put_header(&mut b, v, f.id, 1).unwrap(),
                }
                let h = OxmHeader::read(&mut Reader::new(&b, BadMatch::BadLen)).unwrap();
                let w = h.resolve().unwrap_or_else(|| panic!("{} not found", f.name));
                assert_eq!(w.field, f.id);
                assert_eq!((w.bytes, bytes), (usize::from(h.payload_bytes), w.bytes), "{}", f.name);
            }
        }
    }
}
