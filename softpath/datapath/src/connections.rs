//! Between a packet's key and connection tracking.

use clock::Instant;
use conntrack::{Headers, Likely, Meta, Tracker, Tuple};
use flow::headers::ip_proto;
use flow::{CtAction, FieldId, PacketKey, ct_state};

use crate::plain;

/// The first word of a key with the state of a connection: state, zone, mark.
const STATE: usize = FieldId::CtState.first_word();
/// The first of two words with its label.
const LABEL: usize = FieldId::CtLabel.first_word();
/// The word with its IPv4 addresses.
const V4: usize = FieldId::CtNwSrc.first_word();
/// The first of four words with its IPv6 addresses.
const V6: usize = FieldId::CtIpv6Src.first_word();
/// The word with its ports and protocol.
const PORTS: usize = FieldId::CtTpSrc.first_word();

/// Forgets what a key says of a connection.
pub(crate) fn clear(key: &mut PacketKey) {
    for i in STATE..=PORTS {
        key.set_word(i, 0);
    }
}

fn read(key: &PacketKey) -> Meta {
    let state = key.get64(FieldId::CtState) as u16;
    let mut m = Meta { state, zone: key.get64(FieldId::CtZone) as u16, ..Meta::default() };
    // Only packets that were translated are recognized by it.
    if state & (ct_state::SRC_NAT | ct_state::DST_NAT) != 0 {
        let v6 = key.get(FieldId::CtIpv6Src) != 0;
        let (src, dst) = if v6 {
            (key.get(FieldId::CtIpv6Src), key.get(FieldId::CtIpv6Dst))
        } else {
            (key.get(FieldId::CtNwSrc), key.get(FieldId::CtNwDst))
        };
        let (sport, dport) = (key.get64(FieldId::CtTpSrc) as u16, key.get64(FieldId::CtTpDst) as u16);
        let proto = key.get64(FieldId::CtNwProto) as u8;
        let t = Tuple { src, dst, sport, dport, zone: m.zone, proto, icmp_type: 0, v6 };
        let icmp = matches!((proto, v6), (ip_proto::ICMP, false) | (ip_proto::ICMPV6, true));
        m.original = Some(if icmp { Tuple { sport: 0, dport: 0, icmp_type: sport as u8, ..t } } else { t });
    }
    m
}

fn write(key: &mut PacketKey, m: &Meta) {
    key.set_word(STATE, u64::from(m.state) << 48 | u64::from(m.zone) << 32 | u64::from(m.mark));
    key.set_word(LABEL, (m.label >> 64) as u64);
    key.set_word(LABEL + 1, m.label as u64);
    let Some(t) = &m.original else {
        return (V4..=PORTS).for_each(|i| key.set_word(i, 0));
    };
    let (v4, v6) = if t.v6 { (0, [t.src, t.dst]) } else { ((t.src as u64) << 32 | t.dst as u64, [0; 2]) };
    key.set_word(V4, v4);
    for (i, a) in v6.into_iter().enumerate() {
        key.set_word(V6 + 2 * i, (a >> 64) as u64);
        key.set_word(V6 + 2 * i + 1, a as u64);
    }
    let (sport, dport) = t.ports();
    key.set_word(PORTS, u64::from(sport) << 48 | u64::from(dport) << 32 | u64::from(t.proto) << 24);
}

/// Tracks a plain frame of a connection that is known, if nothing about it is out of the ordinary; false, and nothing done, when it
/// takes [`track`].
#[inline]
pub(crate) fn see(
    tracker: &Tracker,
    frame: &[u8],
    headers: Option<Headers>,
    key: &mut PacketKey,
    likely: Likely,
    action: &CtAction,
    now: Instant,
) -> bool {
    // One that was tracked before may be known by another tuple.
    if key.word(STATE) != 0 {
        return false;
    }
    let ends = plain::ends(key);
    let Some(s) = headers.and_then(|h| tracker.see(frame, &h, &ends, likely, action, now)) else {
        return false;
    };
    // The other words are zero in the key of a plain frame.
    key.set_word(STATE, u64::from(s.state) << 48 | u64::from(action.zone) << 32 | u64::from(s.mark));
    key.set_word(LABEL, (s.label >> 64) as u64);
    key.set_word(LABEL + 1, s.label as u64);
    let (addresses, ports) = if s.reply { ends.reversed() } else { (ends.addresses, ends.ports) };
    key.set_word(V4, addresses);
    key.set_word(PORTS, u64::from(ports) << 32 | u64::from(ends.proto) << 24);
    true
}

/// Tracks a packet; whether its headers may have changed.
pub(crate) fn track(
    tracker: &Tracker,
    frame: &mut [u8],
    headers: Option<Headers>,
    key: &mut PacketKey,
    action: &CtAction,
    now: Instant,
) -> bool {
    let mut m = read(key);
    tracker.track(frame, headers.as_ref(), &mut m, action, now);
    write(key, &m);
    m.state & (ct_state::SRC_NAT | ct_state::DST_NAT) != 0
}
