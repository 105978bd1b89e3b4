//! Whole requests to the kernel's traffic control, and its messages told apart.

use crate::action::{self, TcAction};
use crate::error::CodecError;
use crate::filter::{FilterAt, Flower, Hook, TCA_CHAIN, TCA_KIND, TCA_OPTIONS};
use crate::wire::{NLMSG_HEADER, Writer, read_u16, read_u32};

/// Types of messages (`linux/rtnetlink.h`, `linux/netlink.h`).
#[allow(missing_docs)]
pub mod kind {
    pub const ERROR: u16 = 2;
    pub const DONE: u16 = 3;
    pub const OVERRUN: u16 = 4;
    pub const NEW_LINK: u16 = 16;
    pub const DEL_LINK: u16 = 17;
    pub const GET_LINK: u16 = 18;
    pub const NEW_QDISC: u16 = 36;
    pub const DEL_QDISC: u16 = 37;
    pub const NEW_FILTER: u16 = 44;
    pub const DEL_FILTER: u16 = 45;
    pub const GET_FILTER: u16 = 46;
    pub const NEW_ACTION: u16 = 48;
    pub const DEL_ACTION: u16 = 49;
    pub const GET_ACTION: u16 = 50;
}

/// Flags of messages (`linux/netlink.h`).
#[allow(missing_docs)]
pub mod flag {
    pub const REQUEST: u16 = 0x1;
    pub const MULTI: u16 = 0x2;
    pub const ACK: u16 = 0x4;
    pub const ECHO: u16 = 0x8;
    pub const DUMP_INTR: u16 = 0x10;
    pub const DUMP: u16 = 0x300;
    pub const REPLACE: u16 = 0x100;
    pub const EXCL: u16 = 0x200;
    pub const CREATE: u16 = 0x400;
    /// In an error message: the request was cut off it.
    pub const CAPPED: u16 = 0x100;
    /// In an error message: attributes follow.
    pub const ACK_TLVS: u16 = 0x200;
}

const TCA_DUMP_FLAGS: u16 = 15;
const TCA_INGRESS_BLOCK: u16 = 13;
const DUMP_TERSE: u32 = 1;
/// Table of actions in a message about actions.
const TCA_ACT_TAB: u16 = 1;
const TCA_ROOT_FLAGS: u16 = 2;
const LARGE_DUMP: u32 = 1;

fn tcmsg(w: &mut Writer, ifindex: u32, handle: u32, parent: u32, info: u32) {
    for v in [0, ifindex, handle, parent, info] {
        w.raw(&v.to_ne_bytes());
    }
}

fn filter_head(w: &mut Writer, at: &FilterAt) {
    let (ifindex, parent) = at.hook.raw();
    tcmsg(w, ifindex, at.handle, parent, u32::from(at.prio) << 16 | u32::from(at.protocol.to_be()));
}

/// How a filter is added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Add {
    /// It must not be there.
    New,
    /// It must not be there; the kernel answers with the filter as it has it, then the acknowledgement.
    NewAndTell,
    /// It must not be there; the kernel answers with the filter as it has it, or with a refusal: one answer to be read instead of two.
    NewTold,
    /// The one that is there is changed, if there is one.
    Replace,
}

/// Adds a filter.
pub fn add_filter(w: &mut Writer, seq: u32, at: &FilterAt, f: &Flower, how: Add) {
    let silent = how == Add::NewTold;
    let how = match how {
        Add::New => flag::EXCL,
        Add::NewAndTell | Add::NewTold => flag::EXCL | flag::ECHO,
        Add::Replace => 0,
    } | if silent { 0 } else { flag::ACK };
    let m = w.message(kind::NEW_FILTER, flag::REQUEST | flag::CREATE | how, seq);
    filter_head(w, at);
    w.text(TCA_KIND, "flower");
    w.u32(TCA_CHAIN, at.chain);
    let o = w.nest(TCA_OPTIONS);
    f.put(w);
    w.end(o);
    w.end_message(m);
}

/// Removes a filter. The kernel answers with the filter as it last was, then the acknowledgement.
pub fn delete_filter(w: &mut Writer, seq: u32, at: &FilterAt) {
    about_filter(w, kind::DEL_FILTER, flag::ACK | flag::ECHO, seq, at);
}

/// Removes a filter. The kernel answers with the filter as it last was, or with a refusal.
pub fn delete_filter_told(w: &mut Writer, seq: u32, at: &FilterAt) {
    about_filter(w, kind::DEL_FILTER, flag::ECHO, seq, at);
}

/// Asks for a filter.
pub fn get_filter(w: &mut Writer, seq: u32, at: &FilterAt) {
    about_filter(w, kind::GET_FILTER, flag::ACK, seq, at);
}

fn about_filter(w: &mut Writer, what: u16, more: u16, seq: u32, at: &FilterAt) {
    let m = w.message(what, flag::REQUEST | more, seq);
    filter_head(w, at);
    w.text(TCA_KIND, "flower");
    w.u32(TCA_CHAIN, at.chain);
    w.end_message(m);
}

/// Asks for every filter on a hook, of all chains; `terse` for counters and cookies only (Linux 5.8).
pub fn dump_filters(w: &mut Writer, seq: u32, hook: Hook, terse: bool) {
    let m = w.message(kind::GET_FILTER, flag::REQUEST | flag::DUMP, seq);
    let (ifindex, parent) = hook.raw();
    tcmsg(w, ifindex, 0, parent, 0);
    if terse {
        action::put_bits(w, TCA_DUMP_FLAGS, DUMP_TERSE, DUMP_TERSE);
    }
    w.end_message(m);
}

