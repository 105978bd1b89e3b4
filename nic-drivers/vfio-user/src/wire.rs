//! Messages: a header of 16 bytes, then a body in host order (both ends are on one host).

/// Bytes of a header.
pub const HEADER_BYTES: usize = 16;
/// Bytes of a body at most.
pub const MAX_BODY_BYTES: usize = 16 * 1024;
/// Descriptors in a message at most.
pub const MAX_FDS: usize = 16;
/// Bytes of a register access at most.
pub const MAX_ACCESS_BYTES: usize = 4096;
/// The region that is configuration space.
pub const REGION_CONFIG: u32 = 7;
/// Regions of a PCI device: six BARs, the ROM, configuration space, VGA.
pub const REGIONS: u32 = 9;
/// The interrupts that are MSI-X.
pub const IRQ_MSIX: u32 = 2;
/// Kinds of interrupts of a PCI device.
pub const IRQS: u32 = 5;

/// Numbers of commands.
#[allow(missing_docs)]
pub mod command {
    pub const VERSION: u16 = 1;
    pub const DMA_MAP: u16 = 2;
    pub const DMA_UNMAP: u16 = 3;
    pub const GET_INFO: u16 = 4;
    pub const GET_REGION_INFO: u16 = 5;
    pub const GET_IRQ_INFO: u16 = 7;
    pub const SET_IRQS: u16 = 8;
    pub const REGION_READ: u16 = 9;
    pub const REGION_WRITE: u16 = 10;
    pub const RESET: u16 = 13;
}

/// Flags of a header.
#[allow(missing_docs)]
pub mod flag {
    pub const REPLY: u32 = 1;
    pub const TYPE: u32 = 0xf;
    pub const NO_REPLY: u32 = 1 << 4;
    pub const ERROR: u32 = 1 << 5;
}

/// Flags in bodies: VFIO's.
#[allow(missing_docs)]
pub mod vfio {
    pub const DEVICE_RESET: u32 = 1;
    pub const DEVICE_PCI: u32 = 1 << 1;
    pub const REGION_READ: u32 = 1;
    pub const REGION_WRITE: u32 = 1 << 1;
    pub const IRQ_EVENTFD: u32 = 1;
    pub const IRQ_DATA_NONE: u32 = 1;
    pub const IRQ_DATA_EVENTFD: u32 = 1 << 2;
    pub const IRQ_TRIGGER: u32 = 1 << 5;
    pub const DMA_READ_WRITE: u32 = 3;
}

/// A header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// Chosen by who sends a command; the reply has the same.
    pub id: u16,
    /// One of [`command`].
    pub command: u16,
    /// Bytes of the message, header included.
    pub size: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Error number of a reply that is one.
    pub error: u32,
}

impl Header {
    /// As bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut b = [0; HEADER_BYTES];
        b[..2].copy_from_slice(&self.id.to_ne_bytes());
        b[2..4].copy_from_slice(&self.command.to_ne_bytes());
        b[4..8].copy_from_slice(&self.size.to_ne_bytes());
        b[8..12].copy_from_slice(&self.flags.to_ne_bytes());
        b[12..].copy_from_slice(&self.error.to_ne_bytes());
        b
    }

    /// From bytes.
    pub fn decode(b: &[u8; HEADER_BYTES]) -> Header {
        let half = |i: usize| u16::from_ne_bytes([b[i], b[i + 1]]);
        let word = |i: usize| u32::from_ne_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        Header { id: half(0), command: half(2), size: word(4), flags: word(8), error: word(12) }
    }

    /// Bytes of the body; `None` when the size cannot be.
    pub fn body_bytes(&self) -> Option<usize> {
        (self.size as usize).checked_sub(HEADER_BYTES).filter(|n| *n <= MAX_BODY_BYTES)
    }

    /// Whether it is a reply.
    pub fn is_reply(&self) -> bool {
        self.flags & flag::TYPE == flag::REPLY
    }
}

/// Makes a body of words.
#[derive(Clone, Default, Debug)]
pub struct Body(pub Vec<u8>);

impl Body {
    /// Appends 32 bits.
    pub fn u32(mut self, v: u32) -> Body {
        self.0.extend(v.to_ne_bytes());
        self
    }

    /// Appends 64 bits.
    pub fn u64(mut self, v: u64) -> Body {
        self.0.extend(v.to_ne_bytes());
        self
    }

    /// Appends bytes.
    pub fn bytes(mut self, v: &[u8]) -> Body {
        self.0.extend(v);
        self
    }
}

/// 32 bits of a body at `at`.
pub fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*b.get(at..)?.first_chunk()?))
}

/// 64 bits of a body at `at`.
pub fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*b.get(at..)?.first_chunk()?))
}

/// The body of a version message: 0.1, and what this side takes.
pub fn version() -> Body {
    let text = format!(
        "{{\"capabilities\":{{\"max_msg_fds\":{MAX_FDS},\"max_data_xfer_size\":{MAX_ACCESS_BYTES},\"migration\":{{\"pgsize\":4096}}}}}}"
    );
    Body::default().bytes(&0u16.to_ne_bytes()).bytes(&1u16.to_ne_bytes()).bytes(text.as_bytes()).bytes(&[0])
}

/// The descriptors that the other side takes in a message; `None` when it speaks another version or nonsense.
pub fn peer_fds(body: &[u8]) -> Option<usize> {
    let major = u16::from_ne_bytes(*body.first_chunk()?);
    if major != 0 {
        return None;
    }
    let text = body.get(4..)?;
    let text = text.strip_suffix(&[0]).unwrap_or(text);
    if text.is_empty() {
        return Some(1);
    }
    let v: serde_json::Value = serde_json::from_slice(text).ok()?;
    let n = v.pointer("/capabilities/max_msg_fds").and_then(serde_json::Value::as_u64).unwrap_or(1);
    usize::try_from(n).ok().map(|n| n.clamp(1, MAX_FDS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_and_sizes_are_bounded() {
        let h = Header { id: 7, command: command::RESET, size: 16, flags: flag::REPLY, error: 22 };
        assert_eq!(Header::decode(&h.encode()), h);
        assert!(h.is_reply());
        for (size, body) in
            [(15, None), (16, Some(0)), (16 + MAX_BODY_BYTES as u32, Some(MAX_BODY_BYTES)), (u32::MAX, None)]
        {
            assert_eq!(Header { size, ..h }.body_bytes(), body);
        }
    }

    #[test]
    fn versions_are_read_with_and_without_capabilities() {
        assert_eq!(peer_fds(&version().0), Some(MAX_FDS));
        assert_eq!(peer_fds(&[0, 0, 1, 0]), Some(1));
        assert_eq!(peer_fds(&[1, 0, 0, 0]), None);
        assert_eq!(peer_fds(b"\0\0\x01\0{\"capabilities\":{\"max_msg_fds\":4}}\0"), Some(4));
        assert_eq!(peer_fds(b"\0\0\x01\0{"), None);
        assert_eq!(peer_fds(&[0]), None);
    }
}
