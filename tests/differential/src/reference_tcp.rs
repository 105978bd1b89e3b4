//! TCP windows of the reference interpreter: what Open vSwitch's userspace datapath takes for a segment of a connection, which it has
//! from OpenBSD's pf, on sequence numbers as signed distances.

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PUSH: u8 = 8;
const ACK: u8 = 16;
const URGENT: u8 = 32;
/// How far an acknowledgement may be from what was sent.
const NEAR: i64 = 0xffff + 1500;

/// How far an end has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Stage {
    Silent,
    Began,
    Open,
    Ending,
    Ended,
    Over,
}

/// One end.
#[derive(Clone, Debug)]
struct End {
    stage: Stage,
    /// `None`: its SYN was not seen. `Some(None)`: it does not scale.
    shift: Option<Option<u8>>,
    window: u16,
    low: u32,
    high: u32,
}

/// A connection.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    ends: [End; 2],
}

/// What a segment is to it.
pub(crate) enum Verdict {
    /// Of it, and it is remembered for so many seconds from now on, if that changes.
    Fits(Option<u64>),
    /// Its SYN once more.
    Opens,
    /// Not of it.
    Foreign,
    /// A SYN after its end.
    Another,
}

struct Head {
    flags: u8,
    seq: u32,
    ack: u32,
    window: u16,
    len: u32,
    shift: Option<u8>,
}

fn head(b: &[u8]) -> Option<Head> {
    let word = |at: usize| u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
    if b.len() < 20 {
        return None;
    }
    let header = usize::from(b[12] >> 4) * 4;
    if header < 20 || b.len() < header {
        return None;
    }
    let mut shift = None;
    let mut at = 20;
    while at < header && b[at] != 0 {
        if b[at] == 1 {
            at += 1;
            continue;
        }
        let Some(len) = b[..header].get(at + 1).map(|l| usize::from(*l)) else { break };
        if b[at] == 3 && len == 3 && at + 2 < header {
            shift = Some(b[at + 2].min(14));
            break;
        }
        if len < 2 || at + len > header {
            break;
        }
        at += len;
    }
    let (seq, ack, window) = (word(4), word(8), u16::from_be_bytes([b[14], b[15]]));
    Some(Head { flags: b[13], seq, ack, window, len: (b.len() - header) as u32, shift })
}

/// How far `a` is ahead of `b`.
fn ahead(a: u32, b: u32) -> i64 {
    i64::from(a.wrapping_sub(b) as i32)
}

impl Head {
    fn makes_sense(&self) -> bool {
        let f = self.flags;
        let syn = f & SYN != 0;
        !(syn && f & (RST | FIN) != 0)
            && (syn || f & (ACK | RST) != 0)
            && !(f & ACK == 0 && f & (FIN | PUSH | URGENT) != 0)
    }

    /// Sequence numbers that it takes.
    fn takes(&self) -> u32 {
        self.len + u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0)
    }
}

fn scaled_down(window: u16, shift: u8) -> u16 {
    u32::from(window).div_ceil(1 << shift) as u16
}

impl Watch {
    /// A connection that begins with this segment; `None` when none does.
    pub(crate) fn begin(tcp: &[u8]) -> Option<Watch> {
        let h = head(tcp)?;
        if !h.makes_sense() || h.flags & (SYN | ACK) == SYN | ACK {
            return None;
        }
        let syn = h.flags & SYN != 0;
        let window = h.window.max(1);
        let first = End {
            stage: Stage::Began,
            shift: syn.then_some(h.shift),
            window: if syn { scaled_down(window, h.shift.unwrap_or(0)) } else { window },
            low: h.seq,
            high: h.seq.wrapping_add(h.takes() + 1),
        };
        let second = End { stage: Stage::Silent, shift: syn.then_some(None), window: 1, low: 0, high: 1 };
        Some(Watch { ends: [first, second] })
    }

