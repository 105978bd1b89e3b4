//! Connections without a state machine of their own: UDP and what else IP carries; and ICMP requests with their answers.

use flow::ct_state;

use crate::timeout::Timeout;
use crate::tuple::Tuple;

/// Progress of a connection other than TCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Progress {
    #[default]
    First,
    Multiple,
    Both,
}

impl Progress {
    /// A packet of the connection, UDP or other. Its bits of `ct_state`, and how long the connection stays.
    pub(crate) fn datagram(&mut self, reply: bool) -> (u16, Timeout) {
        *self = match *self {
            Progress::Both => Progress::Both,
            _ if reply => Progress::Both,
            _ => Progress::Multiple,
        };
        match self {
            Progress::Both => (ct_state::ESTABLISHED, Timeout::OtherBidirectional),
            _ => (ct_state::NEW, Timeout::OtherMultiple),
        }
    }

    /// A request or an answer of ICMP.
    pub(crate) fn icmp(&mut self, reply: bool) -> (u16, Timeout) {
        if reply {
            *self = Progress::Both;
        }
        match self {
            Progress::Both => (ct_state::ESTABLISHED, Timeout::IcmpReply),
            _ => (ct_state::NEW, Timeout::IcmpFirst),
        }
    }
}

/// Whether a connection may begin with such an ICMP message: with requests only.
pub(crate) fn begins(t: &Tuple) -> bool {
    match (t.v6, t.icmp_type) {
        (false, k) => matches!(k, 8 | 13 | 15),
        (true, k) => k == 128,
    }
}
