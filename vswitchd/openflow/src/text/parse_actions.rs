//! From text to actions and instructions.

use flow::text::Reason;
use flow::text::value::{self, PortByName, parse_port, parse_value};
use flow::{FieldId, PipelineMatch};

use super::field_name::{field, parse_subfield};
use super::{FlowTextError, name_and_argument, split};
use crate::action::Action;
use crate::flow_mod::Instructions;
use crate::number::{GroupId, MeterNo, PortNo, QueueNo, TableId};

type Parsed<T> = Result<T, Reason>;

/// Reads what follows `actions=`. `matches` is the flow's match: it says which protocol `mod_tp_dst` means and whether
/// there is a tag for `mod_vlan_vid` to change.
///
/// # Errors
/// [`FlowTextError`] with the offending action.
pub fn parse_actions(
    text: &str,
    matches: &PipelineMatch,
    ports: PortByName<'_>,
) -> Result<Instructions, FlowTextError> {
    let mut i = Instructions::default();
    let (tci, _) = matches.get(FieldId::VlanTci);
    let mut list = ActionList { matches, ports, tagged: tci & 0x1000 != 0, actions: Vec::new() };
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
    matches: &'a PipelineMatch,
    ports: PortByName<'a>,
    /// Whether the packet certainly has a VLAN tag at this point.
    tagged: bool,
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

    fn set(&mut self, field: FieldId, value: u128) {
        self.actions.push(Action::SetField { field, value, mask: field.info().max() });
    }

    /// A field's value without a mask.
    fn set_text(&mut self, field: FieldId, arg: &str) -> Parsed<()> {
        let (v, mask) = parse_value(field, arg, self.ports)?;
        if mask != field.info().max() {
            return Err(Reason::BadMask(field.info().name));
        }
        self.set(field, v);
        Ok(())
    }

    fn tag(&mut self) {
        if !self.tagged {
            self.actions.push(Action::PushVlan(0x8100));
            self.tagged = true;
        }
    }

    /// The transport port of the match's protocol.
    fn transport(&self, source: bool) -> Parsed<FieldId> {
        use FieldId::*;
        let (src, dst) = match self.matches.get(NwProto).0 {
            6 => (TcpSrc, TcpDst),
            17 => (UdpSrc, UdpDst),
            132 => (SctpSrc, SctpDst),
            _ => return Err(Reason::Expected("a match on TCP, UDP or SCTP")),
        };
        Ok(if source { src } else { dst })
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
                let (port, queue) = (parse_port(port, self.ports)?, number(queue, 32)? as u32);
                self.actions.push(Action::SetQueue(QueueNo(queue)));
                self.output(PortNo(port), 0xffff);
                self.actions.push(Action::PopQueue);
            }
            "group" => self.actions.push(Action::Group(GroupId(number(arg, 32)? as u32))),
            "set_queue" => self.actions.push(Action::SetQueue(QueueNo(number(arg, 32)? as u32))),
            "pop_queue" => self.actions.push(Action::PopQueue),
            "exit" => self.actions.push(Action::Exit),
            "strip_vlan" | "pop_vlan" => {
                self.actions.push(Action::PopVlan);
                self.tagged = false;
            }
            "push_vlan" => {
                self.actions.push(Action::PushVlan(eth_type(arg, &[0x8100, 0x88a8])?));
                self.tagged = true;
            }
            "mod_vlan_vid" | "set_vlan_vid" => {
                let vid = number(arg, 12)?;
                if name == "mod_vlan_vid" {
                    self.tag();
                }
                self.set(VlanVid, 0x1000 | vid);
            }
            "mod_vlan_pcp" | "set_vlan_pcp" => {
                let pcp = number(arg, 3)?;
                if name == "mod_vlan_pcp" {
                    self.tag();
                }
                self.set(VlanPcp, pcp);
            }
            "mod_dl_src" => self.set_text(EthSrc, arg)?,
            "mod_dl_dst" => self.set_text(EthDst, arg)?,
            "mod_nw_src" => self.set_text(NwSrc, arg)?,
            "mod_nw_dst" => self.set_text(NwDst, arg)?,
            "mod_tp_src" => self.set_text(self.transport(true)?, arg)?,
            "mod_tp_dst" => self.set_text(self.transport(false)?, arg)?,
            "mod_nw_tos" => match number(arg, 8)? {
                v if v & 3 == 0 => self.set(IpDscp, v >> 2),
                _ => return Err(Reason::Expected("a multiple of 4")),
            },
            "mod_nw_ecn" => self.set_text(IpEcn, arg)?,
            "mod_nw_ttl" => self.actions.push(Action::SetNwTtl(number(arg, 8)? as u8)),
            "dec_ttl" => {
                let ids = arg.split(',').filter(|s| !s.is_empty());
                let controllers =
                    ids.map(|s| number(s.trim(), 16).map(|v| v as u16)).collect::<Parsed<_>>()?;
                self.actions.push(Action::DecNwTtl { controllers });
            }
            "push_mpls" => self.actions.push(Action::PushMpls(eth_type(arg, &[0x8847, 0x8848])?)),
            "pop_mpls" => self.actions.push(Action::PopMpls(number(arg, 16)? as u16)),
            "set_mpls_label" => self.set_text(MplsLabel, arg)?,
            "set_mpls_tc" => self.set_text(MplsTc, arg)?,
            "set_mpls_ttl" => self.actions.push(Action::SetMplsTtl(number(arg, 8)? as u8)),
            "dec_mpls_ttl" => self.actions.push(Action::DecMplsTtl),
            "set_tunnel" | "set_tunnel64" => self.set_text(TunId, arg)?,
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
                let digits: String = arg.chars().filter(|c| *c != '.').collect();
                if !digits.len().is_multiple_of(2) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(Reason::Expected("hexadecimal digits"));
                }
                let bytes = digits.as_bytes().chunks(2);
                let hex = |d: u8| (d as char).to_digit(16).unwrap_or(0) as u8;
                let mut bytes: Vec<u8> = bytes.map(|p| hex(p[0]) << 4 | hex(p[1])).collect();
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

    /// `controller`, `controller:LENGTH`, `controller(max_len=..,reason=..,id=..)`.
    fn controller(&mut self, arg: &str) -> Parsed<()> {
        let (mut max_len, mut controller_id, mut reason) = (0xffff, 0, 1);
        for part in arg.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            match part.split_once('=') {
                None => max_len = number(part, 16)? as u16,
                Some(("max_len", v)) => max_len = number(v, 16)? as u16,
                Some(("id", v)) => controller_id = number(v, 16)? as u16,
                Some(("reason", "no_match")) => reason = 0,
                Some(("reason", "action")) => reason = 1,
                Some(("reason", "invalid_ttl")) => reason = 2,
                _ => return Err(Reason::UnknownKeyword),
            }
        }
        if controller_id == 0 && reason == 1 {
            self.output(PortNo::CONTROLLER, max_len);
        } else {
            self.actions.push(Action::Controller {
                max_len,
                controller_id,
                reason,
                userdata: Vec::new(),
                pause: false,
                meter: None,
            });
        }
        Ok(())
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

    /// `resubmit:PORT`, `resubmit(PORT)`, `resubmit([PORT],TABLE)`.
    fn resubmit(&mut self, arg: &str) -> Parsed<()> {
        let (port, table) = arg.split_once(',').unwrap_or((arg, ""));
        let port = match port.trim() {
            "" => PortNo::IN_PORT,
            p => PortNo(parse_port(p, self.ports)?),
        };
        let table = match table.trim() {
            "" => None,
            t => Some(TableId(number(t, 8)? as u8)).filter(|t| *t != TableId::ALL),
        };
        self.actions.push(Action::Resubmit { port, table, with_ct: false });
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
