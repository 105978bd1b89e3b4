//! What can be wrong with bytes from the kernel.

/// Bytes that are no message of traffic control.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum CodecError {
    /// A structure or value of another length.
    #[error("{what}: {found} bytes instead of {wanted}")]
    Length {
        /// Which.
        what: &'static str,
        /// Bytes it has.
        wanted: usize,
        /// Bytes that were there.
        found: usize,
    },
    /// A value outside its range.
    #[error("{what}: {value} is not one of its values")]
    Value {
        /// Which.
        what: &'static str,
        /// What was there.
        value: u64,
    },
    /// Something that must be there is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// More of something than the kernel knows.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// Attributes that are not well-formed.
    #[error("{0}")]
    Netlink(String),
}

impl From<netlink_packet_core::DecodeError> for CodecError {
    fn from(e: netlink_packet_core::DecodeError) -> Self {
        CodecError::Netlink(e.to_string())
    }
}
