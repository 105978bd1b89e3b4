//! Flows as text: the syntax of `ovs-ofctl add-flow`, `add-flows` files and `dump-flows`.
//!
//! The match is `flow::text::ofctl`'s; here is the rest: table, priority, timeouts, cookie, flags, actions and
//! instructions, of every version and with Nicira's extensions. Old names stay what they say (`mod_dl_src`,
//! `mod_vlan_vid`, `enqueue`); what they become in a version is the encoder's matter. Instructions may come in any order.

mod field_name;
mod flow_line;
mod format;
mod format_action;
mod parse_actions;
mod parse_extension;

pub use field_name::{format_subfield, parse_subfield};
pub use flow_line::{FileError, parse_file, parse_flow};
pub use format::{format_actions, format_flow};
pub use parse_actions::parse_actions;

use flow::text::{Reason, TextError};

/// What is wrong with a flow's text.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FlowTextError {
    /// In the match; the offset is that of the match without the other keywords.
    #[error("match: {0}")]
    Match(#[from] TextError),
    /// A keyword's value.
    #[error("{keyword}: {reason}")]
    Keyword {
        /// Which.
        keyword: String,
        /// What is wrong.
        reason: Reason,
    },
    /// An action that is not known here.
    #[error("unknown action \"{0}\"")]
    UnknownAction(String),
    /// An action's argument.
    #[error("action \"{action}\": {reason}")]
    Argument {
        /// The action as it was written.
        action: String,
        /// What is wrong.
        reason: Reason,
    },
    /// No `actions=` where there must be one.
    #[error("no actions are given; \"actions=drop\" drops")]
    NoActions,
    /// Parentheses that do not match.
    #[error("parentheses do not match")]
    Parentheses,
}

/// Splits at separators outside parentheses; empty pieces are left out.
fn split(text: &str) -> Result<Vec<&str>, FlowTextError> {
    let mut pieces = Vec::new();
    let (mut depth, mut start) = (0u32, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1).ok_or(FlowTextError::Parentheses)?,
            ',' | ' ' | '\t' | '\r' | '\n' if depth == 0 => {
                pieces.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    if depth != 0 {
        return Err(FlowTextError::Parentheses);
    }
    pieces.push(&text[start..]);
    pieces.retain(|p| !p.is_empty());
    Ok(pieces)
}

/// Splits `name`, `name:argument`, `name=argument` and `name(argument)`.
fn name_and_argument(piece: &str) -> (&str, &str) {
    match piece.find([':', '=', '(']) {
        None => (piece, ""),
        Some(at) if piece.as_bytes()[at] == b'(' => {
            (&piece[..at], piece[at + 1..].strip_suffix(')').unwrap_or(&piece[at + 1..]))
        }
        Some(at) => (&piece[..at], &piece[at + 1..]),
    }
}

#[cfg(test)]
mod tests;
