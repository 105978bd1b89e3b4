//! TCP, UDP, SCTP.

use super::view;

view! {
    /// TCP header, RFC 9293 3.1.
    Tcp 20 {
        /// Source port.
        src_port, set_src_port: u16 = 0;
        /// Destination port.
        dst_port, set_dst_port: u16 = 2;
        /// Sequence number.
        seq, set_seq: u32 = 4;
        /// Acknowledgment number.
        ack, set_ack: u32 = 8;
        /// Data offset (4 bits, in units of 4 bytes) and flags (12 bits).
        offset_flags, set_offset_flags: u16 = 12;
        /// Window.
        window, set_window: u16 = 14;
        /// Checksum.
        checksum, set_checksum: u16 = 16;
        /// Urgent pointer.
        urgent, set_urgent: u16 = 18;
    }
}

impl<T: AsRef<[u8]>> Tcp<T> {
    /// Header length in bytes as the header says, 0 to 60; valid from 20.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.offset_flags() >> 12) * 4
    }
    /// Flags, 12 bits: FIN 1, SYN 2, RST 4, PSH 8, ACK 0x10, URG 0x20, ECE 0x40, CWR 0x80.
    #[inline]
    pub fn flags(&self) -> u16 {
        self.offset_flags() & 0xfff
    }
    /// Options; empty when there are none or the header is not wholly there.
    pub fn options(&self) -> &[u8] {
        self.0.as_ref().get(Self::LEN..self.header_len()).unwrap_or(&[])
    }
    /// What follows the header; empty when the header is not wholly there.
    pub fn payload(&self) -> &[u8] {
        self.0.as_ref().get(self.header_len().max(Self::LEN)..).unwrap_or(&[])
    }
}

view! {
    /// UDP header, RFC 768.
    Udp 8 {
        /// Source port.
        src_port, set_src_port: u16 = 0;
        /// Destination port.
        dst_port, set_dst_port: u16 = 2;
        /// Length of header and payload in bytes.
        len_field, set_len_field: u16 = 4;
        /// Checksum; zero for none (IPv4 only).
        checksum, set_checksum: u16 = 6;
    }
}

impl<T: AsRef<[u8]>> Udp<T> {
    /// What follows the header, cut to its length field; empty when that contradicts the bytes that are there.
    pub fn payload(&self) -> &[u8] {
        self.0.as_ref().get(Self::LEN..usize::from(self.len_field())).unwrap_or(&[])
    }
}

view! {
    /// SCTP common header, RFC 9260 3.1.
    Sctp 12 {
        /// Source port.
        src_port, set_src_port: u16 = 0;
        /// Destination port.
        dst_port, set_dst_port: u16 = 2;
        /// Verification tag.
        tag, set_tag: u32 = 4;
        /// CRC-32c as it stands on the wire; see [`crate::checksum::crc32c`] for its byte order.
        checksum, set_checksum: u32 = 8;
    }
}
