//! Neighbours: Ethernet addresses of hosts and gateways next to this one, found by ARP (RFC 826) and neighbour discovery (RFC 4861).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use clock::Instant;
use flow::frame::FrameBuilder;
use flow::{FieldId, MacAddr, PacketKey};

/// How long a neighbour is remembered that was not heard again.
pub const NEIGHBOUR_LIFE: Duration = Duration::from_secs(15 * 60);
/// Most neighbours; of more none is learned until others are forgotten.
pub const MAX_NEIGHBOURS: usize = 16_384;
/// Most that are asked for at a time.
const MAX_WANTED: usize = 1024;
/// Between one question and the next.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Times that one is asked for; the next packet begins again.
const QUESTIONS: u8 = 10;

/// A neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// When it is forgotten.
    pub until: Instant,
}

/// Neighbours by bridge and address.
#[derive(Clone, Default)]
pub struct Neighbours {
    all: HashMap<(String, IpAddr), Neighbour>,
    life: Option<Duration>,
}

impl Neighbours {
    /// The Ethernet address of `ip` next to `bridge`.
    pub fn get(&self, bridge: &str, ip: IpAddr) -> Option<MacAddr> {
        // One borrowed key would do, if tuples could be borrowed so.
        self.all.get(&(bridge.to_owned(), ip)).map(|n| n.mac)
    }

    /// Remembers one; whether that is news.
    pub fn set(&mut self, bridge: &str, ip: IpAddr, mac: MacAddr, now: Instant) -> bool {
        let n = Neighbour { mac, until: now + self.life() };
        let key = (bridge.to_owned(), ip);
        if self.all.len() >= MAX_NEIGHBOURS && !self.all.contains_key(&key) {
            return false;
        }
        self.all.insert(key, n).is_none_or(|old| old.mac != mac)
    }

    /// How long one is remembered.
    pub fn life(&self) -> Duration {
        self.life.unwrap_or(NEIGHBOUR_LIFE)
    }

    /// Sets how long those are remembered that are heard from now on.
    pub fn set_life(&mut self, life: Duration) {
        self.life = Some(life);
    }

    /// Whether there are any next to a bridge.
    pub(crate) fn has_any_of(&self, bridge: &str) -> bool {
        self.all.keys().any(|(b, _)| b == bridge)
    }

    /// Whether one is past its time.
    pub(crate) fn any_past(&self, now: Instant) -> bool {
        self.all.values().any(|n| now >= n.until)
    }

    /// Forgets those that are past their time.
    pub(crate) fn age(&mut self, now: Instant) {
        self.all.retain(|_, n| now < n.until);
    }

    /// Forgets all, or those next to one bridge.
    pub fn flush(&mut self, bridge: Option<&str>) {
        self.all.retain(|(b, _), _| bridge.is_some_and(|x| x != b));
    }

    /// Forgets one; whether it was known.
    pub fn remove(&mut self, bridge: &str, ip: IpAddr) -> bool {
        self.all.remove(&(bridge.to_owned(), ip)).is_some()
    }

    /// All, in order of bridge and address.
    pub fn sorted(&self) -> Vec<(&str, IpAddr, Neighbour)> {
        let mut v: Vec<_> = self.all.iter().map(|((b, ip), n)| (b.as_str(), *ip, *n)).collect();
        v.sort_by_key(|(b, ip, _)| (*b, *ip));
        v
    }
}

/// What a packet says about a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Overheard {
    /// The bridge that it went to.
    pub bridge: u32,
    /// Who.
    pub ip: IpAddr,
    /// Its Ethernet address.
    pub mac: MacAddr,
}

