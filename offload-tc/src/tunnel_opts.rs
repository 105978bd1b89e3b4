//! Options of tunnel headers, in flower's keys and in the tunnel key action alike (`linux/pkt_cls.h`,
//! `linux/tc_act/tc_tunnel_key.h`).

use crate::error::CodecError;
use crate::wire::{NESTED, Writer, attrs, exact, read_u8, read_u32};

/// Options that fit into one nest; the kernel's limit is 255 bytes of Geneve options.
pub const MAX_OPTS: usize = 64;

/// One option, or its mask.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum TunnelOpt {
    /// RFC 8926 3.5. `data` is a multiple of four bytes long.
    Geneve { class: u16, kind: u8, data: Vec<u8> },
    /// Group policy of VXLAN (draft-smith-vxlan-group-policy).
    VxlanGbp(u32),
    /// Header of ERSPAN version 1 (`index`) or 2 (`dir`, `hwid`).
    Erspan { version: u8, index: u32, dir: u8, hwid: u8 },
    /// PDU session container of GTP; flower only.
    Gtp { pdu_type: u8, qfi: u8 },
    /// PFCP; flower only.
    Pfcp { kind: u8, seid: u64 },
}

/// Writes the nest `kind` with `opts`.
pub(crate) fn put(w: &mut Writer, kind: u16, opts: &[TunnelOpt]) {
    let all = w.nest(kind | NESTED);
    for o in opts {
        match o {
            TunnelOpt::Geneve { class, kind, data } => {
                let n = w.nest(1 | NESTED);
                w.attr(1, &class.to_be_bytes());
                w.u8(2, *kind);
                w.attr(3, data);
                w.end(n);
            }
            TunnelOpt::VxlanGbp(gbp) => {
                let n = w.nest(2 | NESTED);
                w.u32(1, *gbp);
                w.end(n);
            }
            TunnelOpt::Erspan { version, index, dir, hwid } => {
                let n = w.nest(3 | NESTED);
                w.u8(1, *version);
                w.attr(2, &index.to_be_bytes());
                w.u8(3, *dir);
                w.u8(4, *hwid);
                w.end(n);
            }
            TunnelOpt::Gtp { pdu_type, qfi } => {
                let n = w.nest(4 | NESTED);
                w.u8(1, *pdu_type);
                w.u8(2, *qfi);
                w.end(n);
            }
            TunnelOpt::Pfcp { kind, seid } => {
                let n = w.nest(5 | NESTED);
                w.u8(1, *kind);
                w.attr(2, &seid.to_be_bytes());
                w.end(n);
            }
        }
    }
    w.end(all);
}

/// Reads the contents of such a nest. What is left out of an option is zero.
pub(crate) fn get(b: &[u8]) -> Result<Vec<TunnelOpt>, CodecError> {
    let mut out = Vec::new();
    for a in attrs(b) {
        if out.len() == MAX_OPTS {
            return Err(CodecError::TooMany("tunnel options"));
        }
        let (kind, v) = a?;
        out.push(one(kind, v)?);
    }
    Ok(out)
}