    /// A further segment, an answer or not; without `windows` it may lie anywhere.
    pub(crate) fn segment(&mut self, tcp: &[u8], reply: bool, windows: bool) -> Verdict {
        let Some(h) = head(tcp).filter(Head::makes_sense) else { return Verdict::Foreign };
        let [a, b] = &mut self.ends;
        let (me, peer) = if reply { (b, a) } else { (a, b) };
        if h.flags & (SYN | ACK) == SYN {
            if me.stage >= Stage::Ended && peer.stage >= Stage::Ended {
                return Verdict::Another;
            }
            if me.stage <= Stage::Began {
                me.stage = Stage::Began;
                return Verdict::Opens;
            }
        }
        let syn = h.flags & SYN != 0;
        let (mut mine, mut theirs) = match (me.shift, peer.shift) {
            _ if syn => (0, 0),
            (Some(Some(m)), Some(Some(t))) => (m, t),
            (None, None) => (14, 14),
            _ => (0, 0),
        };
        let mut window = h.window;
        let mut end = h.seq.wrapping_add(h.takes());
        let mut strict_ack = true;
        if me.stage == Stage::Silent {
            if let (true, Some(Some(t))) = (syn, peer.shift) {
                me.shift = Some(h.shift);
                match h.shift {
                    Some(m) => {
                        window = scaled_down(window, m);
                        (mine, theirs) = (m, t);
                    }
                    None => {
                        peer.window = (u32::from(peer.window) << t) as u16;
                        peer.shift = Some(None);
                    }
                }
            }
            me.low = h.seq;
            me.stage = Stage::Began;
            let reach = end.wrapping_add((u32::from(peer.window) << theirs).max(1));
            if me.high == 1 || ahead(reach, me.high) >= 0 {
                me.high = reach;
                strict_ack = false;
            }
            me.window = me.window.max(window);
        }
        let ack = if h.flags & ACK == 0 || h.ack == 0 && h.flags & RST != 0 { peer.low } else { h.ack };
        let mut from = h.seq;
        if from == end {
            (from, end) = (me.low, me.low);
        }
        let behind = if strict_ack { ahead(peer.low, ack) } else { 0 };
        let exact = ahead(me.high, end) >= 0
            && ahead(from, me.low.wrapping_sub(u32::from(peer.window) << theirs)) >= 0
            && behind >= -NEAR
            && behind <= NEAR << mine
            && (h.flags & RST == 0 || ahead(h.seq, me.low).abs() <= 1);
        let torn = peer.stage == Stage::Silent || peer.stage >= Stage::Ended || me.stage >= Stage::Ended;
        let near = ahead(me.high.wrapping_add(NEAR as u32), end) >= 0
            && ahead(from, me.low.wrapping_sub(NEAR as u32)) >= 0;
        let exact = exact || !windows;
        let fits = exact || torn && near;
        if !fits {
            return Verdict::Foreign;
        }
        me.window = me.window.max(window);
        if ahead(end, me.low) > 0 {
            me.low = end;
        }
        let offer = u32::from(window) << mine;
        if ahead(ack.wrapping_add(offer), peer.high) >= 0 {
            peer.high = ack.wrapping_add(offer.max(1));
        }
        if h.flags & FIN != 0 && me.stage < Stage::Ending {
            me.stage = Stage::Ending;
        }
        if exact && h.flags & ACK != 0 {
            match peer.stage {
                Stage::Began => peer.stage = Stage::Open,
                Stage::Ending => peer.stage = Stage::Ended,
                _ => {}
            }
        }
        if h.flags & RST != 0 {
            (me.stage, peer.stage) = (Stage::Over, Stage::Over);
        }
        let (low, high) = (me.stage.min(peer.stage), me.stage.max(peer.stage));
        let seconds = if low >= Stage::Ended {
            30
        } else if low >= Stage::Ending {
            45
        } else if low < Stage::Open {
            30
        } else if high >= Stage::Ending {
            15 * 60
        } else {
            24 * 3600
        };
        Verdict::Fits(exact.then_some(seconds))
    }
}
