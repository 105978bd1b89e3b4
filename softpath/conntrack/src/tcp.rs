//! The state of a TCP connection (RFC 9293) and the windows its ends may send in.
//!
//! What is known of each end: up to where it has sent (`sent`), up to where it may send (`limit`, what the other end has
//! acknowledged plus the window it offered), and the largest window it has offered. A segment belongs to the connection
//! if it ends within what may be sent, begins not more than one window before what was sent, and acknowledges something
//! near what the other end has sent (van Rooij, "Real Stateful TCP Packet Filtering in IP Filter", 2000). The thresholds are
//! those that Open vSwitch has from OpenBSD's pf, so that verdicts are the same.
//!
//! ```text
//!            sent - window            sent              limit
//!   ───────────┼───────────────────────┼──────────────────┼──────►  sequence numbers of one end
//!              └──── retransmitted ────┴──── new ─────────┘
//! ```

use crate::timeout::Timeout;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;

/// Largest shift of a window (RFC 7323 2.3).
const MAX_SHIFT: u8 = 14;
/// How far an acknowledgement may be off: a largest unscaled window and a segment.
const ACK_SLACK: i64 = 0xffff + 1500;

/// What one end of a connection has done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum TcpState {
    #[default]
    Closed = 0,
    SynSent = 2,
    SynRecv = 3,
    Established = 4,
    CloseWait = 5,
    FinWait1 = 6,
    Closing = 7,
    LastAck = 8,
    FinWait2 = 9,
    TimeWait = 10,
}

impl TcpState {
    /// The name in dumps.
    pub fn name(self) -> &'static str {
        match self {
            TcpState::Closed => "CLOSED",
            TcpState::SynSent => "SYN_SENT",
            TcpState::SynRecv => "SYN_RECV",
            TcpState::Established => "ESTABLISHED",
            TcpState::CloseWait => "CLOSE_WAIT",
            TcpState::FinWait1 => "FIN_WAIT_1",
            TcpState::Closing => "CLOSING",
            TcpState::LastAck => "LAST_ACK",
            TcpState::FinWait2 => "FIN_WAIT_2",
            TcpState::TimeWait => "TIME_WAIT",
        }
    }
}

/// What an end has said about its windows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scale {
    /// No SYN was seen.
    Unknown,
    /// Its SYN did not offer to scale.
    None,
    /// It shifts its windows by this much.
    Shift(u8),
}

impl Scale {
    fn shift(self) -> u8 {
        match self {
            Scale::Shift(n) => n,
            _ => 0,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    state: TcpState,
    scale: Scale,
    max_win: u16,
    sent: u32,
    limit: u32,
}

/// A TCP header and how much comes after it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    flags: u8,
    win: u16,
    seq: u32,
    ack: u32,
    payload: u32,
    scale: Scale,
}

impl Segment {
    /// Reads a header; `tcp` ends where the IP packet does.
    pub(crate) fn of(tcp: &[u8]) -> Option<Segment> {
        let h: &[u8; 20] = tcp.first_chunk()?;
        let word = |at: usize| u32::from_be_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]);
        let header = usize::from(h[12] >> 4) * 4;
        if header < 20 || header > tcp.len() {
            return None;
        }
        let flags = h[13];
        // Only a SYN says how windows are scaled.
        let scale = if flags & SYN != 0 { window_scale(&tcp[20..header]) } else { Scale::Unknown };
        Some(Segment {
            flags,
            win: u16::from_be_bytes([h[14], h[15]]),
            seq: word(4),
            ack: word(8),
            payload: (tcp.len() - header) as u32,
            scale,
        })
    }

    fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// Whether no stack sends this combination of flags.
    fn is_nonsense(&self) -> bool {
        if self.has(SYN) {
            if self.has(RST | FIN) {
                return true;
            }
        } else if !self.has(ACK | RST) {
            return true;
        }
        !self.has(ACK) && self.has(FIN | PSH | URG)
    }

    /// Whether a connection may begin with it: a SYN, or one in the middle, but not an answer to a SYN.
    pub(crate) fn begins(&self) -> bool {
        !self.is_nonsense() && self.flags & (SYN | ACK) != SYN | ACK
    }
}

fn window_scale(mut options: &[u8]) -> Scale {
    loop {
        match options {
            [] | [0, ..] => return Scale::None,
            [1, rest @ ..] => options = rest,
            [3, 3, shift, ..] => return Scale::Shift((*shift).min(MAX_SHIFT)),
            [_, len, ..] if *len >= 2 && usize::from(*len) <= options.len() => {
                options = &options[usize::from(*len)..]
            }
            _ => return Scale::None,
        }
    }
}

/// What a segment means for its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fit {
    /// It belongs.
    Valid(Option<Timeout>),
    /// It belongs, and the connection is still new.
    New(Timeout),
    /// It does not.
    Invalid,
    /// It begins another connection between the same ends.
    Again,
}

/// A TCP connection. The first of its ends sent the first segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tcp {
    peers: [Peer; 2],
}

fn geq(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) as i32 >= 0
}

impl Tcp {
    /// A connection that begins with `s`.
    pub(crate) fn begin(s: &Segment) -> Tcp {
        let syn = s.has(SYN);
        let scale = if syn { s.scale } else { Scale::Unknown };
        let shift = scale.shift();
        let counted = s.payload.wrapping_add(1).wrapping_add(syn.into()).wrapping_add(s.has(FIN).into());
        let max_win = if shift > 0 { s.win.max(1).div_ceil(1 << shift) } else { s.win.max(1) };
        let first = Peer {
            state: TcpState::SynSent,
            scale,
            max_win,
            sent: s.seq,
            limit: s.seq.wrapping_add(counted),
        };
        let other_scale = if syn { Scale::None } else { Scale::Unknown };
        let other = Peer { state: TcpState::Closed, scale: other_scale, max_win: 1, sent: 0, limit: 1 };
        Tcp { peers: [first, other] }
    }

