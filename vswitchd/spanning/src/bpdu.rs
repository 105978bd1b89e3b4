//! Bridge protocol data units as they are on the wire: 802.3 frames with an LLC header (IEEE 802.1D-1998 9.3, 7.12).
//!
//! ```text
//!  dst 01:80:c2:00:00:00 │ src │ length │ 42 42 03 │ protocol 0 (2) │ version │ type │ ...
//!  configuration (type 0):  flags │ root (8) │ cost (4) │ bridge (8) │ port (2) │ message age, max age, hello, delay (2 each)
//!  topology change (type 80): nothing more
//! ```
//!
//! Rapid messages (IEEE 802.1D-2004 9.3.3; type 2) are as configuration messages, with more flags, and a length of 0 at the end.
//!
//! Times are in units of 1/256 s. A message of a later version is taken by what it shares with these (9.3.4).

use std::fmt;

/// Where they are sent: the group address of bridges (7.12.3).
pub const ETH_DST: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0];
/// Destination and source service access point, and the control field: unnumbered information.
const LLC: [u8; 3] = [0x42, 0x42, 0x03];
const ETH_LEN: usize = 14;
const CONFIG: u8 = 0;
const TOPOLOGY_CHANGE: u8 = 0x80;
const RAPID: u8 = 2;
/// Octets of a configuration message, and of a topology change notification (9.3.1, 9.3.2).
const CONFIG_LEN: usize = 35;
const TCN_LEN: usize = 4;
/// The flags that are known (9.3.1): the topology changes, and that this is acknowledged.
const FLAG_CHANGE: u8 = 0x01;
const FLAG_ACKNOWLEDGE: u8 = 0x80;

/// Names a bridge: a priority of 16 bits and an Ethernet address. The least is the best (9.2.5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BridgeId(pub u64);

impl BridgeId {
    /// Of a priority and an address.
    pub fn new(priority: u16, mac: [u8; 6]) -> BridgeId {
        BridgeId(mac.iter().fold(u64::from(priority), |id, b| id << 8 | u64::from(*b)))
    }

    /// Its priority.
    pub fn priority(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// Its address.
    pub fn mac(self) -> [u8; 6] {
        let [_, _, a, b, c, d, e, f] = self.0.to_be_bytes();
        [a, b, c, d, e, f]
    }
}

impl fmt::Display for BridgeId {
    /// `8000.aa55aa550000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}.{:012x}", self.0 >> 48, self.0 & 0xffff_ffff_ffff)
    }
}

/// A configuration message (9.3.1). Times are in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// The topology has changed: what was learned is to be forgotten soon.
    pub topology_change: bool,
    /// The notification of a change has come.
    pub acknowledge: bool,
    /// The root that the sender knows of.
    pub root: BridgeId,
    /// What the way there costs.
    pub root_path_cost: u32,
    /// The sender.
    pub bridge: BridgeId,
    /// The port that it came out of.
    pub port: u16,
    /// How long ago the root has said so.
    pub message_age_ms: u32,
    /// How old it may become.
    pub max_age_ms: u32,
    /// Between messages of the root.
    pub hello_ms: u32,
    /// How long ports listen, and learn.
    pub forward_delay_ms: u32,
}

/// What a port is for, as a rapid message says of the one that it came out of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RapidRole {
    /// Not known.
    Unknown,
    /// Alternate or backup.
    Alternate,
    /// The way to the root.
    Root,
    /// The way to the root for those behind it.
    Designated,
}

/// A rapid message (IEEE 802.1D-2004 9.3.3). Its `config` has no acknowledgement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rapid {
    /// What it shares with configuration messages.
    pub config: Config,
    /// The port asks to forward at once.
    pub proposal: bool,
    /// The other end may.
    pub agreement: bool,
    /// What the port is for.
    pub role: RapidRole,
    /// It learns.
    pub learning: bool,
    /// It forwards.
    pub forwarding: bool,
}

/// What came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bpdu {
    /// A configuration message.
    Config(Config),
    /// A topology change notification.
    TopologyChange,
    /// A rapid message.
    Rapid(Rapid),
}

/// Why a frame is no message that is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BpduError {
    /// It ends before it is whole.
    #[error("truncated")]
    Truncated,
    /// It is not of this protocol.
    #[error("not of the spanning tree protocol")]
    Other,
    /// Its type is not known.
    #[error("unknown type {0:#04x}")]
    Type(u8),
    /// It is older than it may become (9.3.4).
    #[error("older than its greatest age")]
    TooOld,
}

