//! Additions of flows that differ from one before only in the values of fields: what most of a bundle is.
//!
//! To decode one is to find out again, field by field, what the one before has shown: which fields there are, how wide, with which
//! masks, that their prerequisites hold, and what the instructions are. A [`Template`] keeps a message with what was decoded of it and where
//! its values are. [`Template::fill`] of a message that has the same bytes everywhere else reads its values and no more.
//!
//! Values vary where nothing else depends on them: transaction ids, cookie and priority, and fields that are no prerequisite of others
//! ([`FREE`]). Whatever is not as expected is left to [`super::decode_as`], which says what is wrong with it.

use std::ops::Range;

use flow::FieldId;
use flow::tunnel::options;

use super::controllers::bundled_at;
use super::cursor::Reader;
use super::oxm::{OxmHeader, WireField};
use super::{Dialect, HEADER_BYTES, Header, oxm};
use crate::error::BadMatch;
use crate::flow_mod::FlowModCommand;
use crate::message::{Body, BundleFlags, Message};

/// Fields on whose values no prerequisite depends (see [`flow::prereq`]). Transport ports share their bits with types of ICMP, which
/// do matter, but not to a packet of a protocol that has ports.
#[rustfmt::skip]
const FREE: &[FieldId] = {
    use FieldId::*;
    &[
        InPort, Metadata, PktMark, TunId, TunSrc, TunDst, EthSrc, EthDst, NwSrc, NwDst, Ipv6Src, Ipv6Dst, ArpSpa, ArpTpa, ArpSha, ArpTha,
        TcpSrc, TcpDst, UdpSrc, UdpDst, SctpSrc, SctpDst, CtZone, CtMark, CtLabel, Reg0, Reg1, Reg2, Reg3, Reg4, Reg5, Reg6, Reg7,
        Reg8, Reg9, Reg10, Reg11, Reg12, Reg13, Reg14, Reg15,
    ]
};

/// Longest message of which a template is made, in bytes.
const LONGEST: usize = 1024;

// Within a flow-mod since OpenFlow 1.1 (OpenFlow 1.3.5 7.3.4.1).
const COOKIE: Range<usize> = HEADER_BYTES..HEADER_BYTES + 8;
const PRIORITY: Range<usize> = HEADER_BYTES + 22..HEADER_BYTES + 24;
/// Where its match begins: type, length, entries.
const MATCH: usize = HEADER_BYTES + 40;

/// A value in a message.
#[derive(Clone, Debug)]
struct Value {
    at: usize,
    field: WireField,
    /// As it is on the wire; every bit when it has none.
    wire_mask: u128,
    mask: u128,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Template {
    dialect: Dialect,
    frame: Vec<u8>,
    /// Where the flow-mod begins.
    inner: usize,
    /// Bytes that another message must have too.
    fixed: Vec<Range<usize>>,
    values: Vec<Value>,
    bundle: u32,
    flags: BundleFlags,
    message: Message,
}

/// A message of a bundle that a template was filled with.
#[derive(Debug)]
pub struct Filled<'a> {
    /// Which bundle.
    pub bundle: u32,
    /// Flags of the bundle.
    pub flags: BundleFlags,
    /// The message; its transaction id is that of the outer message.
    pub message: &'a Message,
}

impl Template {
    /// The template that `frame` makes, which has been decoded as `message` of `bundle` with `flags`; `None` when it is no addition of
    /// a flow, or anything about it is unusual.
    pub fn new(
        dialect: Dialect,
        frame: &[u8],
        (bundle, flags): (u32, BundleFlags),
        message: Message,
    ) -> Option<Template> {
        let Body::FlowMod(fm) = &message.body else { return None };
        // What tunnel options mean is agreed on meanwhile.
        let plain = fm.command == FlowModCommand::Add && options::mappings().next().is_none();
        if !plain || frame.len() > LONGEST {
            return None;
        }
        let inner = bundled_at(frame)?;
        let values = values(frame, inner)?;
        let mut fixed = Vec::with_capacity(values.len() + 5);
        let mut from = 0;
        let vary = [4..HEADER_BYTES, inner + 4..inner + HEADER_BYTES];
        let head = [COOKIE, PRIORITY].map(|r| inner + r.start..inner + r.end);
        let fields = values.iter().map(|v| v.at..v.at + v.field.bytes);
        for r in vary.into_iter().chain(head).chain(fields) {
            // In the order of the message.
            fixed.push(from..r.start);
            from = r.end;
        }
        fixed.push(from..frame.len());
        fixed.retain(|r| !r.is_empty());
        Some(Template { dialect, frame: frame.to_vec(), inner, fixed, values, bundle, flags, message })
    }

    /// `frame` decoded, if it differs from the template only in values, and they are in order. `None` says nothing about it.
    pub fn fill(&mut self, dialect: Dialect, frame: &[u8]) -> Option<Filled<'_>> {
        if frame.len() != self.frame.len() || dialect != self.dialect {
            return None;
        }
        if !self.fixed.iter().all(|r| frame.get(r.clone()) == self.frame.get(r.clone())) {
            return None;
        }
        let inner = frame.get(self.inner..)?;
        let (outer, header) = (Header::parse(frame)?, Header::parse(inner)?);
        if outer.xid != header.xid {
            return None;
        }
        let Message { xid, body: Body::FlowMod(fm) } = &mut self.message else { return None };
        *xid = header.xid;
        fm.cookie = u64::from_be_bytes(inner.get(COOKIE)?.try_into().ok()?);
        fm.priority = u16::from_be_bytes(inner.get(PRIORITY)?.try_into().ok()?);
        for v in &self.values {
            let raw = Reader::new(frame.get(v.at..)?, BadMatch::BadLen).number(v.field.bytes).ok()?;
            if raw & !v.wire_mask != 0 {
                return None;
            }
            fm.matches.set_masked(v.field.field, v.field.value_in(raw)?, v.mask);
        }
        Some(Filled { bundle: self.bundle, flags: self.flags, message: &self.message })
    }
}

/// The values of the match of the flow-mod at `inner` that may vary, in their order.
fn values(frame: &[u8], inner: usize) -> Option<Vec<Value>> {
    let start = inner + MATCH;
    let mut r = Reader::new(frame.get(start..)?, BadMatch::BadLen);
    r.skip(2).ok()?;
    let len = usize::from(r.u16().ok()?);
    let end = start + len;
    let mut entries = r.sub(len.checked_sub(4)?, BadMatch::BadLen).ok()?;
    let mut all = Vec::new();
    while !entries.is_empty() {
        let h = OxmHeader::read(&mut entries).ok()?;
        let at = end - entries.left();
        let mut payload = entries.sub(usize::from(h.payload_bytes), BadMatch::BadLen).ok()?;
        let field = h.resolve()?;
        if field.field.option().is_some() {
            return None;
        }
        if !FREE.contains(&field.field) {
            continue;
        }
        payload.skip(field.bytes).ok()?;
        let wire_mask = if h.has_mask { payload.number(field.bytes).ok()? } else { u128::MAX };
        let mask = if h.has_mask { field.mask_in(wire_mask) } else { oxm::value_bits(field.field) };
        all.push(Value { at, field, wire_mask, mask });
    }
    Some(all)
}
