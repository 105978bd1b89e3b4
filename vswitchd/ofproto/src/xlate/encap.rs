//! What a packet begins with: Ethernet, a network service header, labels, IP.
//!
//! `encap` and `decap` change the key at once. The datapath's packet follows when next it is brought up to date, so that a pushed
//! header carries what is written into it afterwards. Before that everything within has been brought up to date: nothing reaches it
//! any more. What comes to light under a header that is taken off was never parsed: the packet goes through the datapath again,
//! but for what is under an Ethernet header, which is known.
//!
//! Fields of a pushed header are not the packet's. What is looked at of them says nothing of the packet that came in, and is not in the
//! mask; but where Open vSwitch's megaflows are wanted to the bit it is, as far as such a packet has the fields.

use flow::headers::eth_type;
use flow::{Action, FieldId, MacAddr, NshHeader, PacketMask, WordIter, WordSet, nsh, packet_type};
use openflow::extension::{Encap, EncapProperty};

use super::commit::{Headers, has_labels};
use super::{Problem, Xlate};
use crate::tunnel::PacketTypes;
use crate::vlan::Tags;

/// Words of the headers, from Ethernet's to the last.
const HEADERS: std::ops::Range<usize> = FieldId::EthDst.first_word()..FieldId::NdTarget.first_word() + 2;
/// Those of the Ethernet addresses.
const ADDRESSES: WordSet = 1 << FieldId::EthDst.first_word() | 1 << FieldId::EthSrc.first_word();

/// What is still to be done to what the datapath's packet begins with.
#[derive(Clone)]
pub(super) enum Pending {
    /// A header is to be pushed; the metadata of a network service header of type 2.
    Encap(Option<Vec<u8>>),
    /// A network service header is to be taken off.
    Decap,
}

/// Words of the key that are of headers the packet did not come with, and what had been looked at of its own.
#[derive(Clone)]
pub(super) struct Own {
    words: WordSet,
    looked: PacketMask,
}

