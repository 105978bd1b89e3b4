//! Acknowledgements: the error number, and in extended ones the kernel's or the driver's words and the place in the request
//! that they are about (`linux/netlink.h`, NLMSGERR_ATTR_*).

use nix::errno::Errno;

use crate::error::CodecError;
use crate::filter::{FLOWER_ACT, TCA_OPTIONS, TCMSG};
use crate::keys::FlowerKey;
use crate::message::flag;
use crate::wire::{NLMSG_HEADER, attrs, read_text, read_u16, read_u32};

/// The answer to a request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ack {
    /// Error number, positive; 0 when the request was carried out.
    pub errno: i32,
    /// The kernel's or the driver's words; of a request that was carried out, a warning. Empty when there are none.
    pub text: String,
    /// Offset in the request, header included, of the attribute that is meant.
    pub offset: Option<u32>,
    /// Type of an attribute that is missing.
    pub missing: Option<u32>,
}

impl Ack {
    /// Reads the body of an error message with the flags of its header.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn read(flags: u16, body: &[u8]) -> Result<Ack, CodecError> {
        let what = "acknowledgement";
        let short = |n| CodecError::Length { what, wanted: n, found: body.len() };
        let code = read_u32(what, body.get(..4).ok_or(short(4))?)? as i32;
        let mut ack = Ack { errno: code.checked_neg().unwrap_or(i32::MAX).max(0), ..Ack::default() };
        if flags & flag::ACK_TLVS == 0 {
            return Ok(ack);
        }
        // The request's header follows, and the request itself unless it was cut off.
        let mut at = 4 + NLMSG_HEADER;
        if flags & flag::CAPPED == 0 {
            let len = read_u32(what, body.get(4..8).ok_or(short(8))?)? as usize;
            at = 4 + len.max(NLMSG_HEADER).next_multiple_of(4);
        }
        ack.read_attrs(body.get(at..).ok_or(short(at))?)?;
        Ok(ack)
    }

    /// Reads the end of a dump: the error number and, if they fit, attributes.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn read_done(flags: u16, body: &[u8]) -> Result<Ack, CodecError> {
        let code = body.get(..4).map_or(Ok(0), |b| read_u32("end of a dump", b))? as i32;
        let mut ack = Ack { errno: code.checked_neg().unwrap_or(i32::MAX).max(0), ..Ack::default() };
        if flags & flag::ACK_TLVS != 0 {
            ack.read_attrs(body.get(4..).unwrap_or_default())?;
        }
        Ok(ack)
    }

    fn read_attrs(&mut self, b: &[u8]) -> Result<(), CodecError> {
        for a in attrs(b) {
            match a? {
                (1, v) => self.text = read_text(v),
                (2, v) => self.offset = Some(read_u32("offset", v)?),
                (5, v) => self.missing = Some(read_u32("missing attribute", v)?),
                _ => {}
            }
        }
        Ok(())
    }

    /// The kernel's words or, where it has none, those of the error number.
    pub fn words(&self) -> &str {
        if self.text.is_empty() { Errno::from_raw(self.errno).desc() } else { &self.text }
    }

    /// The name of what is meant, given the request; empty when the kernel did not say.
    pub fn attribute(&self, request: &[u8]) -> String {
        match (self.offset, self.missing) {
            (Some(at), None) => name_at(request, at as usize).unwrap_or_else(|| format!("offset {at}")),
            (_, Some(kind)) => match u16::try_from(kind).ok().and_then(FlowerKey::by_attr) {
                Some(k) => format!("{} (missing)", k.row().name),
                None => format!("attribute {kind} (missing)"),
            },
            (None, None) => String::new(),
        }
    }
}

/// What lies at `at` of a request about a filter: `options/src_ip`, `options/actions/2/vlan`.
fn name_at(request: &[u8], at: usize) -> Option<String> {
    let mut begin = NLMSG_HEADER + TCMSG;
    let mut end = request.len();
    let mut path: Vec<String> = Vec::new();
    // What the attributes of this level are.
    let mut level = Level::Message;
    while begin < end {
        let len = usize::from(read_u16("", request.get(begin..begin + 2)?).ok()?).max(4);
        let kind = read_u16("", request.get(begin + 2..begin + 4)?).ok()? & 0x3fff;
        let next = begin + len.next_multiple_of(4);
        if at >= next {
            begin = next;
            continue;
        }
        let value = request.get(begin + 4..(begin + len).min(end))?;
        let (name, below) = level.name(kind, value);
        path.push(name);
        match below {
            Some(l) if at > begin => (level, begin, end) = (l, begin + 4, begin + len),
            _ => return Some(path.join("/")),
        }
    }
    (!path.is_empty()).then(|| path.join("/"))
}

