//! A whole flow, and files of them.

use flow::prereq;
use flow::text::value::{PortByName, parse_port};
use flow::text::{Reason, ofctl};

use super::parse_actions::{masked, number, parse_actions};
use super::{FlowTextError, name_and_argument, split};
use crate::flow_mod::{FlowMod, FlowModCommand, FlowModFlags};
use crate::number::{GroupId, PortNo, TableId};

/// Reads a flow as `ovs-ofctl` takes it: `table=0,priority=10,tcp,actions=output:2`. Actions are asked for by commands
/// that need them, and optional for deletions. What the match can never see is dropped, as `ovs-ofctl` does.
///
/// In additions `cookie=X` is the flow's cookie, in modifications the cookie that the flows get in the versions that change
/// it; `cookie=X/M` says which flows.
///
/// # Errors
/// [`FlowTextError`].
pub fn parse_flow(
    command: FlowModCommand,
    text: &str,
    ports: PortByName<'_>,
) -> Result<FlowMod, FlowTextError> {
    let mut f = FlowMod::new(command);
    let (head, actions) = split_actions(text);
    let delete = matches!(command, FlowModCommand::Delete | FlowModCommand::DeleteStrict);
    if delete {
        f.table = TableId::ALL;
    }
    let mut match_text = String::new();
    for piece in split(head)? {
        let (name, arg) = name_and_argument(piece);
        let wrong = |reason: Reason| FlowTextError::Keyword { keyword: name.to_owned(), reason };
        match name {
            "table" => f.table = TableId(number(arg, 8).map_err(wrong)? as u8),
            "priority" => f.priority = number(arg, 16).map_err(wrong)? as u16,
            "idle_timeout" => f.idle_timeout = number(arg, 16).map_err(wrong)? as u16,
            "hard_timeout" => f.hard_timeout = number(arg, 16).map_err(wrong)? as u16,
            "importance" => f.importance = number(arg, 16).map_err(wrong)? as u16,
            "cookie" => {
                let (v, m) = masked(arg, 64).map_err(wrong)?;
                let masked = arg.contains('/');
                match command {
                    FlowModCommand::Add => f.cookie = v as u64,
                    FlowModCommand::Modify | FlowModCommand::ModifyStrict if !masked => {
                        (f.new_cookie, f.modify_cookie) = (Some(v as u64), true);
                    }
                    _ => (f.cookie, f.cookie_mask) = (v as u64, m as u64),
                }
            }
            "out_port" => f.out_port = PortNo(parse_port(arg, ports).map_err(wrong)?),
            "out_group" => f.out_group = GroupId(number(arg, 32).map_err(wrong)? as u32),
            "send_flow_rem" => f.flags |= FlowModFlags::SEND_FLOW_REM,
            "check_overlap" => f.flags |= FlowModFlags::CHECK_OVERLAP,
            "reset_counts" => f.flags |= FlowModFlags::RESET_COUNTS,
            "no_packet_counts" => f.flags |= FlowModFlags::NO_PKT_COUNTS,
            "no_byte_counts" => f.flags |= FlowModFlags::NO_BYT_COUNTS,
            // What dump-flows says besides.
            "duration" | "n_packets" | "n_bytes" | "idle_age" | "hard_age" => {}
            _ => {
                match_text.push_str(piece);
                match_text.push(',');
            }
        }
    }
    let modify = matches!(command, FlowModCommand::Modify | FlowModCommand::ModifyStrict);
    if modify && f.cookie_mask == 0 {
        // A flow that is not there is added in the versions that do so, with this cookie.
        f.new_cookie.get_or_insert(0);
    }
    f.matches = prereq::normalize(&ofctl::parse_with(&match_text, ports)?).0;
    match actions {
        Some(a) => f.instructions = parse_actions(a, &f.matches, ports)?,
        None if delete => {}
        None => return Err(FlowTextError::NoActions),
    }
    Ok(f)
}

/// Splits a flow into what is before and after `actions=` or `action=`.
fn split_actions(text: &str) -> (&str, Option<&str>) {
    for key in ["actions=", "action="] {
        let found = text
            .match_indices(key)
            .find(|(i, _)| text[..*i].chars().next_back().is_none_or(|c| c == ',' || c.is_whitespace()));
        if let Some((i, _)) = found {
            return (&text[..i], Some(&text[i + key.len()..]));
        }
    }
    (text, None)
}

/// What is wrong with a file of flows.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {error}")]
pub struct FileError {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong there.
    pub error: FlowTextError,
}

/// Reads a file of `ovs-ofctl add-flows`: a flow a line, `#` begins a comment. A line may begin with `add`, `modify`,
/// `modify_strict`, `delete` or `delete_strict`.
///
/// # Errors
/// The first line that is wrong.
pub fn parse_file(text: &str, ports: PortByName<'_>) -> Result<Vec<FlowMod>, FileError> {
    use FlowModCommand::*;
    let mut all = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or("").trim();
        if line.is_empty() {
            continue;
        }
        let words = [
            ("add", Add),
            ("modify", Modify),
            ("modify_strict", ModifyStrict),
            ("delete", Delete),
            ("delete_strict", DeleteStrict),
        ];
        let (first, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let (command, flow) = match words.iter().find(|(w, _)| *w == first) {
            Some((_, c)) => (*c, rest),
            None => (Add, line),
        };
        let flow = parse_flow(command, flow, ports).map_err(|error| FileError { line: i + 1, error })?;
        all.push(flow);
    }
    Ok(all)
}
