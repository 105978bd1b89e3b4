//! Connections as dumps show them, in the words of Open vSwitch.

use std::fmt;
use std::time::Duration;

use flow::CtHelper;
use flow::headers::ip_proto;

use crate::tcp::TcpState;
use crate::tuple::Tuple;

/// What a protocol adds to a dump.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// TCP: states of the end that began and of the other.
    Tcp(TcpState, TcpState),
    /// Nothing.
    Other,
}

/// A connection, as it was when it was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// As the first packet was before it was translated.
    pub original: Tuple,
    /// As answers are before they are translated back.
    pub reply: Tuple,
    /// Mark.
    pub mark: u32,
    /// Label.
    pub label: u128,
    /// Of its protocol.
    pub protocol: Protocol,
    /// How long it is remembered yet.
    pub left: Duration,
    /// Helper.
    pub helper: Option<CtHelper>,
}

fn protocol_name(proto: u8) -> Option<&'static str> {
    Some(match proto {
        ip_proto::ICMP => "icmp",
        ip_proto::ICMPV6 => "icmpv6",
        ip_proto::TCP => "tcp",
        ip_proto::UDP => "udp",
        ip_proto::SCTP => "sctp",
        136 => "udplite",
        33 => "dccp",
        ip_proto::IGMP => "igmp",
        _ => return None,
    })
}

fn write_tuple(f: &mut fmt::Formatter<'_>, t: &Tuple) -> fmt::Result {
    write!(f, "src={},dst={}", t.address(t.src), t.address(t.dst))?;
    if t.is_icmp() {
        write!(f, ",id={},type={},code=0", t.sport, t.icmp_type)
    } else {
        write!(f, ",sport={},dport={}", t.sport, t.dport)
    }
}

/// A TCP state as one that both ends share: what Linux calls it.
fn shared_name(s: TcpState) -> &'static str {
    if s == TcpState::FinWait2 { TcpState::TimeWait.name() } else { s.name() }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match protocol_name(self.original.proto) {
            Some(n) => f.write_str(n)?,
            None => write!(f, "{}", self.original.proto)?,
        }
        f.write_str(",orig=(")?;
        write_tuple(f, &self.original)?;
        f.write_str("),reply=(")?;
        write_tuple(f, &self.reply)?;
        f.write_str(")")?;
        if self.original.zone != 0 {
            write!(f, ",zone={}", self.original.zone)?;
        }
        if self.mark != 0 {
            write!(f, ",mark={}", self.mark)?;
        }
        if self.label != 0 {
            write!(f, ",labels={:#x}", self.label)?;
        }
        if let Protocol::Tcp(a, b) = self.protocol {
            write!(f, ",protoinfo=(state={})", shared_name(a.max(b)))?;
        }
        if let Some(h) = self.helper {
            write!(f, ",helper={}", h.name())?;
        }
        Ok(())
    }
}