#[derive(Clone, Copy)]
enum Level {
    Message,
    Flower,
    Actions,
}

impl Level {
    fn name(self, kind: u16, value: &[u8]) -> (String, Option<Level>) {
        match self {
            Level::Message => match kind {
                TCA_OPTIONS => ("options".into(), Some(Level::Flower)),
                1 => ("kind".into(), None),
                11 => ("chain".into(), None),
                13 => ("ingress_block".into(), None),
                k => (format!("attribute {k}"), None),
            },
            Level::Flower => match FlowerKey::by_attr(kind).or_else(|| FlowerKey::by_mask_attr(kind)) {
                Some(k) => (k.row().name.into(), None),
                None if kind == FLOWER_ACT => ("actions".into(), Some(Level::Actions)),
                None if kind == 22 => ("flags".into(), None),
                None => (format!("key {kind}"), None),
            },
            Level::Actions => {
                let what = crate::wire::find(value, 1).ok().flatten().map(read_text).unwrap_or_default();
                (format!("{kind}/{what}"), None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::{ActionSpec, TcAction, VlanAction};
    use crate::filter::{FilterAt, Flower, Hook};
    use crate::message::{Add, add_filter, messages};
    use crate::wire::{Writer, find};

    fn body(code: i32, request: &[u8], tlvs: &[u8]) -> Vec<u8> {
        [&code.to_ne_bytes()[..], request, tlvs].concat()
    }

    #[test]
    fn words_and_offset_are_read_behind_a_capped_and_a_whole_request() {
        let mut w = Writer::new();
        w.text(1, "no such thing");
        w.u32(2, 60);
        let tlvs = w.bytes().to_vec();
        let mut r = Writer::new();
        let m = r.message(44, 5, 1);
        r.u32(9, 9);
        r.end_message(m);
        for (flags, request) in [(0x300, &r.bytes()[..16]), (0x200, r.bytes())] {
            let a = Ack::read(flags, &body(-95, request, &tlvs)).unwrap();
            assert_eq!((a.errno, a.text.as_str(), a.offset), (95, "no such thing", Some(60)));
        }
        let a = Ack::read(0, &body(-17, r.bytes(), &[])).unwrap();
        assert_eq!(a, Ack { errno: 17, ..Ack::default() });
        assert_eq!(Ack::read(0x100, &body(0, &r.bytes()[..16], &[])).unwrap().errno, 0);
    }

    #[test]
    fn the_attribute_that_is_meant_has_a_name() {
        let mut f = Flower::default();
        f.set(FlowerKey::EthType, 0x0800);
        f.set(FlowerKey::IpProto, 6);
        f.actions.push(TcAction::pipe(ActionSpec::Vlan(VlanAction::Pop)));
        let at = FilterAt { hook: Hook::Ingress(3), chain: 0, prio: 1, protocol: 0x0800, handle: 1 };
        let mut w = Writer::new();
        add_filter(&mut w, 1, &at, &f, Add::New);
        let request = w.bytes();
        let m = messages(request).next().unwrap().unwrap();
        let options = find(&m.body[20..], 2).unwrap().unwrap();
        let base = options.as_ptr() as usize - request.as_ptr() as usize;
        let name = |offset: usize| Ack { offset: Some(offset as u32), ..Ack::default() }.attribute(request);
        assert_eq!(name(base), "options/eth_type");
        assert_eq!(name(base + 8), "options/ip_proto");
        assert_eq!(name(base + 20), "options/actions/1/vlan");
        assert_eq!(name(base - 4), "options");
        assert_eq!(name(36), "kind");
        assert_eq!(name(99_999), "offset 99999");
        let missing = Ack { missing: Some(8), ..Ack::default() };
        assert_eq!(missing.attribute(request), "eth_type (missing)");
    }

    #[test]
    fn damaged_acknowledgements_are_errors() {
        assert!(Ack::read(0, &[1, 2]).is_err());
        assert!(Ack::read(0x200, &body(-1, &[0xff; 16], &[])).is_err());
        assert_eq!(Ack::read(0, &i32::MIN.to_ne_bytes()).unwrap().errno, i32::MAX);
    }
}
