//! What the column `bfd` of table Interface says (ovs-vswitchd.conf.db(5)).

use std::net::Ipv4Addr;

use super::message::PORT;

/// Longest interval, milliseconds: the wire has 32 bits of microseconds.
const MAX_INTERVAL_MS: u64 = u32::MAX as u64 / 1000;
/// Packets in a row that may be missed when nothing is configured.
const MULTIPLIER: u8 = 3;

/// How a session is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BfdSettings {
    /// Least interval at which to send, milliseconds.
    pub min_tx_ms: u64,
    /// Least interval at which to receive, milliseconds.
    pub min_rx_ms: u64,
    /// Packets in a row that the other end has to miss.
    pub multiplier: u8,
    /// What `min_rx_ms` becomes while there is little other traffic; 0 leaves it.
    pub decay_min_rx_ms: u64,
    /// While packets of any kind come in the link counts as one that carries.
    pub forwarding_if_rx: bool,
    /// What follows this link on the path is down; the other end is told.
    pub concatenated_path_down: bool,
    /// Only packets of tunnels without a key are taken.
    pub check_tunnel_key: bool,
    /// Packets into tunnels are marked as control messages.
    pub oam: bool,
    /// Source of Ethernet frames; `None` for the port's address.
    pub local_src_mac: Option<[u8; 6]>,
    /// Destination of Ethernet frames that are sent.
    pub local_dst_mac: [u8; 6],
    /// Destination of Ethernet frames that are taken; `None` takes any.
    pub remote_dst_mac: Option<[u8; 6]>,
    /// IPv4 source; also the destination of packets that are taken, unless it is the usual one.
    pub src_ip: Ipv4Addr,
    /// IPv4 destination.
    pub dst_ip: Ipv4Addr,
}

/// Of frames when nothing is configured.
const USUAL_MAC: [u8; 6] = [0x00, 0x23, 0x20, 0x00, 0x00, 0x01];
const USUAL_SRC: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const USUAL_DST: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 0);

impl Default for BfdSettings {
    fn default() -> Self {
        BfdSettings {
            min_tx_ms: 100,
            min_rx_ms: 1000,
            multiplier: MULTIPLIER,
            decay_min_rx_ms: 0,
            forwarding_if_rx: false,
            concatenated_path_down: false,
            check_tunnel_key: false,
            oam: false,
            local_src_mac: None,
            local_dst_mac: USUAL_MAC,
            remote_dst_mac: None,
            src_ip: USUAL_SRC,
            dst_ip: USUAL_DST,
        }
    }
}

/// What a packet has to be for a session to take it, as far as headers say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BfdMatch {
    /// Ethernet destination; `None` is any.
    pub eth_dst: Option<[u8; 6]>,
    /// IPv4 destination; `None` is any.
    pub ip_dst: Option<Ipv4Addr>,
    /// UDP destination port.
    pub udp_dst: u16,
    /// Without a tunnel's key.
    pub no_tunnel_key: bool,
}

impl BfdSettings {
    /// By the pairs of the column, of which `get` gives one; `None` when the session is not enabled. Values that make no sense
    /// count as absent.
    pub fn parse<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Option<BfdSettings> {
        let yes = |k: &str| get(k).is_some_and(|v| v.eq_ignore_ascii_case("true"));
        if !yes("enable") {
            return None;
        }
        let usual = BfdSettings::default();
        let number = |k: &str| get(k).and_then(|v| v.trim().parse::<i64>().ok());
        let interval = |k, usual: u64| {
            number(k).map_or(usual, |n| u64::try_from(n).unwrap_or(0).clamp(1, MAX_INTERVAL_MS))
        };
        let ip = |k, usual| get(k).and_then(|v| v.parse().ok()).unwrap_or(usual);
        let mac = |k| get(k).and_then(parse_mac);
        let (min_tx_ms, min_rx_ms) =
            (interval("min_tx", usual.min_tx_ms), interval("min_rx", usual.min_rx_ms));
        let decay = number("decay_min_rx").and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        Some(BfdSettings {
            min_tx_ms,
            min_rx_ms,
            multiplier: number("mult")
                .and_then(|n| u8::try_from(n).ok())
                .filter(|n| *n > 0)
                .unwrap_or(MULTIPLIER),
            // Slower than usual or not at all.
            decay_min_rx_ms: if decay < min_rx_ms { 0 } else { decay.min(MAX_INTERVAL_MS) },
            forwarding_if_rx: yes("forwarding_if_rx"),
            concatenated_path_down: yes("cpath_down"),
            check_tunnel_key: yes("check_tnl_key"),
            oam: yes("oam"),
            local_src_mac: mac("bfd_local_src_mac"),
            local_dst_mac: mac("bfd_local_dst_mac").unwrap_or(usual.local_dst_mac),
            remote_dst_mac: mac("bfd_remote_dst_mac"),
            src_ip: ip("bfd_src_ip", usual.src_ip),
            dst_ip: ip("bfd_dst_ip", usual.dst_ip),
        })
    }

    /// The packets that are the session's.
    pub fn takes(&self) -> BfdMatch {
        BfdMatch {
            eth_dst: self.remote_dst_mac,
            ip_dst: (self.src_ip != USUAL_SRC).then_some(self.src_ip),
            udp_dst: PORT,
            no_tunnel_key: self.check_tunnel_key,
        }
    }
}

/// An Ethernet address that is not zero.
fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut out = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut out {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    (parts.next().is_none() && out != [0; 6]).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &'static str)]) -> Option<BfdSettings> {
        BfdSettings::parse(|k| pairs.iter().find(|(n, _)| *n == k).map(|(_, v)| *v))
    }

    #[test]
    fn a_session_is_there_when_it_is_enabled() {
        assert_eq!(of(&[("min_tx", "10")]), None);
        assert_eq!(of(&[("enable", "true")]), Some(BfdSettings::default()));
    }

    #[test]
    fn values_without_sense_count_as_absent() {
        let s = |k, v| of(&[("enable", "true"), (k, v)]).unwrap();
        assert_eq!([s("mult", "0"), s("mult", "256"), s("mult", "x")].map(|s| s.multiplier), [3; 3]);
        assert_eq!(s("mult", "255").multiplier, 255);
        assert_eq!((s("min_tx", "-5").min_tx_ms, s("min_rx", "0").min_rx_ms), (1, 1));
        assert_eq!(
            (s("decay_min_rx", "999").decay_min_rx_ms, s("decay_min_rx", "3000").decay_min_rx_ms),
            (0, 3000)
        );
        assert_eq!(s("bfd_local_dst_mac", "0:0:0:0:0:0").local_dst_mac, USUAL_MAC);
        assert_eq!(s("bfd_src_ip", "10.0.0.1").takes().ip_dst, Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(s("bfd_src_ip", "x").takes().ip_dst, None);
    }
}