impl Bpdu {
    /// The frame, from a port with that address.
    pub fn emit(&self, src: [u8; 6]) -> Vec<u8> {
        let len = match self {
            Bpdu::Config(_) => CONFIG_LEN,
            Bpdu::TopologyChange => TCN_LEN,
            Bpdu::Rapid(_) => CONFIG_LEN + 1,
        };
        let mut f = Vec::with_capacity(ETH_LEN + LLC.len() + len);
        f.extend(ETH_DST);
        f.extend(src);
        f.extend(((LLC.len() + len) as u16).to_be_bytes());
        f.extend(LLC);
        // Protocol, version and type.
        match self {
            Bpdu::TopologyChange => f.extend([0, 0, 0, TOPOLOGY_CHANGE]),
            Bpdu::Config(c) => {
                f.extend([0, 0, 0, CONFIG]);
                emit_config(c, 0, &mut f);
            }
            Bpdu::Rapid(r) => {
                f.extend([0, 0, RAPID, RAPID]);
                let flag = |on: bool, bit: u8| u8::from(on) << bit;
                let role = match r.role {
                    RapidRole::Unknown => 0,
                    RapidRole::Alternate => 1,
                    RapidRole::Root => 2,
                    RapidRole::Designated => 3,
                };
                let states = flag(r.learning, 4) | flag(r.forwarding, 5);
                let flags = flag(r.proposal, 1) | role << 2 | states | flag(r.agreement, 6);
                emit_config(&Config { acknowledge: false, ..r.config }, flags, &mut f);
                f.push(0);
            }
        }
        f
    }

    /// What a frame says.
    ///
    /// # Errors
    /// [`BpduError`].
    pub fn parse(frame: &[u8]) -> Result<Bpdu, BpduError> {
        let length = frame.get(12..ETH_LEN).ok_or(BpduError::Truncated)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let payload = frame.get(ETH_LEN..).unwrap_or_default();
        // Frames are filled up to the least length; more than this is not the message's.
        let payload = payload.get(..length).ok_or(BpduError::Truncated)?;
        let b = payload.strip_prefix(&LLC).ok_or(BpduError::Other)?;
        let [p0, p1, _version, kind, rest @ ..] = b else { return Err(BpduError::Truncated) };
        if [*p0, *p1] != [0, 0] {
            return Err(BpduError::Other);
        }
        match *kind {
            TOPOLOGY_CHANGE => Ok(Bpdu::TopologyChange),
            CONFIG | RAPID => {
                let b: &[u8; CONFIG_LEN - TCN_LEN] = rest.first_chunk().ok_or(BpduError::Truncated)?;
                let number =
                    |at: usize, n: usize| b[at..at + n].iter().fold(0u64, |v, x| v << 8 | u64::from(*x));
                let ms = |at: usize| millis(number(at, 2) as u16);
                let c = Config {
                    topology_change: b[0] & FLAG_CHANGE != 0,
                    acknowledge: b[0] & FLAG_ACKNOWLEDGE != 0,
                    root: BridgeId(number(1, 8)),
                    root_path_cost: number(9, 4) as u32,
                    bridge: BridgeId(number(13, 8)),
                    port: number(21, 2) as u16,
                    message_age_ms: ms(23),
                    max_age_ms: ms(25),
                    hello_ms: ms(27),
                    forward_delay_ms: ms(29),
                };
                let flag = |bit: u8| b[0] >> bit & 1 != 0;
                let role = match b[0] >> 2 & 3 {
                    0 => RapidRole::Unknown,
                    1 => RapidRole::Alternate,
                    2 => RapidRole::Root,
                    _ => RapidRole::Designated,
                };
                if c.message_age_ms >= c.max_age_ms {
                    Err(BpduError::TooOld)
                } else if *kind == CONFIG {
                    Ok(Bpdu::Config(c))
                } else {
                    Ok(Bpdu::Rapid(Rapid {
                        config: Config { acknowledge: false, ..c },
                        proposal: flag(1),
                        agreement: flag(6),
                        role,
                        learning: flag(4),
                        forwarding: flag(5),
                    }))
                }
            }
            other => Err(BpduError::Type(other)),
        }
    }
}

/// What configuration and rapid messages share, with `flags` beside those of every message.
fn emit_config(c: &Config, flags: u8, f: &mut Vec<u8>) {
    let change = if c.topology_change { FLAG_CHANGE } else { 0 };
    f.push(flags | change | if c.acknowledge { FLAG_ACKNOWLEDGE } else { 0 });
    f.extend(c.root.0.to_be_bytes());
    f.extend(c.root_path_cost.to_be_bytes());
    f.extend(c.bridge.0.to_be_bytes());
    f.extend(c.port.to_be_bytes());
    for ms in [c.message_age_ms, c.max_age_ms, c.hello_ms, c.forward_delay_ms] {
        f.extend(units(ms).to_be_bytes());
    }
}

