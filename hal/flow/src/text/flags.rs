//! Sets of named bits: connection state, TCP flags, tunnel flags.

use super::Reason;

/// Names of bits, least significant first.
pub struct FlagNames {
    names: &'static [&'static str],
    /// The bits that mean "all of them" in a mask.
    pub all: u16,
}

/// Bits of `ct_state`, as in OpenFlow's NXM_NX_CT_STATE.
pub const CT_STATE: FlagNames =
    FlagNames { names: &["new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"], all: 0xff };

/// Bits of `tcp_flags`.
pub const TCP: FlagNames = FlagNames {
    names: &["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns", "[200]", "[400]", "[800]"],
    all: 0xfff,
};

/// Bits of `tun_flags`. Only `oam` can be matched by OpenFlow.
pub const TUNNEL: FlagNames = FlagNames { names: &["oam", "df", "csum", "key"], all: 0xf };

/// Tunnel flag: operations, administration and maintenance packet.
pub const TUN_OAM: u16 = 1;
/// Tunnel flag: do not fragment.
pub const TUN_DF: u16 = 2;
/// Tunnel flag: checksum present.
pub const TUN_CSUM: u16 = 4;
/// Tunnel flag: key present.
pub const TUN_KEY: u16 = 8;

impl FlagNames {
    fn name(&self, bit: u32) -> &'static str {
        self.names.get(bit as usize).copied().unwrap_or("[Unknown]")
    }

    /// The set bits' names joined by `sep`; `0` when there is none.
    pub fn list(&self, value: u16, sep: char) -> String {
        if value == 0 {
            return "0".to_owned();
        }
        let mut s = String::new();
        for bit in (0..16).filter(|b| value >> b & 1 != 0) {
            if !s.is_empty() {
                s.push(sep);
            }
            s.push_str(self.name(bit));
        }
        s
    }

    /// `+name` for each bit of `mask` that `value` has, `-name` for each it has not.
    pub fn signed(&self, value: u16, mask: u16) -> String {
        if mask == 0 {
            return "0/0".to_owned();
        }
        let mut s = String::new();
        for bit in (0..16).filter(|b| mask >> b & 1 != 0) {
            s.push(if value >> bit & 1 != 0 { '+' } else { '-' });
            s.push_str(self.name(bit));
        }
        s
    }

    /// The list when every flag matters, else the signed form.
    pub fn masked(&self, value: u16, mask: u16) -> String {
        if mask & self.all == self.all { self.list(value & mask, '|') } else { self.signed(value, mask) }
    }

    fn bit(&self, name: &str) -> Option<u16> {
        self.names.iter().position(|n| *n == name).map(|i| 1 << i)
    }

    /// Reads `+a-b`, `a|b`, a number, or `number/mask`. Returns value and mask; a list or a plain number means that
    /// every flag matters.
    ///
    /// # Errors
    /// [`Reason::BadFlag`], [`Reason::TooLarge`], [`Reason::Expected`].
    pub fn parse(&self, s: &str) -> Result<(u16, u16), Reason> {
        if s.starts_with(|c: char| c.is_ascii_digit()) {
            let number = |s: &str| -> Result<u16, Reason> {
                let v = super::value::integer(s).ok_or(Reason::Expected("a number or flags"))?;
                let bits = (16 - self.all.leading_zeros()) as u8;
                u16::try_from(v).ok().filter(|v| v & !self.all == 0).ok_or(Reason::TooLarge(bits))
            };
            return match s.split_once('/') {
                Some((v, m)) => {
                    let m = number(m)?;
                    Ok((number(v)? & m, m))
                }
                None => Ok((number(s)?, self.all)),
            };
        }
        if s.starts_with(['+', '-']) {
            let (mut value, mut mask, mut rest) = (0, 0, s);
            while !rest.is_empty() {
                let on = match rest.as_bytes().first() {
                    Some(b'+') => true,
                    Some(b'-') => false,
                    _ => return Err(Reason::BadFlag),
                };
                rest = &rest[1..];
                let end = rest.find(['+', '-']).unwrap_or(rest.len());
                let bit = self.bit(&rest[..end]).filter(|b| mask & b == 0).ok_or(Reason::BadFlag)?;
                mask |= bit;
                value |= if on { bit } else { 0 };
                rest = &rest[end..];
            }
            return Ok((value, mask));
        }
        let mut value = 0;
        for name in s.split('|') {
            value |= self.bit(name).filter(|b| value & b == 0).ok_or(Reason::BadFlag)?;
        }
        Ok((value, self.all))
    }
}
