//! An action as a nest: kind, options, cookie, statistics.

use super::packet::{self, TC_GEN};
use super::{ActionReport, ActionSpec, Cookie, MAX_ACTIONS, TcAction, Verdict, act_flags, path, state};
use crate::error::CodecError;
use crate::wire::{NESTED, Writer, attrs, find, read_text, read_u32, word};

const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const STATS: u16 = 4;
const COOKIE: u16 = 6;
const FLAGS: u16 = 7;
const HW_STATS: u16 = 8;
const USED_HW_STATS: u16 = 9;
const IN_HW_COUNT: u16 = 10;
/// Kinds of hardware statistics that a selector names: all of them.
const ALL_HW_STATS: u32 = 3;

/// Writes `actions` into the nest `kind`, numbered from 1.
pub fn put_actions(w: &mut Writer, kind: u16, actions: &[TcAction]) {
    let all = w.nest(kind);
    for (i, a) in actions.iter().enumerate() {
        let n = w.nest(i as u16 + 1);
        put_action(w, a);
        w.end(n);
    }
    w.end(all);
}

/// Writes the contents of one action's nest.
pub fn put_action(w: &mut Writer, a: &TcAction) {
    w.text(KIND, a.spec.kind());
    let mut head = [0u8; TC_GEN];
    head[..4].copy_from_slice(&a.index.to_ne_bytes());
    head[8..12].copy_from_slice(&a.verdict.raw().to_ne_bytes());
    let options = w.nest(OPTIONS | NESTED);
    match &a.spec {
        ActionSpec::Mirred { .. }
        | ActionSpec::Skbedit(_)
        | ActionSpec::Sample { .. }
        | ActionSpec::Police(_) => {
            path::put(w, &a.spec, &head);
        }
        ActionSpec::TunnelUnset | ActionSpec::TunnelSet(_) | ActionSpec::Ct(_) => {
            state::put(w, &a.spec, &head)
        }
        _ => packet::put(w, &a.spec, &head),
    }
    w.end(options);
    if let Some(c) = &a.cookie {
        w.attr(COOKIE, c.bytes());
    }
    if a.flags != 0 {
        put_bits(w, FLAGS, a.flags & act_flags::ALL, a.flags & act_flags::ALL);
    }
    if let Some(v) = a.hw_stats {
        // As tc has it: what is asked for selects itself, and nothing at all is said about every kind.
        put_bits(w, HW_STATS, v.into(), if v == 0 { ALL_HW_STATS } else { v.into() });
    }
}

/// Writes a `struct nla_bitfield32`.
pub(crate) fn put_bits(w: &mut Writer, kind: u16, value: u32, selector: u32) {
    let n = w.nest(kind);
    w.raw(&value.to_ne_bytes());
    w.raw(&selector.to_ne_bytes());
    w.end(n);
}

/// Reads the actions in a nest.
///
/// # Errors
/// [`CodecError`]: damaged, or of a kind this module does not know.
pub fn get_actions(b: &[u8]) -> Result<Vec<(TcAction, ActionReport)>, CodecError> {
    let mut out = Vec::new();
    for a in attrs(b) {
        if out.len() == MAX_ACTIONS {
            return Err(CodecError::TooMany("actions"));
        }
        out.push(get_action(a?.1)?);
    }
    Ok(out)
}

/// Reads one action.
///
/// # Errors
/// As [`get_actions`].
pub fn get_action(b: &[u8]) -> Result<(TcAction, ActionReport), CodecError> {
    let mut report = ActionReport::default();
    let (mut kind, mut options) = (None, None);
    let (mut cookie, mut hw_stats, mut flags) = (None, None, 0);
    for a in attrs(b) {
        match a? {
            (KIND, v) => kind = Some(read_text(v)),
            (OPTIONS, v) => options = Some(v),
            (STATS, v) => report.read_stats(v)?,
            (COOKIE, v) => cookie = Cookie::new(v),
            (FLAGS, v) => flags = word("action flags", v, 0)? & act_flags::ALL,
            (HW_STATS, v) => hw_stats = Some(word("hardware statistics", v, 0)? as u8),
            (USED_HW_STATS, v) => report.used_hw_stats = word("hardware statistics", v, 0)? as u8,
            (IN_HW_COUNT, v) => report.in_hw_count = read_u32("hardware count", v)?,
            _ => {}
        }
    }
    let kind = kind.ok_or(CodecError::Missing("kind of action"))?;
    let options = options.ok_or(CodecError::Missing("options of an action"))?;
    let (spec, verdict) = get_spec(&kind, options, &mut report)?;
    Ok((TcAction { spec, verdict, index: report.index, cookie, hw_stats, flags }, report))
}

/// Whether filters share it, and the action's statistics and cookie only, as a terse dump has them.
///
/// # Errors
/// [`CodecError`].
pub(crate) fn get_terse(b: &[u8]) -> Result<(bool, Option<Cookie>, ActionReport), CodecError> {
    let mut report = ActionReport::default();
    let (mut shared, mut cookie) = (false, None);
    for a in attrs(b) {
        match a? {
            (KIND, v) => shared = v.strip_suffix(&[0]).unwrap_or(v) == b"police",
            (STATS, v) => report.read_stats(v)?,
            (COOKIE, v) => cookie = Cookie::new(v),
            (USED_HW_STATS, v) => report.used_hw_stats = word("hardware statistics", v, 0)? as u8,
            _ => {}
        }
    }
    Ok((shared, cookie, report))
}

/// Attribute numbers of parameters and times: most kinds have them one way round, three the other.
fn places(kind: &str) -> (u16, u16) {
    match kind {
        "csum" | "ct" => (1, 2),
        "police" => (1, 6),
        _ => (2, 1),
    }
}

fn get_spec(kind: &str, b: &[u8], report: &mut ActionReport) -> Result<(ActionSpec, Verdict), CodecError> {
    let (parms, times) = places(kind);
    if let Some(t) = find(b, times)? {
        report.read_times(t)?;
    }
    if kind == "police" {
        let (p, verdict, index, users) = path::get_police(b)?;
        (report.index, report.users) = (index, users);
        return Ok((ActionSpec::Police(p), verdict));
    }
    let (pedit, params) = match kind {
        "pedit" => packet::get_pedit(b).map(|(k, p)| (Some(k), p))?,
        _ => (None, find(b, parms)?.ok_or(CodecError::Missing("parameters of an action"))?),
    };
    let what = "parameters of an action";
    report.index = word(what, params, 0)?;
    report.users = (word(what, params, 3)?, word(what, params, 4)?);
    let verdict = Verdict::from_raw(word(what, params, 2)? as i32)?;
    let spec = match kind {
        "gact" => ActionSpec::Gact,
        "mirred" => path::get_mirred(params)?,
        "vlan" => ActionSpec::Vlan(packet::get_vlan(b, params)?),
        "pedit" => ActionSpec::Pedit(pedit.unwrap_or_default()),
        "csum" => ActionSpec::Csum(word(what, params, 5)?),
        "tunnel_key" => state::get_tunnel(b, params)?,
        "ct" => state::get_ct(b)?,
        "skbedit" => path::get_skbedit(b)?,
        "mpls" => packet::get_mpls(b, params)?,
        "sample" => path::get_sample(b)?,
        _ => return Err(CodecError::Value { what: "kind of action", value: kind.len() as u64 }),
    };
    Ok((spec, verdict))
}
