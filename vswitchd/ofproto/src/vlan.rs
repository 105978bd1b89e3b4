//! VLANs as NORMAL sees them: sets of VLAN ids, what a port does with tags, and a packet's stack of tags.
//!
//! A port's [`VlanMode`] answers three questions: may a packet with this tag come in, what VLAN is it in then, and with what
//! tags does it leave. Between coming in and leaving a packet always carries the tag of its VLAN, here called the
//! *inner form*.
//!
//! A [`Tag`] remembers where its value comes from. The value of a tag that the packet came in with is known for the packet
//! at hand only: whoever depends on it has to say so in the megaflow's mask, so tags are never compared by a value nobody
//! has looked at.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

/// Bit of a tag's control field that stands for the tag being there.
pub(crate) const PRESENT: u16 = 0x1000;
const VID: u16 = 0x0fff;
const PCP: u16 = 0xe000;
const TPID_8021Q: u16 = 0x8100;

/// A set of VLAN ids.
#[derive(Clone, PartialEq, Eq)]
pub struct VlanSet(Arc<[u64; 64]>);

impl VlanSet {
    /// The set of these ids; numbers from 4096 up are ignored.
    pub fn new(ids: impl IntoIterator<Item = u16>) -> Self {
        let mut bits = [0u64; 64];
        for v in ids.into_iter().filter(|v| *v < 4096) {
            bits[usize::from(v / 64)] |= 1 << (v % 64);
        }
        VlanSet(Arc::new(bits))
    }

    /// Whether `vid` is in it.
    pub fn has(&self, vid: u16) -> bool {
        self.0.get(usize::from(vid / 64)).is_some_and(|w| w >> (vid % 64) & 1 != 0)
    }

    /// Its ids, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..4096).filter(|v| self.has(*v))
    }
}

impl fmt::Debug for VlanSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl FromIterator<u16> for VlanSet {
    fn from_iter<T: IntoIterator<Item = u16>>(iter: T) -> Self {
        VlanSet::new(iter)
    }
}

/// What a port does with VLAN tags (column `vlan_mode` of `Port`, ovs-vswitchd.conf.db(5)).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VlanMode {
    /// Carries one VLAN, untagged. What comes in tagged, but for VLAN id 0, is dropped.
    Access {
        /// The VLAN.
        vlan: u16,
    },
    /// Carries VLANs tagged; untagged packets are in VLAN 0.
    Trunk {
        /// Which; all when `None`.
        trunks: Option<VlanSet>,
    },
    /// A trunk whose untagged packets are in the native VLAN; it leaves tagged all the same.
    NativeTagged {
        /// The native VLAN.
        native: u16,
        /// Which others; all but VLAN 0 when `None`.
        trunks: Option<VlanSet>,
    },
    /// A trunk whose untagged packets are in the native VLAN, which leaves untagged.
    NativeUntagged {
        /// The native VLAN.
        native: u16,
        /// Which others; all but VLAN 0 when `None`.
        trunks: Option<VlanSet>,
    },
    /// Customer packets, tagged or not, are carried in one service VLAN (IEEE 802.1ad).
    Dot1qTunnel {
        /// The service VLAN.
        vlan: u16,
        /// Customer VLANs that are carried; all when `None`.
        cvlans: Option<VlanSet>,
        /// Ethernet type of the service tag.
        tpid: u16,
    },
}

impl Default for VlanMode {
    fn default() -> Self {
        VlanMode::Trunk { trunks: None }
    }
}

impl VlanMode {
    /// Whether VLAN `vid`, named by a tag, is carried on a trunk. The native VLAN always is, and VLAN 0 never where there is
    /// a native one that is not 0.
    fn trunks(&self, vid: u16) -> bool {
        match self {
            VlanMode::Access { .. } => false,
            VlanMode::Trunk { trunks } => trunks.as_ref().is_none_or(|t| t.has(vid)),
            VlanMode::NativeTagged { native, trunks } | VlanMode::NativeUntagged { native, trunks } => {
                match (vid, *native) {
                    (v, n) if v == n && n != 0 => true,
                    (0, n) if n != 0 => false,
                    (v, _) => trunks.as_ref().is_none_or(|t| t.has(v)),
                }
            }
            VlanMode::Dot1qTunnel { cvlans, .. } => cvlans.as_ref().is_none_or(|c| c.has(vid)),
        }
    }