/// A time in units of 1/256 s.
fn units(ms: u32) -> u16 {
    u16::try_from(u64::from(ms) * 256 / 1000).unwrap_or(u16::MAX)
}

/// And back, to the next millisecond.
fn millis(units: u16) -> u32 {
    (u32::from(units) * 1000).div_ceil(256)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digit = |c: u8| (c as char).to_digit(16).unwrap() as u8;
        text.as_bytes().chunks(2).map(|c| digit(c[0]) << 4 | digit(c[1])).collect()
    }

    /// Sent by Open vSwitch 3.1.0: two bridges with `stp_enable=true` and ports of type dummy, `options:pcap`, read with ovs-pcap.
    const STOCK: &str = "0180c2000000aa55aa55000e002642420300000000008000aa66aa660001000000008000aa66aa66000180010000140002000f00";
    const CONFIG_OF_STOCK: Config = Config {
        topology_change: false,
        acknowledge: false,
        root: BridgeId(0),
        root_path_cost: 0,
        bridge: BridgeId(0),
        port: 0x8001,
        message_age_ms: 0,
        max_age_ms: 20_000,
        hello_ms: 2000,
        forward_delay_ms: 15_000,
    };
    /// A rapid one of the same.
    const RAPID: &str = "0180c2000000aa55aa55000c0027424203000002023c8000aa66aa660000000000008000aa66aa66000080010000140002000f0000";

    #[test]
    fn a_message_of_a_stock_switch_is_read_and_written_to_the_bit() {
        let own = BridgeId::new(0x8000, [0xaa, 0x66, 0xaa, 0x66, 0, 1]);
        let want = Bpdu::Config(Config { root: own, bridge: own, ..CONFIG_OF_STOCK });
        assert_eq!(Bpdu::parse(&hex(STOCK)), Ok(want));
        assert_eq!(want.emit([0xaa, 0x55, 0xaa, 0x55, 0, 0x0e]), hex(STOCK));
        assert_eq!(own.to_string(), "8000.aa66aa660001");
        assert_eq!((own.priority(), own.mac()), (0x8000, [0xaa, 0x66, 0xaa, 0x66, 0, 1]));
        let root = BridgeId::new(0x8000, [0xaa, 0x66, 0xaa, 0x66, 0, 0]);
        let want = Bpdu::Rapid(Rapid {
            config: Config { root, bridge: root, ..CONFIG_OF_STOCK },
            proposal: false,
            agreement: false,
            role: RapidRole::Designated,
            learning: true,
            forwarding: true,
        });
        assert_eq!(Bpdu::parse(&hex(RAPID)), Ok(want));
        assert_eq!(want.emit([0xaa, 0x55, 0xaa, 0x55, 0, 0x0c]), hex(RAPID));
    }

    #[test]
    fn a_notification_is_as_short_as_can_be() {
        let f = Bpdu::TopologyChange.emit([2; 6]);
        assert_eq!(f.len(), 14 + 7);
        assert_eq!(f[12..], [0, 7, 0x42, 0x42, 3, 0, 0, 0, 0x80]);
        let mut padded = f.clone();
        padded.resize(60, 0xff);
        assert_eq!(Bpdu::parse(&padded), Ok(Bpdu::TopologyChange));
    }

    #[test]
    fn what_is_cut_off_too_old_or_of_others_is_refused() {
        let whole = hex(STOCK);
        for n in 0..whole.len() {
            assert!(Bpdu::parse(&whole[..n]).is_err(), "{n}");
        }
        let change = |at: usize, to: u8| {
            let mut f = whole.clone();
            f[at] = to;
            Bpdu::parse(&f)
        };
        assert_eq!(change(14, 0xaa), Err(BpduError::Other));
        assert_eq!(change(18, 1), Err(BpduError::Other));
        assert_eq!(change(20, 7), Err(BpduError::Type(7)));
        assert_eq!(change(44, 20), Err(BpduError::TooOld));
        assert!(change(44, 19).is_ok());
        assert_eq!(change(13, 0x25), Err(BpduError::Truncated), "the length says less");
        assert_eq!(change(13, 0x27), Err(BpduError::Truncated), "and more than there is");
        for at in 0..whole.len() {
            for to in [0, 1, 0x7f, 0x80, 0xff] {
                let _ = change(at, to);
            }
        }
    }
}