impl Overheard {
    /// Of a packet that says who has which address: ARP's answers and announcements, and neighbour advertisements. Answers count
    /// only where they were asked for, at one of the addresses that are `mine`. The fields that it is in.
    pub(crate) fn of(
        key: &PacketKey,
        bridge: u32,
        mine: impl Fn(IpAddr) -> bool,
    ) -> Option<(Overheard, &'static [FieldId])> {
        use FieldId::{ArpSha, ArpTha, EthType, Ipv6Dst, NdTarget, NwDst, NwProto, NwSrc, TpSrc};
        let mac = |f| {
            let bytes = key.get64(f).to_be_bytes();
            MacAddr([bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
        };
        let (ip, mac, fields): (IpAddr, _, &'static [FieldId]) = match key.get64(EthType) {
            0x0806 => {
                let announces = key.get(NwSrc) == key.get(NwDst);
                let to = IpAddr::V4((key.get64(NwDst) as u32).into());
                if !announces && (key.get(NwProto) != 2 || !mine(to)) {
                    return None;
                }
                let ip = IpAddr::V4((key.get64(NwSrc) as u32).into());
                (ip, mac(ArpSha), &[NwProto, NwSrc, NwDst, ArpSha])
            }
            0x86dd
                if key.get(NwProto) == 58
                    && key.get(TpSrc) == 136
                    && mine(IpAddr::V6(key.get(Ipv6Dst).into())) =>
            {
                let ip = IpAddr::V6(key.get(NdTarget).into());
                (ip, mac(ArpTha), &[NwProto, TpSrc, Ipv6Dst, NdTarget, ArpTha])
            }
            _ => return None,
        };
        Overheard::sound(bridge, ip, mac).map(|heard| (heard, fields))
    }

    /// Of a packet in a tunnel: who sent it, and from where. It says that of those alone that are next to the bridge.
    pub(crate) fn of_tunnelled(key: &PacketKey, bridge: u32, from: IpAddr) -> Option<Overheard> {
        Overheard::sound(bridge, from, MacAddr::from_u64(key.get64(FieldId::EthSrc)))
    }

    fn sound(bridge: u32, ip: IpAddr, mac: MacAddr) -> Option<Overheard> {
        let is = mac.0 != [0; 6] && mac.0[0] & 1 == 0 && !ip.is_unspecified() && !ip.is_multicast();
        is.then_some(Overheard { bridge, ip, mac })
    }
}

/// Neighbours that are asked for.
#[derive(Default)]
pub(crate) struct Wanted(HashMap<(u32, IpAddr), (Instant, u8)>);

impl Wanted {
    /// Notes that packets wait for one. Whether it is to be asked for at once.
    pub(crate) fn want(&mut self, bridge: u32, ip: IpAddr, now: Instant) -> bool {
        let full = self.0.len() >= MAX_WANTED;
        match self.0.get_mut(&(bridge, ip)) {
            Some((last, n)) if now.since(*last) >= ASK_AGAIN => {
                (*last, *n) = (now, 1);
                true
            }
            Some(_) => false,
            None if full => false,
            None => {
                self.0.insert((bridge, ip), (now, 1));
                true
            }
        }
    }

    /// Those that are to be asked for again. One that was answered, or asked for often enough, is not any more.
    pub(crate) fn due(&mut self, now: Instant, known: impl Fn(u32, IpAddr) -> bool) -> Vec<(u32, IpAddr)> {
        self.0.retain(|(b, ip), (_, n)| *n < QUESTIONS && !known(*b, *ip));
        let mut out = Vec::new();
        for (who, (last, n)) in &mut self.0 {
            if now.since(*last) >= ASK_AGAIN {
                (*last, *n) = (now, *n + 1);
                out.push(*who);
            }
        }
        out
    }
}

/// The question who has `ip`, from `src` with Ethernet address `mac`. `None` when the two are not of one family.
pub(crate) fn solicitation(mac: MacAddr, src: IpAddr, ip: IpAddr) -> Option<Vec<u8>> {
    let b = FrameBuilder::new();
    match (src, ip) {
        (IpAddr::V4(src), IpAddr::V4(ip)) => {
            Some(b.eth(MacAddr::BROADCAST, mac).arp_request(src, ip).build())
        }
        (IpAddr::V6(src), IpAddr::V6(ip)) => {
            // The group, and its Ethernet address (RFC 2464 7).
            let [.., a, b1, c] = ip.octets();
            let group = solicited_group(ip);
            let to = MacAddr([0x33, 0x33, 0xff, a, b1, c]);
            Some(b.eth(to, mac).ipv6(src, group).neighbour(135, ip, &[(1, mac)]).build())
        }
        _ => None,
    }
}

/// The group of all whose address has these last 24 bits (RFC 4291 2.7.1).
pub(super) fn solicited_group(ip: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from(0xff02_0000_0000_0000_0000_0001_ff00_0000 | u128::from(ip) & 0xff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::PortId;

    fn key(f: &[u8]) -> PacketKey {
        flow::parse(f, PortId(1)).unwrap().key
    }

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);

    #[test]
    fn answers_and_announcements_are_heard_and_questions_are_not() {
        let b = || FrameBuilder::new().eth(MacAddr([2, 0, 0, 0, 0, 1]), MAC);
        let answer = key(&b().arp(2, MAC, [10, 0, 0, 7], MacAddr::ZERO, [10, 0, 0, 1]).build());
        let me = |a: IpAddr| a == IpAddr::from([10, 0, 0, 1]);
        let heard = Overheard::of(&answer, 3, me).unwrap().0;
        assert_eq!(heard, Overheard { bridge: 3, ip: "10.0.0.7".parse().unwrap(), mac: MAC });
        let announced = key(&b().arp(1, MAC, [10, 0, 0, 7], MacAddr::ZERO, [10, 0, 0, 7]).build());
        assert!(Overheard::of(&announced, 3, me).is_some());
        let asked = key(&b().arp_request([10, 0, 0, 7], [10, 0, 0, 1]).build());
        assert!(Overheard::of(&asked, 3, me).is_none());
        // What others are told may be a lie for them.
        let others = key(&b().arp(2, MAC, [10, 0, 0, 7], MacAddr::ZERO, [10, 0, 0, 9]).build());
        assert!(Overheard::of(&others, 3, me).is_none());
        let group = MacAddr([3, 0, 0, 0, 0, 7]);
        let lie = key(&b().arp(2, group, [10, 0, 0, 7], MacAddr::ZERO, [10, 0, 0, 1]).build());
        assert!(Overheard::of(&lie, 3, me).is_none());
    }

    #[test]
    fn a_packet_in_a_tunnel_says_where_its_sender_is() {
        let from = |mac: [u8; 6]| {
            let b = FrameBuilder::new().eth(MacAddr([2, 0, 0, 0, 0, 1]), MacAddr(mac));
            key(&b.ipv4([10, 0, 0, 7], [10, 0, 0, 1]).udp(1, 4789).build())
        };
        let ip = "10.0.0.7".parse().unwrap();
        let heard = Overheard::of_tunnelled(&from(MAC.0), 3, ip);
        assert_eq!(heard, Some(Overheard { bridge: 3, ip, mac: MAC }));
        assert_eq!(Overheard::of_tunnelled(&from([3, 0, 0, 0, 0, 7]), 3, ip), None);
        assert_eq!(Overheard::of_tunnelled(&from(MAC.0), 3, "0.0.0.0".parse().unwrap()), None);
    }

    #[test]
    fn a_solicitation_goes_to_those_whose_address_ends_alike() {
        let (src, ip): (IpAddr, IpAddr) =
            ("2001:db8::1".parse().unwrap(), "2001:db8::12:3456".parse().unwrap());
        let f = solicitation(MAC, src, ip).unwrap();
        assert_eq!(&f[..6], &[0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        let k = key(&f);
        let group: Ipv6Addr = "ff02::1:ff12:3456".parse().unwrap();
        assert_eq!(k.get(FieldId::Ipv6Dst), u128::from(group));
        assert_eq!((k.get(FieldId::TpSrc), k.get(FieldId::NwTtl)), (135, 255));
    }

    #[test]
    fn neighbours_are_asked_for_each_second_until_they_answer_or_it_was_often_enough() {
        let (mut w, ip): (_, IpAddr) = (Wanted::default(), "10.0.0.7".parse().unwrap());
        let at = |s: u64| Instant::from_nanos(s * 1_000_000_000);
        assert!(w.want(0, ip, at(0)) && !w.want(0, ip, at(0)));
        let asked: usize = (1..100).map(|s| w.due(at(s), |_, _| false).len()).sum();
        assert_eq!(asked, usize::from(QUESTIONS) - 1);
        assert!(w.want(0, ip, at(100)));
        assert!(w.due(at(101), |_, _| true).is_empty());
    }

    #[test]
    fn a_neighbour_that_is_silent_is_forgotten() {
        let mut n = Neighbours::default();
        let ip = "10.0.0.7".parse().unwrap();
        assert!(n.set("br0", ip, MAC, Instant::ZERO) && !n.set("br0", ip, MAC, Instant::ZERO));
        assert_eq!(n.get("br0", ip), Some(MAC));
        n.age(Instant::ZERO + NEIGHBOUR_LIFE);
        assert_eq!(n.get("br0", ip), None);
    }
}