    /// Whether a packet whose outermost tag names `vid` (0 when it has none) may come in on port `name`; if not, why.
    pub(crate) fn admits(&self, vid: u16, name: &str) -> Result<(), String> {
        match self {
            VlanMode::Access { vlan } if vid != 0 => Err(format!(
                "dropping VLAN {vid} tagged packet received on port {name} configured as VLAN {vlan} access port"
            )),
            VlanMode::Access { .. } => Ok(()),
            // A port carries its native VLAN, whatever its trunks.
            VlanMode::NativeTagged { .. } | VlanMode::NativeUntagged { .. } if vid == 0 => Ok(()),
            _ if self.trunks(vid) => Ok(()),
            VlanMode::Dot1qTunnel { .. } => Err(format!(
                "dropping VLAN {vid} packet received on dot1q-tunnel port {name} that excludes this VLAN"
            )),
            _ => Err(format!(
                "dropping VLAN {vid} packet received on port {name} not configured for trunking VLAN {vid}"
            )),
        }
    }

    /// The inner form of a packet that came in with `tags`.
    pub(crate) fn enter(&self, tags: &Tags) -> Tags {
        match self {
            VlanMode::Access { vlan } => Tags::from_iter([tags.retagged(*vlan)]),
            VlanMode::Trunk { .. } => tags.clone(),
            VlanMode::NativeTagged { native, .. } | VlanMode::NativeUntagged { native, .. } => {
                if tags.vid(0) == 0 { tags.moved_to(*native) } else { tags.clone() }
            }
            VlanMode::Dot1qTunnel { vlan, tpid, .. } => {
                let mut inner = tags.clone();
                inner.push(Tag::new(*tpid, *vlan));
                inner
            }
        }
    }

    /// Whether a packet of this inner form leaves by such a port.
    pub(crate) fn carries(&self, inner: &Tags) -> bool {
        match self {
            VlanMode::Access { vlan } => inner.vid(0) == *vlan && inner.vid(1) == 0,
            VlanMode::Dot1qTunnel { vlan, .. } => inner.vid(0) == *vlan && self.trunks(inner.vid(1)),
            _ => self.trunks(inner.vid(0)),
        }
    }

    /// Whether [`VlanMode::carries`] has looked at the second tag of this inner form.
    pub(crate) fn looks_at_second(&self, inner: &Tags) -> bool {
        match self {
            VlanMode::Access { vlan } => inner.vid(0) == *vlan,
            VlanMode::Dot1qTunnel { vlan, cvlans, .. } => inner.vid(0) == *vlan && cvlans.is_some(),
            _ => false,
        }
    }

    /// The tags with which a packet of this inner form leaves.
    pub(crate) fn leave(&self, inner: &Tags) -> Tags {
        let mut out = inner.clone();
        match self {
            VlanMode::Access { .. } => out.clear(),
            VlanMode::Trunk { .. } | VlanMode::NativeTagged { .. } => {}
            VlanMode::NativeUntagged { native, .. } if inner.vid(0) != *native => {}
            VlanMode::NativeUntagged { .. } | VlanMode::Dot1qTunnel { .. } => out.pop(),
        }
        out
    }
}

/// Whether a packet that would leave untagged gets a tag with VLAN id 0 to carry its priority
/// (`other_config:priority-tags` of `Port`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PriorityTags {
    /// No.
    #[default]
    Never,
    /// When the priority is not 0.
    IfNonzero,
    /// Also when it is 0, provided the packet had a tag.
    Always,
}

/// Where a tag's value comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// It is the packet's tag of this number, bits written since included.
    Packet(u8),
    /// Its priority is that of the packet's tag of this number.
    Priority(u8),
    /// It depends on nothing more.
    Constant,
}

impl Source {
    /// The packet's tag that this depends on.
    pub(crate) fn tag(self) -> Option<u8> {
        match self {
            Source::Packet(i) | Source::Priority(i) => Some(i),
            Source::Constant => None,
        }
    }
}

/// A VLAN tag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tag {
    pub(crate) tpid: u16,
    /// With the present bit.
    pub(crate) tci: u16,
    pub(crate) source: Source,
}

impl Tag {
    /// A new tag of priority 0.
    pub(crate) fn new(tpid: u16, vid: u16) -> Self {
        Tag { tpid, tci: vid & VID | PRESENT, source: Source::Constant }
    }

    /// Whether the two are surely the same on every packet of the megaflow.
    fn same(&self, o: &Tag) -> bool {
        match (self.source, o.source) {
            (Source::Packet(a), Source::Packet(b)) => a == b,
            (Source::Packet(_), _) | (_, Source::Packet(_)) => false,
            _ => (self.tpid, self.tci) == (o.tpid, o.tci),
        }
    }
}

/// A stack of tags, outermost first.
#[derive(Clone, Default, Debug)]
pub(crate) struct Tags(SmallVec<[Tag; 3]>);

