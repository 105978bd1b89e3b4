//! From text to actions and instructions.

use flow::text::Reason;
use flow::text::value::{self, PortByName, parse_port, parse_value};
use flow::{FieldId, PipelineMatch};

use super::field_name::{field, parse_subfield};
use super::format_action::REASONS;
use super::parse_extension::{self as extension, arguments, hex_bytes};
use super::{FlowTextError, name_and_argument, split};
use crate::action::Action;
use crate::extension::{Ct, CtFlags, CtZone};
use crate::flow_mod::Instructions;
use crate::number::{GroupId, MeterNo, PortNo, QueueNo, TableId};

type Parsed<T> = Result<T, Reason>;

/// Reads what follows `actions=`; `matches` is the flow's match.
///
/// # Errors
/// [`FlowTextError`] with the offending action.
pub fn parse_actions(
    text: &str,
    matches: &PipelineMatch,
    ports: PortByName<'_>,
) -> Result<Instructions, FlowTextError> {
    let mut i = Instructions::default();
    // The same text means the same whatever the match; only the encoder looks at it.
    let _ = matches;
    let mut list = ActionList { ports, depth: 0, actions: Vec::new() };
    for piece in split(text)? {
        let (name, arg) = name_and_argument(piece);
        let wrong = |reason| FlowTextError::Argument { action: piece.to_owned(), reason };
        match name.to_ascii_lowercase().as_str() {
            "goto_table" => i.goto_table = Some(TableId(number(arg, 8).map_err(wrong)? as u8)),
            "meter" => i.meter = Some(MeterNo(number(arg, 32).map_err(wrong)? as u32)),
            "clear_actions" => i.clear = true,
            "write_metadata" => {
                let (v, m) = masked(arg, 64).map_err(wrong)?;
                i.metadata = Some((v as u64, m as u64));
            }
            "write_actions" => {
                let mut inner = ActionList { actions: Vec::new(), ..list };
                for piece in split(arg)? {
                    inner.add(piece)?;
                }
                i.write = inner.actions;
            }
            "apply_actions" => {
                for piece in split(arg)? {
                    list.add(piece)?;
                }
            }
            _ => list.add(piece)?,
        }
    }
    i.apply = list.actions;
    Ok(i)
}

/// A list of actions as far as it is read.
struct ActionList<'a> {
    ports: PortByName<'a>,
    /// How many lists it is in.
    depth: usize,
    actions: Vec<Action>,
}