/// Handle and parent of a clsact qdisc.
const CLSACT: (u32, u32) = (0xffff_0000, 0xffff_fff1);

/// Gives an interface a clsact qdisc, whose ingress half is the shared block `block` when there is one.
pub fn add_clsact(w: &mut Writer, seq: u32, ifindex: u32, block: Option<u32>) {
    let m = w.message(kind::NEW_QDISC, flag::REQUEST | flag::ACK | flag::CREATE | flag::EXCL, seq);
    tcmsg(w, ifindex, CLSACT.0, CLSACT.1, 0);
    w.text(TCA_KIND, "clsact");
    if let Some(b) = block {
        w.u32(TCA_INGRESS_BLOCK, b);
    }
    w.end_message(m);
}

/// Takes an interface's clsact qdisc away, with every filter on it.
pub fn delete_clsact(w: &mut Writer, seq: u32, ifindex: u32) {
    let m = w.message(kind::DEL_QDISC, flag::REQUEST | flag::ACK, seq);
    tcmsg(w, ifindex, CLSACT.0, CLSACT.1, 0);
    w.text(TCA_KIND, "clsact");
    w.end_message(m);
}

/// Makes an action that filters share by its number; `change` changes the one that is there, if there is one.
pub fn put_shared_action(w: &mut Writer, seq: u32, a: &TcAction, change: bool) {
    let how = if change { flag::REPLACE } else { flag::EXCL };
    let m = w.message(kind::NEW_ACTION, flag::REQUEST | flag::ACK | flag::CREATE | how, seq);
    w.raw(&[0; 4]);
    action::put_actions(w, TCA_ACT_TAB, std::slice::from_ref(a));
    w.end_message(m);
}

fn about_action(w: &mut Writer, what: u16, seq: u32, kind: &str, index: u32) {
    let m = w.message(what, flag::REQUEST | flag::ACK, seq);
    w.raw(&[0; 4]);
    let all = w.nest(TCA_ACT_TAB);
    let one = w.nest(1);
    w.text(1, kind);
    w.u32(3, index);
    w.end(one);
    w.end(all);
    w.end_message(m);
}

/// Removes a shared action, which no filter may use.
pub fn delete_shared_action(w: &mut Writer, seq: u32, kind: &str, index: u32) {
    about_action(w, kind::DEL_ACTION, seq, kind, index);
}

/// Asks for a shared action.
pub fn get_shared_action(w: &mut Writer, seq: u32, kind: &str, index: u32) {
    about_action(w, kind::GET_ACTION, seq, kind, index);
}

/// Asks for every action of a kind that has a number of its own.
pub fn dump_shared_actions(w: &mut Writer, seq: u32, kind: &str) {
    let m = w.message(kind::GET_ACTION, flag::REQUEST | flag::DUMP, seq);
    w.raw(&[0; 4]);
    let all = w.nest(TCA_ACT_TAB);
    let one = w.nest(1);
    w.text(1, kind);
    w.end(one);
    w.end(all);
    // As many in a message as there is room for.
    action::put_bits(w, TCA_ROOT_FLAGS, LARGE_DUMP, LARGE_DUMP);
    w.end_message(m);
}

/// All actions in a message about actions.
///
/// # Errors
/// [`CodecError`].
pub fn read_shared_actions(body: &[u8]) -> Result<Vec<(TcAction, action::ActionReport)>, CodecError> {
    let b = body.get(4..).ok_or(CodecError::Missing("tcamsg"))?;
    let Some(tab) = crate::wire::find(b, TCA_ACT_TAB)? else { return Ok(Vec::new()) };
    crate::wire::attrs(tab).map(|a| action::get_action(a?.1)).collect()
}

/// The first action in a message about actions.
///
/// # Errors
/// [`CodecError`].
pub fn read_shared_action(body: &[u8]) -> Result<(TcAction, action::ActionReport), CodecError> {
    let b = body.get(4..).ok_or(CodecError::Missing("tcamsg"))?;
    let tab = crate::wire::find(b, TCA_ACT_TAB)?.ok_or(CodecError::Missing("actions"))?;
    action::get_actions(tab)?.into_iter().next().ok_or(CodecError::Missing("actions"))
}

/// One netlink message in a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// Type.
    pub kind: u16,
    /// Flags.
    pub flags: u16,
    /// Number of the request it belongs to.
    pub seq: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

/// The messages in a datagram, in order. Stops after the first that is not well-formed, with the error.
pub fn messages(mut b: &[u8]) -> impl Iterator<Item = Result<Message<'_>, CodecError>> {
    std::iter::from_fn(move || {
        if b.is_empty() {
            return None;
        }
        let one = split(b);
        b = match &one {
            Ok((_, rest)) => rest,
            Err(_) => &[],
        };
        Some(one.map(|(m, _)| m))
    })
}

fn split(b: &[u8]) -> Result<(Message<'_>, &[u8]), CodecError> {
    let what = "netlink message";
    let short = CodecError::Length { what, wanted: NLMSG_HEADER, found: b.len() };
    let head = b.get(..NLMSG_HEADER).ok_or(short)?;
    let len = read_u32(what, &head[..4])? as usize;
    let whole = b.get(..len).filter(|_| len >= NLMSG_HEADER);
    let whole = whole.ok_or(CodecError::Length { what, wanted: len, found: b.len() })?;
    let m = Message {
        kind: read_u16(what, &head[4..6])?,
        flags: read_u16(what, &head[6..8])?,
        seq: read_u32(what, &head[8..12])?,
        body: &whole[NLMSG_HEADER..],
    };
    Ok((m, b.get(len.next_multiple_of(4)..).unwrap_or_default()))
}