fn one(kind: u16, b: &[u8]) -> Result<TunnelOpt, CodecError> {
    let mut o = match kind {
        1 => TunnelOpt::Geneve { class: 0, kind: 0, data: Vec::new() },
        2 => TunnelOpt::VxlanGbp(0),
        3 => TunnelOpt::Erspan { version: 0, index: 0, dir: 0, hwid: 0 },
        4 => TunnelOpt::Gtp { pdu_type: 0, qfi: 0 },
        5 => TunnelOpt::Pfcp { kind: 0, seid: 0 },
        k => return Err(CodecError::Value { what: "kind of tunnel option", value: k.into() }),
    };
    for a in attrs(b) {
        let (at, v) = a?;
        match (&mut o, at) {
            (TunnelOpt::Geneve { class, .. }, 1) => *class = u16::from_be_bytes(exact("geneve class", v)?),
            (TunnelOpt::Geneve { kind, .. }, 2) => *kind = read_u8("geneve type", v)?,
            (TunnelOpt::Geneve { data, .. }, 3) => *data = v.to_vec(),
            (TunnelOpt::VxlanGbp(gbp), 1) => *gbp = read_u32("vxlan gbp", v)?,
            (TunnelOpt::Erspan { version, .. }, 1) => *version = read_u8("erspan version", v)?,
            (TunnelOpt::Erspan { index, .. }, 2) => *index = u32::from_be_bytes(exact("erspan index", v)?),
            (TunnelOpt::Erspan { dir, .. }, 3) => *dir = read_u8("erspan direction", v)?,
            (TunnelOpt::Erspan { hwid, .. }, 4) => *hwid = read_u8("erspan hardware id", v)?,
            (TunnelOpt::Gtp { pdu_type, .. }, 1) => *pdu_type = read_u8("gtp pdu type", v)?,
            (TunnelOpt::Gtp { qfi, .. }, 2) => *qfi = read_u8("gtp qfi", v)?,
            (TunnelOpt::Pfcp { kind, .. }, 1) => *kind = read_u8("pfcp type", v)?,
            (TunnelOpt::Pfcp { seid, .. }, 2) => *seid = u64::from_be_bytes(exact("pfcp seid", v)?),
            // Padding, or newer than this.
            _ => {}
        }
    }
    Ok(o)
}

/// One entry of an MPLS label stack match; what is `None` is not matched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct LseMatch {
    /// Place in the stack, 1 outermost, to 7.
    pub depth: u8,
    pub ttl: Option<u8>,
    pub bos: Option<u8>,
    pub tc: Option<u8>,
    pub label: Option<u32>,
}

/// Writes TCA_FLOWER_KEY_MPLS_OPTS.
pub(crate) fn put_lse(w: &mut Writer, kind: u16, stack: &[LseMatch]) {
    let all = w.nest(kind | NESTED);
    for l in stack {
        let n = w.nest(1 | NESTED);
        w.u8(1, l.depth);
        for (at, v) in [(2, l.ttl), (3, l.bos), (4, l.tc)] {
            if let Some(v) = v {
                w.u8(at, v);
            }
        }
        if let Some(v) = l.label {
            w.u32(5, v);
        }
        w.end(n);
    }
    w.end(all);
}

/// Reads it.
pub(crate) fn get_lse(b: &[u8]) -> Result<Vec<LseMatch>, CodecError> {
    let mut out: Vec<LseMatch> = Vec::new();
    for a in attrs(b) {
        if out.len() == 7 {
            return Err(CodecError::TooMany("label stack entries"));
        }
        let (_, b) = a?;
        let mut l = LseMatch::default();
        for a in attrs(b) {
            let (at, v) = a?;
            match at {
                1 => l.depth = read_u8("lse depth", v)?,
                2 => l.ttl = Some(read_u8("lse ttl", v)?),
                3 => l.bos = Some(read_u8("lse bos", v)?),
                4 => l.tc = Some(read_u8("lse tc", v)?),
                5 => l.label = Some(read_u32("lse label", v)?),
                _ => {}
            }
        }
        out.push(l);
    }
    Ok(out)
}

/// A match on connectivity fault management (IEEE 802.1ag).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct CfmMatch {
    pub level: Option<u8>,
    pub opcode: Option<u8>,
}

/// Writes TCA_FLOWER_KEY_CFM.
pub(crate) fn put_cfm(w: &mut Writer, kind: u16, c: &CfmMatch) {
    let n = w.nest(kind | NESTED);
    for (at, v) in [(1, c.level), (2, c.opcode)] {
        if let Some(v) = v {
            w.u8(at, v);
        }
    }
    w.end(n);
}

/// Reads it.
pub(crate) fn get_cfm(b: &[u8]) -> Result<CfmMatch, CodecError> {
    let mut c = CfmMatch::default();
    for a in attrs(b) {
        match a? {
            (1, v) => c.level = Some(read_u8("cfm level", v)?),
            (2, v) => c.opcode = Some(read_u8("cfm opcode", v)?),
            (k, _) => return Err(CodecError::Value { what: "cfm key", value: k.into() }),
        }
    }
    Ok(c)
}
