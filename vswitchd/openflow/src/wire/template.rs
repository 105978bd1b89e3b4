//! Additions of flows that differ from one before only in the values of fields: what most of a bundle is.
//!
//! To decode one is to find out again, field by field, what the one before has shown: which fields there are, how wide, with which
//! masks, that their prerequisites hold, and what the instructions are. [`Templates`] keep messages with what was decoded of them and where
//! their values are, and instructions by their bytes. [`Templates::fill`] of a message that has the same bytes everywhere else reads its
//! values and no more.
//!
//! Values vary where nothing else depends on them: transaction ids, cookie and priority, and fields that are no prerequisite of others
//! ([`FREE`]). Whatever is not as expected is left to [`super::decode_as`], which says what is wrong with it.

use std::ops::Range;

use flow::FieldId;
use flow::tunnel::options;

use super::controllers::bundled_at;
use super::cursor::Reader;
use super::instructions::read_instructions;
use super::oxm::{OxmHeader, WireField};
use super::{Dialect, HEADER_BYTES, Header, oxm};
use crate::error::{BadInstruction, BadMatch};
use crate::flow_mod::{FlowModCommand, Instructions};
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
/// Templates at most: what differs in its fields or masks is another one.
const MOST: usize = 8;
/// Places for instructions.
const KNOWN: usize = 256;
/// Messages in a row that none fits, after which only one in so many is learned,
const MISSES: u32 = 64;
/// and so many after it are tried.
const TRIES: u32 = 8;

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

/// What an addition looks like, but for its instructions.
#[derive(Clone, Debug)]
struct Template {
    /// As far as its instructions.
    head: Vec<u8>,
    /// Bytes that another message must have too.
    fixed: Vec<Range<usize>>,
    values: Vec<Value>,
    bundle: u32,
    flags: BundleFlags,
    message: Message,
}