    /// States of the end that began and of the other.
    pub(crate) fn states(&self) -> (TcpState, TcpState) {
        (self.peers[0].state, self.peers[1].state)
    }

    /// A further segment, from the end that did not begin if `reply`. Without `check`, wherever it lies.
    pub(crate) fn update(&mut self, s: &Segment, reply: bool, check: bool) -> Fit {
        if s.is_nonsense() {
            return Fit::Invalid;
        }
        let [a, b] = &mut self.peers;
        let (src, dst) = if reply { (b, a) } else { (a, b) };
        if s.flags & (SYN | ACK) == SYN {
            if dst.state >= TcpState::FinWait2 && src.state >= TcpState::FinWait2 {
                src.state = TcpState::Closed;
                dst.state = TcpState::Closed;
                return Fit::Again;
            } else if src.state <= TcpState::SynSent {
                src.state = TcpState::SynSent;
                return Fit::New(Timeout::TcpFirstPacket);
            }
        }
        let (mut sws, mut dws) = (0, 0);
        if !s.has(SYN) {
            match (src.scale, dst.scale) {
                (Scale::Shift(x), Scale::Shift(y)) => (sws, dws) = (x, y),
                (Scale::Unknown, Scale::Unknown) => (sws, dws) = (MAX_SHIFT, MAX_SHIFT),
                _ => {}
            }
        }
        let mut win = s.win;
        let mut check_ack = true;
        let mut end = s.seq.wrapping_add(s.payload).wrapping_add(s.has(SYN).into());
        if src.state < TcpState::SynSent {
            if s.has(SYN) && matches!(dst.scale, Scale::Shift(_)) {
                src.scale = s.scale;
                if let Scale::Shift(n) = s.scale {
                    // The window of a SYN itself is not scaled.
                    sws = n;
                    win = if n > 0 { win.div_ceil(1 << n) } else { win };
                    dws = dst.scale.shift();
                } else {
                    dst.max_win = dst.max_win.wrapping_shl(dst.scale.shift().into());
                    dst.scale = Scale::None;
                }
            }
            end = end.wrapping_add(s.has(FIN).into());
            src.sent = s.seq;
            src.state = TcpState::SynSent;
            let reach = end.wrapping_add((u32::from(dst.max_win) << dws).max(1));
            if src.limit == 1 || geq(reach, src.limit) {
                src.limit = reach;
                check_ack = false;
            }
            src.max_win = src.max_win.max(win);
        } else {
            end = end.wrapping_add(s.has(FIN).into());
        }
        // Without an acknowledgement there is none to check; resets of some stacks acknowledge nothing.
        let ack = match s.has(ACK) {
            false => dst.sent,
            true if s.ack == 0 && s.has(RST) => dst.sent,
            true => s.ack,
        };
        let mut seq = s.seq;
        if seq == end {
            seq = src.sent;
            end = seq;
        }
        let skew = if check_ack { i64::from(dst.sent.wrapping_sub(ack) as i32) } else { 0 };
        let reset_fits = !s.has(RST) || s.seq.wrapping_sub(src.sent).wrapping_add(1) <= 2;
        let fits = geq(src.limit, end)
            && geq(seq, src.sent.wrapping_sub(u32::from(dst.max_win) << dws))
            && (-ACK_SLACK..=ACK_SLACK << sws).contains(&skew)
            && reset_fits;
        let slack = ACK_SLACK as u32;
        let loose = (dst.state < TcpState::SynSent
            || dst.state >= TcpState::FinWait2
            || src.state >= TcpState::FinWait2)
            && geq(src.limit.wrapping_add(slack), end)
            && geq(seq, src.sent.wrapping_sub(slack));
        let strict = fits || !check;
        if !strict && !loose {
            return Fit::Invalid;
        }
        src.max_win = src.max_win.max(win);
        if !geq(src.sent, end) {
            src.sent = end;
        }
        let offered = u32::from(win) << sws;
        if geq(ack.wrapping_add(offered), dst.limit) {
            dst.limit = ack.wrapping_add(offered.max(1));
        }
        if strict && s.has(SYN) && src.state < TcpState::SynSent {
            src.state = TcpState::SynSent;
        }
        if s.has(FIN) && src.state < TcpState::Closing {
            src.state = TcpState::Closing;
        }
        if strict && s.has(ACK) {
            dst.state = match dst.state {
                TcpState::SynSent => TcpState::Established,
                TcpState::Closing => TcpState::FinWait2,
                other => other,
            };
        }
        if s.has(RST) {
            src.state = TcpState::TimeWait;
            dst.state = TcpState::TimeWait;
        }
        // What only fits loosely may be a flood: it does not prolong the connection.
        Fit::Valid(strict.then(|| self.timeout()))
    }

    fn timeout(&self) -> Timeout {
        let (a, b) = self.states();
        let (low, high) = (a.min(b), a.max(b));
        if low >= TcpState::FinWait2 {
            Timeout::TcpClosed
        } else if low >= TcpState::Closing {
            Timeout::TcpFinWait
        } else if low < TcpState::Established {
            Timeout::TcpOpening
        } else if high >= TcpState::Closing {
            Timeout::TcpClosing
        } else {
            Timeout::TcpEstablished
        }
    }
}