impl Xlate<'_> {
    /// What the packet begins with by now.
    pub(super) fn packet_type(&self) -> u32 {
        self.key.get64(FieldId::PacketType) as u32
    }

    /// Whether it begins with an Ethernet header by now.
    pub(super) fn is_ethernet(&self) -> bool {
        self.packet_type() == packet_type::ETHERNET
    }

    fn refuse(&mut self, why: String) {
        self.detail(&why);
        self.fail(Problem::PacketType);
    }

    /// Pushes a header.
    pub(super) fn encap(&mut self, e: &Encap) {
        self.commit_packet();
        self.wc.set_exact(FieldId::PacketType);
        match packet_type::eth_type(e.packet_type) {
            None => self.encap_ethernet(),
            Some(t) if e.packet_type == packet_type::NSH => self.encap_nsh(e, t),
            Some(t) => self.encap_mpls(t),
        }
    }

    fn encap_ethernet(&mut self) {
        let Some(t) = packet_type::eth_type(self.packet_type()) else {
            return self.refuse(
                "Dropping packet as encap(ethernet) is not supported for packet type ethernet.".into(),
            );
        };
        self.is_not_the_packets(ADDRESSES);
        self.key.set(FieldId::PacketType, packet_type::ETHERNET.into());
        self.key.set(FieldId::EthType, t.into());
        self.blank_addresses();
        self.headers.pending = Some(Pending::Encap(None));
    }

    fn encap_nsh(&mut self, e: &Encap, eth_type: u16) {
        let kind = self.packet_type();
        let Some(next) = nsh::next_protocol::of(kind) else {
            return self.refuse(format!(
                "Dropping packet as encap(nsh) is not supported for packet type ({},0x{:x})",
                kind >> 16,
                kind & 0xffff
            ));
        };
        let (mut md_type, mut options) = (1, Vec::new());
        for p in &e.properties {
            match p {
                EncapProperty::NshMdType(t) => md_type = *t & 0xf,
                EncapProperty::NshTlv { class, kind, data } => {
                    options.extend(class.to_be_bytes());
                    options.extend([*kind, data.len() as u8]);
                    options.extend_from_slice(data);
                    options.resize(options.len().next_multiple_of(4), 0);
                }
            }
        }
        if options.len() > nsh::MAX_TYPE_2_BYTES {
            // As Open vSwitch, which has them without.
            options.clear();
        }
        self.hide_all(packet_type::NSH, eth_type);
        let fresh = NshHeader::default();
        for (f, v) in [
            (FieldId::NshTtl, fresh.ttl),
            (FieldId::NshMdtype, md_type),
            (FieldId::NshNp, next),
            (FieldId::NshSi, fresh.si),
        ] {
            self.key.set(f, v.into());
        }
        self.headers.pending = Some(Pending::Encap((md_type == 2).then_some(options)));
    }

    /// Labels before everything: those of a packet that begins with labels get another in front.
    fn encap_mpls(&mut self, eth_type: u16) {
        if !self.is_ethernet() && has_labels(&self.key) {
            return self.push_mpls(eth_type);
        }
        let (label, ttl) = match self.key.get64(FieldId::EthType) {
            t @ (0x0800 | 0x86dd) => {
                self.wc.set_exact(FieldId::NwTtl);
                (if t == 0x86dd { 2u128 } else { 0 }, self.key.get(FieldId::NwTtl))
            }
            _ => (0, 64),
        };
        self.hide_all(packet_type::of_type(eth_type), eth_type);
        self.key.set(FieldId::MplsLse0, label << 12 | 0x100 | ttl);
        self.headers.pending = Some(Pending::Encap(None));
    }

    /// Every header that the packet has is below another one now.
    fn hide_all(&mut self, kind: u32, eth_type: u16) {
        self.is_not_the_packets(HEADERS.fold(0, |all, i| all | 1 << i));
        for i in HEADERS {
            self.key.set_word(i, 0);
            self.written.set_word(i, 0);
        }
        self.key.set(FieldId::PacketType, kind.into());
        self.key.set(FieldId::EthType, eth_type.into());
        let h = std::mem::take(&mut self.headers);
        // Those of the datapath's packet stay known until it follows.
        self.headers = Headers {
            own: h.own,
            base_tags: h.base_tags,
            base_labels: h.base_labels,
            ttl_decrements_in_all: h.ttl_decrements_in_all,
            ..Headers::default()
        };
    }

    fn blank_addresses(&mut self) {
        for f in [FieldId::EthSrc, FieldId::EthDst] {
            self.key.set(f, 0);
            self.written.set_masked(f, 0, u128::MAX);
        }
    }

    /// Takes off the header that the packet begins with; `to` is what a label is said to be in front of.
    pub(super) fn decap(&mut self, to: u32) {
        self.commit_packet();
        let kind = self.packet_type();
        match packet_type::eth_type(kind) {
            None if self.headers.tags.len() > 0 => {
                self.refuse("Dropping packet, cannot decap Ethernet if VLAN is present.".into());
            }
            None => {
                let t = self.key.get64(FieldId::EthType) as u16;
                self.is_not_the_packets(ADDRESSES);
                self.key.set(FieldId::PacketType, packet_type::of_type(t).into());
                self.blank_addresses();
                self.wc.set_exact(FieldId::PacketType);
            }
            Some(_) if kind == packet_type::NSH => {
                self.wc.set_exact(FieldId::NshNp);
                let next = self.key.get64(FieldId::NshNp) as u8;
                let Some(is) = nsh::next_protocol::packet_type(next) else {
                    return self
                        .refuse(format!("Dropping packet as NSH next protocol {next} is not supported"));
                };
                self.key.set(FieldId::PacketType, is.into());
                self.headers.pending = Some(Pending::Decap);
                self.freeze();
            }
            Some(t) if eth_type::is_mpls(t) && to != packet_type::NEXT && to >> 16 <= 1 => {
                let below = packet_type::eth_type(to).unwrap_or(eth_type::TEB);
                if self.stock() && self.has_three_labels(true) {
                    return self.fail(Problem::MplsDecap);
                }
                self.wc.set_masked(FieldId::MplsLse0, u128::MAX, 0x100);
                let bottom = self.key.get(FieldId::MplsLse0) & 0x100 != 0;
                if bottom == eth_type::is_mpls(below) {
                    return self.refuse(format!(
                        "Dropping packet as what is below its label is not of type 0x{below:x}"
                    ));
                }
                self.for_good += 1;
                self.emit(Action::PopMpls { eth_type: below });
                for (f, v) in [(FieldId::PacketType, to), (FieldId::EthType, below.into())] {
                    self.key.set(f, v.into());
                    self.base.set(f, v.into());
                }
                self.freeze();
            }
            Some(t) => {
                self.refuse(format!(
                    "Dropping packet as the decap() does not support packet type (1,0x{t:x})"
                ));
            }
        }
    }

    /// Decrements the TTL of a network service header. Whether the packet goes on.
    pub(super) fn dec_nsh_ttl(&mut self) -> bool {
        if self.key.get64(FieldId::EthType) as u16 == eth_type::NSH {
            self.wc.set_exact(FieldId::NshTtl);
            let ttl = self.key.get64(FieldId::NshTtl);
            if ttl > 1 {
                self.set_field(FieldId::NshTtl, u128::from(ttl - 1), u128::MAX);
                return true;
            }
            self.controller(flow::PuntReason::InvalidTtl, u16::MAX);
        }
        self.warn("NSH decrement TTL exception");
        false
    }

    /// Makes the datapath's packet begin with what the key says.
    pub(super) fn commit_packet_type(&mut self) {
        let (kind, base) = (self.packet_type(), self.base.get64(FieldId::PacketType) as u32);
        match self.headers.pending.take() {
            Some(Pending::Decap) => {
                self.for_good += 1;
                self.emit(Action::PopNsh);
                self.base.set(FieldId::PacketType, kind.into());
            }
            Some(Pending::Encap(options)) if kind != packet_type::ETHERNET => {
                self.for_good += 1;
                if kind == packet_type::NSH {
                    let h = NshHeader::of_key(&self.key, options.as_deref());
                    self.emit(Action::PushNsh(Box::new(h)));
                } else {
                    let lse = self.key.get64(FieldId::MplsLse0) as u32;
                    let eth_type = self.key.get64(FieldId::EthType) as u16;
                    self.emit(Action::AddMpls { eth_type, lse });
                }
                for i in HEADERS {
                    self.base.set_word(i, self.key.word(i));
                    self.written.set_word(i, 0);
                }
                self.base.set(FieldId::PacketType, kind.into());
                self.headers.base_tags = Tags::default();
                self.headers.base_labels.clear();
            }
            _ if kind == base => {}
            pending if kind == packet_type::ETHERNET => {
                if pending.is_none() {
                    // The header that was taken off for somebody else is put back.
                    self.wc.set_exact(FieldId::EthSrc);
                    self.wc.set_exact(FieldId::EthDst);
                }
                let mac = |f| MacAddr::from_u64(self.key.get64(f));
                let (src, dst) = (mac(FieldId::EthSrc), mac(FieldId::EthDst));
                self.emit(Action::PushEth { src, dst });
                for f in [FieldId::PacketType, FieldId::EthSrc, FieldId::EthDst] {
                    self.base.set(f, self.key.get(f));
                    self.written.set_masked(f, 0, u128::MAX);
                }
            }
            _ if base == packet_type::ETHERNET => {
                self.emit(Action::PopEth);
                for f in [FieldId::EthSrc, FieldId::EthDst] {
                    self.base.set(f, 0);
                    self.written.set_masked(f, 0, u128::MAX);
                }
                self.base.set(FieldId::PacketType, kind.into());
            }
            // Labels that were pushed onto or taken off a packet without an Ethernet header.
            _ => self.base.set(FieldId::PacketType, kind.into()),
        }
    }

    /// Brings the fields of a network service header up to date.
    pub(super) fn commit_nsh(&mut self) {
        if self.key.get64(FieldId::EthType) as u16 != eth_type::NSH {
            return;
        }
        let differ = |x: &Self, f| (x.key.get(f) ^ x.base.get(f)) & x.written.get(f) != 0;
        let any = nsh::WRITABLE.into_iter().any(|f| differ(self, f));
        for field in nsh::WRITABLE {
            let max = field.info().max();
            // Open vSwitch writes all that it has looked at when it writes anything.
            let mask = if self.stock() {
                self.wc.get(field) | self.written.get(field)
            } else {
                self.written.get(field)
            };
            let value = self.key.get(field);
            if field.info().canon == FieldId::NdTarget && self.written.get(field) != 0 && !self.stock() {
                // Whether it has context words at all.
                self.wc.set_exact(FieldId::NshMdtype);
            }
            let there =
                field.first_word() == FieldId::NshFlags.first_word() || self.key.get(FieldId::NshMdtype) == 1;
            if there && mask != 0 && if self.stock() { any } else { differ(self, field) } {
                self.emit(Action::SetField { field, value: value & mask, mask: mask & max });
                self.base.set(field, value);
            }
            self.written.set_masked(field, 0, u128::MAX);
        }
    }

    /// These words of the key are of headers that the packet did not come with.
    fn is_not_the_packets(&mut self, words: WordSet) {
        if self.stock() {
            return;
        }
        let looked: PacketMask = self.wc.resize();
        let own = self.headers.own.get_or_insert(Own { words: 0, looked: PacketMask::ZERO });
        for i in WordIter(words & !own.words) {
            own.looked.set_word(i, looked.word(i));
        }
        own.words |= words;
    }

    /// The key is again that of `headers`, which are now those of the packet; what was looked at of headers that it did not come with is not
    /// in the mask.
    pub(super) fn forget_what_is_not_the_packets(&mut self, now: Option<Own>) {
        let Some(now) = now else { return };
        let before = self.headers.own.as_ref().map_or(0, |o| o.words);
        for i in WordIter(now.words & !before) {
            self.wc.set_word(i, now.looked.word(i));
        }
    }

    /// Whether a port can be given what the packet begins with. The Ethernet header of a packet for a port that takes none is gone
    /// from the key afterwards; the caller puts back what it began with.
    pub(super) fn suit(&mut self, packets: PacketTypes) -> bool {
        if packets == PacketTypes::Ethernet && !self.is_ethernet() {
            self.warn("Trying to send non-Ethernet packet through legacy L2 port. Dropping packet.");
            return false;
        }
        if packets == PacketTypes::Others && self.is_ethernet() {
            if self.headers.tags.len() > 0 {
                self.warn("Trying to send VLAN tagged packet through legacy L3 port. Dropping packet.");
                return false;
            }
            let t = self.key.get64(FieldId::EthType) as u16;
            self.key.set(FieldId::PacketType, packet_type::of_type(t).into());
            // An Ethernet header that was not pushed yet need not be.
            self.headers.pending = None;
        }
        true
    }

    /// A packet that came in without an Ethernet header by a port whose packets are all to have one.
    pub(super) fn give_header(&mut self) {
        if self.is_ethernet() {
            return;
        }
        self.key.set(FieldId::PacketType, packet_type::ETHERNET.into());
        self.headers.pending = Some(Pending::Encap(None));
    }
}