/// Instructions with their bytes.
#[derive(Clone, Debug, Default)]
struct Known {
    bytes: Vec<u8>,
    instructions: Instructions,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Templates {
    dialect: Dialect,
    all: Vec<Template>,
    /// The one that was filled or made last.
    last: usize,
    /// By a hash of their bytes.
    known: Vec<Known>,
    /// Place among `known` of those that the last filled message has.
    lent: Option<usize>,
    /// Messages that none could be filled with, in a row.
    missed: u32,
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

impl Templates {
    /// None yet, for messages of this dialect.
    pub fn new(dialect: Dialect) -> Templates {
        Templates { dialect, all: Vec::new(), last: 0, known: Vec::new(), lent: None, missed: 0 }
    }

    /// What they were made for.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Makes a template of `frame`, which has been decoded as `message` of `bundle` with `flags`; nothing when it is no addition of a
    /// flow, or anything about it is unusual. Messages that none of what was learned is any use for are looked at less and less.
    pub fn learn(&mut self, frame: &[u8], (bundle, flags): (u32, BundleFlags), message: Message) {
        self.missed += 1;
        if self.missed > MISSES && !self.missed.is_multiple_of(MISSES) {
            return;
        }
        let Some(new) = Template::new(frame, (bundle, flags), message) else { return };
        self.give_back();
        if self.all.len() < MOST {
            self.all.push(new);
            self.last = self.all.len() - 1;
        } else {
            self.last = (self.last + 1) % MOST;
            self.all[self.last] = new;
        }
    }

    /// `frame` decoded, if it differs from what was learned only in values, and they are in order. `None` says nothing about it.
    pub fn fill(&mut self, dialect: Dialect, frame: &[u8]) -> Option<Filled<'_>> {
        let hopeless = self.missed > MISSES && self.missed % MISSES > TRIES;
        if hopeless || dialect != self.dialect || self.all.is_empty() || options::any_mapped() {
            return None;
        }
        self.give_back();
        let n = self.all.len();
        let at = (0..n).map(|i| (self.last + i) % n).find(|i| self.all[*i].fill(frame))?;
        self.last = at;
        let place = self.instructions(self.all[at].head.len(), frame)?;
        self.missed = 0;
        let Template { bundle, flags, message, .. } = &mut self.all[at];
        let Body::FlowMod(fm) = &mut message.body else { return None };
        fm.instructions = std::mem::take(&mut self.known[place].instructions);
        self.lent = Some(place);
        Some(Filled { bundle: *bundle, flags: *flags, message })
    }

    /// Puts instructions back where they belong.
    fn give_back(&mut self) {
        if let (Some(place), Some(t)) = (self.lent.take(), self.all.get_mut(self.last))
            && let Body::FlowMod(fm) = &mut t.message.body
        {
            self.known[place].instructions = std::mem::take(&mut fm.instructions);
        }
    }

    /// The place of the instructions that are the rest of `frame` from `start` on, decoded if they are not known; `None` when they are
    /// not in order.
    fn instructions(&mut self, start: usize, frame: &[u8]) -> Option<usize> {
        let bytes = frame.get(start..)?;
        let place = hash(bytes) as usize % KNOWN;
        if self.known.is_empty() {
            self.known.resize_with(KNOWN, Known::default);
        }
        let k = &mut self.known[place];
        if k.bytes != bytes {
            let instructions =
                read_instructions(self.dialect.version, &mut Reader::new(bytes, BadInstruction::BadLen))
                    .ok()?;
            *k = Known { bytes: bytes.to_vec(), instructions };
        }
        Some(place)
    }
}

/// Only says where to look.
fn hash(bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    let h = words.iter().fold(bytes.len() as u64, |h, w| {
        (h.rotate_left(5) ^ u64::from_be_bytes(*w)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    h >> 32
}

impl Template {
    fn new(frame: &[u8], (bundle, flags): (u32, BundleFlags), message: Message) -> Option<Template> {
        let Body::FlowMod(fm) = &message.body else { return None };
        // What tunnel options mean is agreed on meanwhile.
        let plain = fm.command == FlowModCommand::Add && !options::any_mapped();
        if !plain || frame.len() > LONGEST {
            return None;
        }
        let inner = bundled_at(frame)?;
        let (values, end) = values(frame, inner)?;
        let mut fixed = Vec::with_capacity(values.len() + 5);
        let mut from = 0;
        // Lengths and transactions.
        let vary = [2..HEADER_BYTES, inner + 2..inner + HEADER_BYTES];
        let head = [COOKIE, PRIORITY].map(|r| inner + r.start..inner + r.end);
        let fields = values.iter().map(|v| v.at..v.at + v.field.bytes);
        for r in vary.into_iter().chain(head).chain(fields) {
            // In the order of the message.
            fixed.push(from..r.start);
            from = r.end;
        }
        fixed.push(from..end);
        fixed.retain(|r| !r.is_empty());
        Some(Template { head: frame.get(..end)?.to_vec(), fixed, values, bundle, flags, message })
    }

    /// Takes the values of `frame`, all but its instructions, if it differs in nothing else and they are in order.
    fn fill(&mut self, frame: &[u8]) -> bool {
        self.fixed.iter().all(|r| frame.get(r.clone()) == self.head.get(r.clone()))
            && self.read(frame).is_some()
    }

    fn read(&mut self, frame: &[u8]) -> Option<()> {
        let at = bundled_at(frame)?;
        let inner = frame.get(at..)?;
        let (outer, header) = (Header::parse(frame)?, Header::parse(inner)?);
        // Nothing follows the flow-mod: no properties of the bundle.
        let whole = usize::from(outer.len) == frame.len() && usize::from(header.len) == inner.len();
        if !whole || outer.xid != header.xid {
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
        Some(())
    }
}

/// The values of the match of the flow-mod at `inner` that may vary, in their order, and where the match ends with its padding.
fn values(frame: &[u8], inner: usize) -> Option<(Vec<Value>, usize)> {
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
    Some((all, start + len.next_multiple_of(8)))
}
