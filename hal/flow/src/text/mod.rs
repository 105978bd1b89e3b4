//! Text forms of matches, keys and actions.
//!
//! * [`ofctl`]: the match syntax of `ovs-ofctl` (`tcp,in_port=1,nw_dst=10.0.0.0/8`).
//! * [`odp`]: the datapath syntax of `ovs-appctl dpctl/dump-flows` (`in_port(1),eth_type(0x0800),ipv4(dst=10.0.0.1)`).
//! * [`value`]: single field values, for set-field and move actions.
//!
//! Both are printed as Open vSwitch 3.1 prints them, byte for byte, because tools and test suites compare these texts.
//! Parsers take untrusted text: they report the byte offset of what is wrong, bound nesting, and never panic.

pub mod flags;
pub mod odp;
pub mod ofctl;
mod scan;
pub mod value;

/// What is wrong with a text, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason} at byte {at}, near \"{near}\"")]
pub struct TextError {
    /// Offset in bytes from the start of the text.
    pub at: usize,
    /// The text from there, cut to a few characters.
    pub near: String,
    /// What is wrong.
    pub reason: Reason,
}

/// What can be wrong with a text.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Reason {
    /// A word that names no field, attribute or action.
    #[error("unknown keyword")]
    UnknownKeyword,
    /// A field without a value.
    #[error("missing value")]
    MissingValue,
    /// A value of the wrong form.
    #[error("expected {0}")]
    Expected(&'static str),
    /// A number that does not fit.
    #[error("value does not fit in {0} bits")]
    TooLarge(u8),
    /// A mask on a field that has none, or of the wrong form.
    #[error("{0} cannot be masked like this")]
    BadMask(&'static str),
    /// A flag that does not exist or is given twice.
    #[error("unknown or repeated flag")]
    BadFlag,
    /// A port that no name or number is known for.
    #[error("unknown port")]
    UnknownPort,
    /// Parentheses nested too deep, or a list that is too long.
    #[error("nested too deep")]
    TooDeep,
    /// Text after the end.
    #[error("text after the end")]
    Trailing,
    /// Something this implementation has no representation for.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
}

impl TextError {
    /// An error at byte `at` of `text`.
    pub fn new(text: &str, at: usize, reason: Reason) -> Self {
        let near = text.get(at..).unwrap_or("").chars().take(24).collect();
        TextError { at, near, reason }
    }
}