impl ActionList<'_> {
    fn add(&mut self, piece: &str) -> Result<(), FlowTextError> {
        let (name, arg) = name_and_argument(piece);
        match self.known(&name.to_ascii_lowercase(), arg) {
            Ok(true) => Ok(()),
            // A port by itself: output.
            Ok(false) if arg.is_empty() => match parse_port(piece, self.ports) {
                Ok(p) => {
                    self.output(PortNo(p), 0);
                    Ok(())
                }
                Err(_) => Err(FlowTextError::UnknownAction(piece.to_owned())),
            },
            Ok(false) => Err(FlowTextError::UnknownAction(piece.to_owned())),
            Err(reason) => Err(FlowTextError::Argument { action: piece.to_owned(), reason }),
        }
    }

    fn output(&mut self, port: PortNo, max_len: u16) {
        self.actions.push(Action::Output { port, max_len });
    }

    /// Sets a field in the form of OpenFlow 1.0 and 1.1.
    fn set_legacy(&mut self, field: FieldId, arg: &str) -> Parsed<()> {
        let (v, mask) = parse_value(field, arg, self.ports)?;
        if mask != field.info().max() {
            return Err(Reason::BadMask(field.info().name));
        }
        self.actions.push(Action::SetLegacy { field, value: v as u64 });
        Ok(())
    }

    /// Actions in the parentheses of another.
    fn inner(&self, arg: &str) -> Parsed<Vec<Action>> {
        if self.depth >= crate::wire::MAX_NESTING {
            return Err(Reason::Expected("less nesting"));
        }
        let mut list = ActionList { ports: self.ports, depth: self.depth + 1, actions: Vec::new() };
        for piece in arguments(arg)? {
            list.add(piece).map_err(|e| match e {
                FlowTextError::Argument { reason, .. } => reason,
                _ => Reason::UnknownKeyword,
            })?;
        }
        Ok(list.actions)
    }

    /// Adds an action by name; false when the name is none.
    fn known(&mut self, name: &str, arg: &str) -> Parsed<bool> {
        use FieldId::*;
        match name {
            "drop" => {}
            "output" => self.parse_output(arg)?,
            "controller" => self.controller(arg)?,
            "enqueue" => {
                let (port, queue) = arg.rsplit_once([':', ',']).ok_or(Reason::Expected("port:queue"))?;
                let (port, queue) = (PortNo(parse_port(port, self.ports)?), number(queue, 32)? as u32);
                self.actions.push(Action::Enqueue { port, queue: QueueNo(queue) });
            }
            "group" => self.actions.push(Action::Group(GroupId(number(arg, 32)? as u32))),
            "set_queue" => self.actions.push(Action::SetQueue(QueueNo(number(arg, 32)? as u32))),
            "pop_queue" => self.actions.push(Action::PopQueue),
            "exit" => self.actions.push(Action::Exit),
            "strip_vlan" => self.actions.push(Action::StripVlan),
            "pop_vlan" => self.actions.push(Action::PopVlan),
            "push_vlan" => self.actions.push(Action::PushVlan(eth_type(arg, &[0x8100, 0x88a8])?)),
            "mod_vlan_vid" | "set_vlan_vid" => {
                let vid = number(arg, 12)? as u16;
                self.actions.push(Action::SetVlanVid { vid, push: name == "mod_vlan_vid" });
            }
            "mod_vlan_pcp" | "set_vlan_pcp" => {
                let pcp = number(arg, 3)? as u8;
                self.actions.push(Action::SetVlanPcp { pcp, push: name == "mod_vlan_pcp" });
            }
            "mod_dl_src" => self.set_legacy(EthSrc, arg)?,
            "mod_dl_dst" => self.set_legacy(EthDst, arg)?,
            "mod_nw_src" => self.set_legacy(NwSrc, arg)?,
            "mod_nw_dst" => self.set_legacy(NwDst, arg)?,
            "mod_tp_src" => self.set_legacy(TpSrc, arg)?,
            "mod_tp_dst" => self.set_legacy(TpDst, arg)?,
            "mod_nw_tos" => match number(arg, 8)? {
                v if v & 3 == 0 => {
                    self.actions.push(Action::SetLegacy { field: IpDscp, value: v as u64 >> 2 })
                }
                _ => return Err(Reason::Expected("a multiple of 4")),
            },
            "mod_nw_ecn" => self.set_legacy(IpEcn, arg)?,
            "mod_nw_ttl" => self.actions.push(Action::SetNwTtl(number(arg, 8)? as u8)),
            "dec_ttl" => {
                let ids = arg.split(',').filter(|s| !s.is_empty());
                let controllers =
                    ids.map(|s| number(s.trim(), 16).map(|v| v as u16)).collect::<Parsed<_>>()?;
                self.actions.push(Action::DecNwTtl { controllers });
            }
            "push_mpls" => self.actions.push(Action::PushMpls(eth_type(arg, &[0x8847, 0x8848])?)),
            "pop_mpls" => self.actions.push(Action::PopMpls(number(arg, 16)? as u16)),
            "set_mpls_label" => self.set_legacy(MplsLabel, arg)?,
            "set_mpls_tc" => self.set_legacy(MplsTc, arg)?,
            "set_mpls_ttl" => self.actions.push(Action::SetMplsTtl(number(arg, 8)? as u8)),
            "dec_mpls_ttl" => self.actions.push(Action::DecMplsTtl),
            "set_tunnel" | "set_tunnel64" => {
                let id = number(arg, 64)? as u64;
                let wide = name == "set_tunnel64" || u32::try_from(id).is_err();
                self.actions.push(Action::SetTunnel { id, wide });
            }
            "push" => self.actions.push(Action::StackPush(parse_subfield(arg)?)),
            "pop" => {
                let s = parse_subfield(arg)?;
                writable(s.field)?;
                self.actions.push(Action::StackPop(s));
            }
            "learn" => self.actions.push(Action::Learn(Box::new(extension::learn(arg, self.ports)?))),
            "bundle" | "bundle_load" => {
                let b = extension::bundle(arg, name == "bundle_load", self.ports)?;
                self.actions.push(Action::Bundle(Box::new(b)));
            }
            "multipath" => self.actions.push(Action::Multipath(Box::new(extension::multipath(arg)?))),
            "conjunction" => {
                let (id, clause, n_clauses) = extension::conjunction(arg)?;
                self.actions.push(Action::Conjunction { id, clause, n_clauses });
            }
            "fin_timeout" => {
                let (idle, hard) = extension::fin_timeout(arg)?;
                self.actions.push(Action::FinTimeout { idle, hard });
            }
            "sample" => self.actions.push(Action::Sample(Box::new(extension::sample(arg, self.ports)?))),
            "ct" => {
                let ct = self.ct(arg)?;
                self.actions.push(Action::Ct(Box::new(ct)));
            }
            "nat" if self.depth > 0 => self.actions.push(Action::Nat(Box::new(extension::nat(arg)?))),
            "ct_clear" => self.actions.push(Action::CtClear),
            "clone" => {
                let inner = self.inner(arg)?;
                self.actions.push(Action::Clone(inner));
            }
            "encap" => self.actions.push(Action::Encap(Box::new(extension::encap(arg)?))),
            "decap" => self.actions.push(Action::Decap { packet_type: extension::decap(arg)? }),
            "dec_nsh_ttl" => self.actions.push(Action::DecNshTtl),
            "check_pkt_larger" => {
                self.actions.push(Action::CheckPktLarger(Box::new(extension::check_pkt_larger(arg)?)));
            }
            "delete_field" => {
                self.actions.push(Action::DeleteField(field(arg).ok_or(Reason::UnknownKeyword)?));
            }
            "debug_recirc" => self.actions.push(Action::DebugRecirc),
            "debug_slow" => self.actions.push(Action::DebugSlow),
            "set_field" => self.set_field(arg)?,
            "load" | "reg_load" => {
                let (v, dst) = arg.split_once("->").ok_or(Reason::Expected("value->field"))?;
                let dst = parse_subfield(dst)?;
                writable(dst.field)?;
                let value = number(v, dst.bits.min(64) as u8)? as u64;
                self.actions.push(Action::RegLoad { dst, value });
            }
            "move" | "reg_move" => {
                let (src, dst) = arg.split_once("->").ok_or(Reason::Expected("field->field"))?;
                let (src, dst) = (parse_subfield(src)?, parse_subfield(dst)?);
                writable(dst.field)?;
                if src.bits != dst.bits {
                    return Err(Reason::Expected("two fields of one width"));
                }
                self.actions.push(Action::RegMove { src, dst });
            }
            "resubmit" => self.resubmit(arg)?,
            "note" => {
                let mut bytes = hex_bytes(arg)?;
                // On the wire the action is a multiple of 8 bytes, ten of which are not the note.
                bytes.resize((bytes.len() + 10).next_multiple_of(8) - 10, 0);
                self.actions.push(Action::Note(bytes));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn parse_output(&mut self, arg: &str) -> Parsed<()> {
        if arg.contains('[') {
            self.actions.push(Action::OutputReg { src: parse_subfield(arg)?, max_len: 0xffff });
            return Ok(());
        }
        if !arg.contains('=') {
            let port = PortNo(parse_port(arg, self.ports)?);
            self.output(port, if port == PortNo::CONTROLLER { 0xffff } else { 0 });
            return Ok(());
        }
        let (mut port, mut max_len) = (None, None);
        for part in arg.split(',') {
            match part.trim().split_once('=') {
                Some(("port", v)) => port = Some(PortNo(parse_port(v, self.ports)?)),
                Some(("max_len", v)) => max_len = Some(number(v, 32)? as u32),
                _ => return Err(Reason::UnknownKeyword),
            }
        }
        match (port, max_len) {
            (Some(port), Some(max_len)) if max_len >= 14 => {
                self.actions.push(Action::OutputTrunc { port, max_len });
                Ok(())
            }
            (Some(_), Some(_)) => Err(Reason::Expected("a max_len of at least 14")),
            _ => Err(Reason::MissingValue),
        }
    }

    /// `controller`, `controller:LENGTH`, `controller(max_len=..,reason=..,id=..,userdata=..,pause,meter_id=..)`.
    fn controller(&mut self, arg: &str) -> Parsed<()> {
        let (mut max_len, mut controller_id, mut reason) = (0xffff, 0, 1);
        let (mut userdata, mut pause, mut meter) = (Vec::new(), false, None);
        for part in arg.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            match part.split_once('=') {
                None if part == "pause" => pause = true,
                None => max_len = number(part, 16)? as u16,
                Some(("max_len", v)) => max_len = number(v, 16)? as u16,
                Some(("id", v)) => controller_id = number(v, 16)? as u16,
                Some(("reason", v)) => {
                    let at = REASONS.iter().position(|r| *r == v);
                    reason = at.ok_or(Reason::UnknownKeyword)? as u8;
                }
                Some(("userdata", v)) => userdata = hex_bytes(v)?,
                Some(("meter_id", v)) => meter = Some(MeterNo(number(v, 32)? as u32)),
                _ => return Err(Reason::UnknownKeyword),
            }
        }
        let plain = controller_id == 0 && reason == 1 && userdata.is_empty() && !pause && meter.is_none();
        if plain {
            self.output(PortNo::CONTROLLER, max_len);
        } else {
            self.actions.push(Action::Controller { max_len, controller_id, reason, userdata, pause, meter });
        }
        Ok(())
    }

    /// `ct(commit,force,table=..,zone=..,alg=..,nat(..),exec(..))`.
    fn ct(&self, arg: &str) -> Parsed<Ct> {
        let mut ct =
            Ct { flags: CtFlags::NONE, zone: CtZone::Value(0), table: None, alg: 0, actions: Vec::new() };
        for piece in arguments(arg)? {
            let (name, value) = name_and_argument(piece);
            match name {
                "commit" => ct.flags |= CtFlags::COMMIT,
                "force" => ct.flags |= CtFlags::FORCE,
                "table" => match number(value, 8)? {
                    255 => return Err(Reason::Expected("a table below 255")),
                    t => ct.table = Some(TableId(t as u8)),
                },
                "zone" => {
                    ct.zone = match number(value, 16) {
                        Ok(z) => CtZone::Value(z as u16),
                        Err(e @ Reason::TooLarge(_)) => return Err(e),
                        Err(_) => match parse_subfield(value)? {
                            s if s.bits == 16 => CtZone::Field(s),
                            _ => return Err(Reason::Expected("16 bits")),
                        },
                    }
                }
                "alg" => {
                    ct.alg = match value {
                        "ftp" => 21,
                        "tftp" => 69,
                        _ => return Err(Reason::UnknownKeyword),
                    }
                }
                // A translation is executed before everything else, wherever it is written.
                "nat" => ct.actions.insert(0, Action::Nat(Box::new(extension::nat(value)?))),
                "exec" => ct.actions.extend(self.inner(value)?),
                _ => return Err(Reason::UnknownKeyword),
            }
        }
        if ct.flags.has(CtFlags::FORCE) && !ct.flags.has(CtFlags::COMMIT) {
            return Err(Reason::Expected("commit with force"));
        }
        Ok(ct)
    }

    fn set_field(&mut self, arg: &str) -> Parsed<()> {
        let (v, name) = arg.rsplit_once("->").ok_or(Reason::Expected("value->field"))?;
        if name == "nw_tos" {
            return self.known("mod_nw_tos", v).map(|_| ());
        }
        let f = field(name).ok_or(Reason::UnknownKeyword)?;
        writable(f)?;
        let (value, mask) = parse_value(f, v, self.ports)?;
        if mask == 0 {
            return Err(Reason::BadMask(f.info().name));
        }
        self.actions.push(Action::SetField { field: f, value, mask });
        Ok(())
    }

    /// `resubmit:PORT`, `resubmit(PORT)`, `resubmit([PORT],TABLE[,ct])`.
    fn resubmit(&mut self, arg: &str) -> Parsed<()> {
        let (arg, with_ct) = match arg.strip_suffix(",ct") {
            Some(rest) => (rest, true),
            None => (arg, false),
        };
        let (port, table) = arg.split_once(',').unwrap_or((arg, ""));
        let port = match port.trim() {
            "" => PortNo::IN_PORT,
            p => PortNo(parse_port(p, self.ports)?),
        };
        let table = match table.trim() {
            "" => None,
            t => Some(TableId(number(t, 8)? as u8)).filter(|t| *t != TableId::ALL),
        };
        self.actions.push(Action::Resubmit { port, table, with_ct });
        Ok(())
    }
}

fn writable(f: FieldId) -> Parsed<()> {
    if f.info().writable { Ok(()) } else { Err(Reason::Expected("a field that can be written")) }
}

/// A number of at most `bits` bits.
pub(super) fn number(s: &str, bits: u8) -> Parsed<u128> {
    if s.is_empty() {
        return Err(Reason::MissingValue);
    }
    let v = value::integer(s).ok_or(Reason::Expected("a number"))?;
    if bits < 128 && v >> bits != 0 { Err(Reason::TooLarge(bits)) } else { Ok(v) }
}

/// A number and mask of at most `bits` bits; all ones without a mask. `-1` is all ones.
pub(super) fn masked(s: &str, bits: u8) -> Parsed<(u128, u128)> {
    let full = if bits >= 128 { u128::MAX } else { (1 << bits) - 1 };
    let one = |s: &str| if s == "-1" { Ok(full) } else { number(s, bits) };
    match s.split_once('/') {
        None => Ok((one(s)?, full)),
        Some((v, m)) => Ok((one(v)?, one(m)?)),
    }
}

fn eth_type(s: &str, allowed: &[u128]) -> Parsed<u16> {
    let v = number(s, 16)?;
    if allowed.contains(&v) { Ok(v as u16) } else { Err(Reason::Expected("an Ethernet type of such a tag")) }
}