impl FromIterator<Tag> for Tags {
    fn from_iter<T: IntoIterator<Item = Tag>>(iter: T) -> Self {
        Tags(iter.into_iter().collect())
    }
}

impl Tags {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, i: usize) -> Option<&Tag> {
        self.0.get(i)
    }

    pub(crate) fn outer(&mut self) -> Option<&mut Tag> {
        self.0.first_mut()
    }

    /// The id that tag `i` names; 0 when there is none.
    pub(crate) fn vid(&self, i: usize) -> u16 {
        self.0.get(i).map_or(0, |t| t.tci & VID)
    }

    pub(crate) fn push(&mut self, t: Tag) {
        self.0.insert(0, t);
    }

    pub(crate) fn pop(&mut self) {
        if !self.0.is_empty() {
            self.0.remove(0);
        }
    }

    fn clear(&mut self) {
        self.0.clear();
    }

    /// The same in another VLAN.
    pub(crate) fn moved_to(&self, vid: u16) -> Tags {
        let mut moved = self.clone();
        let new = self.retagged(vid);
        moved.pop();
        moved.push(new);
        moved
    }

    /// A tag for `vid` with the type and priority of the outermost one.
    fn retagged(&self, vid: u16) -> Tag {
        match self.0.first() {
            None => Tag::new(TPID_8021Q, vid),
            Some(t) => {
                let source = match t.source {
                    Source::Packet(i) | Source::Priority(i) => Source::Priority(i),
                    Source::Constant => Source::Constant,
                };
                Tag { tpid: t.tpid, tci: t.tci & PCP | vid & VID | PRESENT, source }
            }
        }
    }

    /// Whether the packet's own first tag is among them.
    pub(crate) fn have_first(&self) -> bool {
        self.0.iter().any(|t| t.source == Source::Packet(0))
    }

    /// How many of the innermost tags are surely the same in both.
    pub(crate) fn common(&self, o: &Tags) -> usize {
        self.0.iter().rev().zip(o.0.iter().rev()).take_while(|(a, b)| a.same(b)).count()
    }

    /// How many of the innermost tags have the same value in both.
    pub(crate) fn common_values(&self, o: &Tags) -> usize {
        let same = |(a, b): &(&Tag, &Tag)| (a.tpid, a.tci) == (b.tpid, b.tci);
        self.0.iter().rev().zip(o.0.iter().rev()).take_while(same).count()
    }

    /// Whether all values are the same.
    pub(crate) fn equal(&self, o: &Tags) -> bool {
        self.len() == o.len() && self.common_values(o) == self.len() && self.common(o) == self.len()
    }

    /// What is written for a packet that leaves with these tags: a tag of VLAN 0 and priority 0 is no tag, and one with a
    /// priority may be added. `came` is the packet's stack before NORMAL, `first_kept` whether rules had left it its own first
    /// tag. With it, the numbers of the packet's tags whose
    /// priority, or all of which when it was moved to another tag, this depended on.
    pub(crate) fn written(
        mut self,
        priority: PriorityTags,
        came: &Tags,
        first_kept: bool,
    ) -> (Tags, SmallVec<[u8; 2]>) {
        let mut looked = SmallVec::new();
        // The packet's own second tag stays whatever it is, unless rules took off the first.
        let stays = |s: Source| first_kept && matches!(s, Source::Packet(i) if i > 0);
        let mut first_stays = self.0.first().is_some_and(|t| stays(t.source));
        if priority != PriorityTags::Never {
            let first = came.0.first();
            let pcp = first.map_or(0, |t| t.tci & PCP);
            let source = match first.map(|t| t.source) {
                Some(Source::Packet(i) | Source::Priority(i)) => Source::Priority(i),
                _ => Source::Constant,
            };
            match self.0.first_mut() {
                Some(t) if first.is_some_and(|f| f.source == t.source) => {}
                Some(t) => {
                    looked.extend(t.source.tag());
                    looked.extend(source.tag());
                    (t.tci, t.source) = (t.tci & !PCP | pcp, Source::Constant);
                }
                None => {
                    looked.extend(source.tag());
                    if pcp != 0 {
                        self.0.push(Tag { tpid: TPID_8021Q, tci: pcp | PRESENT, source });
                    }
                }
            }
        }
        self.0.retain(|t| {
            let hidden = std::mem::take(&mut first_stays) || stays(t.source);
            if t.tci & VID != 0 || hidden {
                return true;
            }
            looked.extend(t.source.tag());
            t.tci & PCP != 0 || priority == PriorityTags::Always
        });
        (self, looked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(tci: &[u16]) -> Tags {
        let tag = |(i, t): (usize, &u16)| Tag {
            tpid: TPID_8021Q,
            tci: t | PRESENT,
            source: Source::Packet(i as u8),
        };
        tci.iter().enumerate().map(tag).collect()
    }

    fn tci(t: &Tags) -> Vec<u16> {
        t.0.iter().map(|t| t.tci & !PRESENT).collect()
    }

    #[test]
    fn a_set_holds_what_was_put_in_and_ignores_what_is_no_vlan() {
        let s = VlanSet::new([0, 63, 64, 4095, 4096, 65535]);
        assert_eq!(s.iter().collect::<Vec<_>>(), [0, 63, 64, 4095]);
        assert!(!s.has(4096) && !s.has(65535));
    }

    #[test]
    fn an_access_port_takes_untagged_packets_and_those_of_vlan_0_keeping_their_priority() {
        let m = VlanMode::Access { vlan: 10 };
        assert!(m.admits(0, "p1").is_ok());
        let why = "dropping VLAN 10 tagged packet received on port p1 configured as VLAN 10 access port";
        assert_eq!(m.admits(10, "p1").unwrap_err(), why);
        assert_eq!(tci(&m.enter(&tags(&[]))), [10]);
        assert_eq!(tci(&m.enter(&tags(&[0x6000]))), [0x600a]);
        assert_eq!(tci(&m.leave(&tags(&[0x600a]))), []);
        assert!(m.carries(&tags(&[10])) && !m.carries(&tags(&[11])) && !m.carries(&tags(&[10, 5])));
    }

    #[test]
    fn a_native_vlan_is_trunked_and_vlan_0_is_not() {
        for trunks in [None, Some(VlanSet::new([20])), Some(VlanSet::new([0, 10, 20]))] {
            let m = VlanMode::NativeTagged { native: 10, trunks: trunks.clone() };
            assert!(m.carries(&tags(&[10])) && m.carries(&tags(&[20])) && !m.carries(&tags(&[])));
            assert_eq!(m.carries(&tags(&[30])), trunks.is_none());
            assert_eq!(tci(&m.enter(&tags(&[]))), [10]);
            assert_eq!(tci(&m.leave(&tags(&[10]))), [10]);
            let m = VlanMode::NativeUntagged { native: 10, trunks };
            assert_eq!(tci(&m.leave(&tags(&[10]))), []);
            assert_eq!(tci(&m.leave(&tags(&[20]))), [20]);
        }
    }

    #[test]
    fn a_tunnel_port_adds_the_service_tag_and_takes_it_off() {
        let m = VlanMode::Dot1qTunnel { vlan: 10, cvlans: Some(VlanSet::new([0, 100])), tpid: 0x88a8 };
        assert!(m.admits(100, "p").is_ok() && m.admits(0, "p").is_ok() && m.admits(101, "p").is_err());
        let inner = m.enter(&tags(&[100]));
        assert_eq!(tci(&inner), [10, 100]);
        assert!(m.carries(&inner) && !m.carries(&tags(&[10, 101])));
        assert_eq!(tci(&m.leave(&inner)), [100]);
    }

    #[test]
    fn a_tag_that_says_nothing_is_left_out_and_a_priority_is_kept_where_asked() {
        let (t, looked) = tags(&[0]).written(PriorityTags::Never, &tags(&[0]), true);
        assert_eq!((tci(&t), &looked[..]), (vec![], &[0][..]));
        let (t, looked) = tags(&[0x6000]).written(PriorityTags::Never, &tags(&[0x6000]), true);
        assert_eq!((tci(&t), &looked[..]), (vec![0x6000], &[0][..]));
        let (t, _) = tags(&[]).written(PriorityTags::IfNonzero, &tags(&[0x600a]), true);
        assert_eq!(tci(&t), [0x6000]);
        let (t, _) = tags(&[]).written(PriorityTags::Always, &tags(&[0x000a]), true);
        assert_eq!(tci(&t), []);
        let (t, _) = tags(&[0]).written(PriorityTags::Always, &tags(&[0]), true);
        assert_eq!(tci(&t), [0]);
    }

    #[test]
    fn tags_of_the_packet_are_compared_by_what_they_are_not_by_value() {
        let came = tags(&[10]);
        let mut made = Tags::default();
        made.push(Tag::new(TPID_8021Q, 10));
        assert_eq!(made.common(&came), 0);
        assert_eq!(came.common(&came.clone()), 1);
        let mut two = came.clone();
        two.push(Tag::new(0x88a8, 7));
        assert_eq!((two.common(&came), two.len()), (1, 2));
    }
}
