//! A flower filter: where it is, what it matches, what it does; written and read.
//!
//! Reading is in two steps, because a dump has other people's filters in it: [`Head`] says where a filter is and of which
//! kind, whatever it is; [`Head::flower`] reads a flower filter whole, and [`Head::terse`] only whose it is and what it
//! counted.

use crate::action::{self, ActionReport, Cookie, TcAction};
use crate::error::CodecError;
use crate::keys::FlowerKey;
use crate::tunnel_opts::{self, CfmMatch, LseMatch, TunnelOpt};
use crate::wire::{Writer, attrs, find, read_text, read_u32, word};

/// Bytes of `struct tcmsg`.
pub const TCMSG: usize = 20;
/// Parent of filters on what a device receives: the ingress half of a clsact qdisc.
pub const INGRESS: u32 = 0xffff_fff2;
/// Parent of filters on what a device sends.
pub const EGRESS: u32 = 0xffff_fff3;
/// Interface number that says that the parent is a shared block's number (TCM_IFINDEX_MAGIC_BLOCK).
const BLOCK_MAGIC: u32 = u32::MAX;

pub(crate) const TCA_KIND: u16 = 1;
pub(crate) const TCA_OPTIONS: u16 = 2;
pub(crate) const TCA_CHAIN: u16 = 11;
const FLOWER_CLASSID: u16 = 1;
pub(crate) const FLOWER_ACT: u16 = 3;
const FLOWER_FLAGS: u16 = 22;
const FLOWER_ENC_OPTS: u16 = 84;
const FLOWER_ENC_OPTS_MASK: u16 = 85;
const FLOWER_IN_HW_COUNT: u16 = 86;
const FLOWER_MPLS_OPTS: u16 = 99;
const FLOWER_CFM: u16 = 107;

/// Bits of a filter's flags (TCA_CLS_FLAGS_*).
pub mod flags {
    /// Not for hardware.
    pub const SKIP_HW: u32 = 1;
    /// For hardware only; refused when hardware does not take it.
    pub const SKIP_SW: u32 = 2;
    /// The kernel says: in hardware.
    pub const IN_HW: u32 = 4;
    /// The kernel says: not in hardware.
    pub const NOT_IN_HW: u32 = 8;
    /// A driver's words are wanted even when its refusal does no harm.
    pub const VERBOSE: u32 = 16;
    /// What whoever writes a filter may set.
    pub const WRITTEN: u32 = SKIP_HW | SKIP_SW | VERBOSE;
}

/// What filters hang on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Hook {
    /// What an interface receives.
    Ingress(u32),
    /// What an interface sends.
    Egress(u32),
    /// A block that several interfaces share.
    Block(u32),
}

impl Hook {
    /// Interface number and parent as `struct tcmsg` has them.
    pub fn raw(self) -> (u32, u32) {
        match self {
            Hook::Ingress(i) => (i, INGRESS),
            Hook::Egress(i) => (i, EGRESS),
            Hook::Block(b) => (BLOCK_MAGIC, b),
        }
    }

    /// The hook that these numbers name; `None` for the class of some other qdisc.
    pub fn from_raw(ifindex: u32, parent: u32) -> Option<Hook> {
        match (ifindex, parent) {
            (BLOCK_MAGIC, b) => Some(Hook::Block(b)),
            // The ingress qdisc calls itself ffff:.
            (i, INGRESS | 0xffff_0000) => Some(Hook::Ingress(i)),
            (i, EGRESS) => Some(Hook::Egress(i)),
            _ => None,
        }
    }
}

/// Where a filter is. Within a chain filters are asked in ascending order of `prio`; a `prio` belongs to one protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FilterAt {
    /// What it hangs on.
    pub hook: Hook,
    /// Chain; packets begin in chain 0.
    pub chain: u32,
    /// Priority, 1 first.
    pub prio: u16,
    /// Protocol of the packets (an Ethernet type, the outermost tag's when there is one); 3 (ETH_P_ALL) for any.
    pub protocol: u16,
    /// Name among the filters of its priority.
    pub handle: u32,
}

/// A key and what is wanted of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct KeyMatch {
    /// Which.
    pub key: FlowerKey,
    /// Value, right-aligned; no bits outside the mask.
    pub value: u128,
    /// Bits that matter; all that the key has when flower has no mask for it.
    pub mask: u128,
}

/// What a flower filter matches and does.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Flower {
    /// Keys in the order of their numbers.
    pub keys: Vec<KeyMatch>,
    /// Tunnel options and their masks, as many of one as of the other.
    pub enc_opts: Option<(Vec<TunnelOpt>, Vec<TunnelOpt>)>,
    /// MPLS label stack entries.
    pub mpls: Vec<LseMatch>,
    /// Connectivity fault management.
    pub cfm: Option<CfmMatch>,
    /// Class (for egress qdiscs), 0 for none.
    pub class: u32,
    /// [`flags`].
    pub flags: u32,
    /// What it does.
    pub actions: Vec<TcAction>,
}

impl Flower {
    /// Requires all of a key.
    pub fn set(&mut self, key: FlowerKey, value: u128) {
        self.set_masked(key, value, key.row().max);
    }

    /// Requires bits of a key, which the key must have.
    pub fn set_masked(&mut self, key: FlowerKey, value: u128, mask: u128) {
        let m = KeyMatch { key, value: value & mask, mask };
        let at = self.keys.partition_point(|k| k.key < key);
        match self.keys.get_mut(at) {
            Some(k) if k.key == key => *k = m,
            _ => self.keys.insert(at, m),
        }
    }

    /// Value and mask of a key, when it is matched.
    pub fn get(&self, key: FlowerKey) -> Option<(u128, u128)> {
        self.keys.iter().find(|k| k.key == key).map(|k| (k.value, k.mask))
    }

    /// Writes the filter's options (the contents of TCA_OPTIONS).
    pub fn put(&self, w: &mut Writer) {
        if self.class != 0 {
            w.u32(FLOWER_CLASSID, self.class);
        }
        for k in &self.keys {
            let row = k.key.row();
            let n = usize::from(row.bytes);
            w.attr(row.attr, &row.put(k.value)[..n]);
            if let Some(mask) = row.mask_attr {
                w.attr(mask, &row.put(k.mask)[..n]);
            }
        }
        if let Some((value, mask)) = &self.enc_opts {
            tunnel_opts::put(w, FLOWER_ENC_OPTS, value);
            tunnel_opts::put(w, FLOWER_ENC_OPTS_MASK, mask);
        }
        if !self.mpls.is_empty() {
            tunnel_opts::put_lse(w, FLOWER_MPLS_OPTS, &self.mpls);
        }
        if let Some(c) = &self.cfm {
            tunnel_opts::put_cfm(w, FLOWER_CFM, c);
        }
        if !self.actions.is_empty() {
            action::put_actions(w, FLOWER_ACT, &self.actions);
        }
        w.u32(FLOWER_FLAGS, self.flags & flags::WRITTEN);
    }

    /// Reads a filter's options, and what the kernel says besides.
    ///
    /// # Errors
    /// [`CodecError`]: damaged, or an action of a kind that is not known here.
    pub fn get_options(b: &[u8]) -> Result<(Flower, FilterReport), CodecError> {
        let mut f = Flower::default();
        let mut report = FilterReport::default();
        let (mut opts, mut opts_mask) = (None, None);
        for a in attrs(b) {
            let (attr, v) = a?;
            match attr {
                FLOWER_CLASSID => f.class = read_u32("class", v)?,
                FLOWER_ACT => {
                    for (a, r) in action::get_actions(v)? {
                        f.actions.push(a);
                        report.actions.push(r);
                    }
                }
                FLOWER_FLAGS => {
                    let all = read_u32("filter flags", v)?;
                    f.flags = all & flags::WRITTEN;
                    report.in_hw = all & flags::IN_HW != 0;
                }
                FLOWER_IN_HW_COUNT => report.in_hw_count = read_u32("hardware count", v)?,
                FLOWER_ENC_OPTS => opts = Some(tunnel_opts::get(v)?),
                FLOWER_ENC_OPTS_MASK => opts_mask = Some(tunnel_opts::get(v)?),
                FLOWER_MPLS_OPTS => f.mpls = tunnel_opts::get_lse(v)?,
                FLOWER_CFM => f.cfm = Some(tunnel_opts::get_cfm(v)?),
                _ => f.read_key(attr, v, &mut report)?,
            }
        }
        for k in &mut f.keys {
            k.value &= k.mask;
        }
        f.keys.retain(|k| k.mask != 0);
        f.enc_opts = opts.map(|o| (o, opts_mask.unwrap_or_default()));
        Ok((f, report))
    }

    fn read_key(&mut self, attr: u16, v: &[u8], report: &mut FilterReport) -> Result<(), CodecError> {
        let (key, is_mask) = match (FlowerKey::by_attr(attr), FlowerKey::by_mask_attr(attr)) {
            (Some(k), _) => (k, false),
            (None, Some(k)) => (k, true),
            (None, None) => {
                report.unknown.push(attr);
                return Ok(());
            }
        };
        let row = key.row();
        if v.len() != usize::from(row.bytes) {
            return Err(CodecError::Length { what: row.name, wanted: row.bytes.into(), found: v.len() });
        }
        let n = row.get(v);
        // A value without its mask is matched whole; the mask may come before or after.
        match self.keys.iter_mut().find(|k| k.key == key) {
            Some(k) if is_mask => k.mask = n & row.max,
            Some(k) => k.value = n,
            None if is_mask => self.set_masked(key, 0, n & row.max),
            None => {
                self.set_masked(key, n, row.max);
            }
        }
        Ok(())
    }
}

/// What the kernel says of a filter besides what it was told.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FilterReport {
    /// Whether a device has it.
    pub in_hw: bool,
    /// How many devices have it.
    pub in_hw_count: u32,
    /// Of its actions, in their order.
    pub actions: Vec<ActionReport>,
    /// Attributes that are not known here: the filter may match on more than was read.
    pub unknown: Vec<u16>,
}

/// Whose a filter is and what it has counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Terse {
    /// Cookie of its first action.
    pub cookie: Option<Cookie>,
    /// Report of the action that says most: the greatest counters.
    pub report: ActionReport,
    /// Whether a device has it.
    pub in_hw: bool,
}

/// A message about a filter, not yet read beyond where it is.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Where.
    pub at: FilterAt,
    /// TCA_KIND.
    kind: &'a [u8],
    options: &'a [u8],
}

impl<'a> Head<'a> {
    /// Reads a message's body (what follows `struct nlmsghdr`). `None` when it is about a filter on some other qdisc.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn read(b: &'a [u8]) -> Result<Option<Head<'a>>, CodecError> {
        let what = "tcmsg";
        let (ifindex, handle) = (word(what, b, 1)?, word(what, b, 2)?);
        let (parent, info) = (word(what, b, 3)?, word(what, b, 4)?);
        let Some(hook) = Hook::from_raw(ifindex, parent) else {
            return Ok(None);
        };
        let (mut chain, mut kind, mut options) = (0, &[][..], &[][..]);
        for a in attrs(&b[TCMSG..]) {
            match a? {
                (TCA_KIND, v) => kind = v,
                (TCA_OPTIONS, v) => options = v,
                (TCA_CHAIN, v) => chain = read_u32("chain", v)?,
                _ => {}
            }
        }
        let at =
            FilterAt { hook, chain, prio: (info >> 16) as u16, protocol: u16::from_be(info as u16), handle };
        Ok(Some(Head { at, kind, options }))
    }

    /// The kind of classifier.
    pub fn kind(&self) -> String {
        read_text(self.kind)
    }

    /// Whether it is a flower filter.
    pub fn is_flower(&self) -> bool {
        self.kind.split(|c| *c == 0).next() == Some(b"flower")
    }

    /// Whether the message is about a filter and not about its priority alone: dumps have a line for that, too.
    pub fn is_filter(&self) -> bool {
        self.at.handle != 0 && !self.options.is_empty()
    }

    /// The flower filter.
    ///
    /// # Errors
    /// As [`Flower::get_options`].
    pub fn flower(&self) -> Result<(Flower, FilterReport), CodecError> {
        Flower::get_options(self.options)
    }

    /// Only whose it is and what it has counted. Reads terse dumps and whole ones.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn terse(&self) -> Result<Terse, CodecError> {
        let mut t = Terse { cookie: None, report: ActionReport::default(), in_hw: false };
        if let Some(b) = find(self.options, FLOWER_FLAGS)? {
            t.in_hw = read_u32("filter flags", b)? & flags::IN_HW != 0;
        }
        let (mut first, mut by_policer) = (true, true);
        for a in attrs(find(self.options, FLOWER_ACT)?.unwrap_or_default()) {
            let (shared, cookie, report) = action::get_terse(a?.1)?;
            // A policer counts for all filters that share it, and has the cookie of whoever came last: what another says goes first.
            if first || by_policer && !shared {
                (t.cookie, t.report, by_policer) = (cookie, report, shared);
            } else if !shared && report.total.packets > t.report.total.packets {
                // Each action counts what reaches it.
                t.report = report;
            }
            first = false;
        }
        Ok(t)
    }

    /// The filter's options, for comparison with what was written.
    pub fn options(&self) -> &'a [u8] {
        self.options
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::{MirredMode, Verdict};

    fn round(f: &Flower) -> Flower {
        let mut w = Writer::new();
        f.put(&mut w);
        Flower::get_options(w.bytes()).unwrap().0
    }

    #[test]
    fn keys_are_kept_in_order_and_come_back() {
        let mut f = Flower::default();
        f.set(FlowerKey::IpProto, 6);
        f.set(FlowerKey::EthType, 0x0800);
        f.set_masked(FlowerKey::Ip4Dst, 0x0a01_0203, 0xffff_0000);
        f.set(FlowerKey::IpProto, 17);
        f.actions.push(TcAction::mirred(MirredMode::EgressRedirect, 3));
        assert_eq!(f.get(FlowerKey::IpProto), Some((17, 0xff)));
        assert_eq!(f.get(FlowerKey::Ip4Dst), Some((0x0a01_0000, 0xffff_0000)));
        assert_eq!(round(&f), f);
    }

    #[test]
    fn every_key_comes_back_under_every_mask_it_can_have() {
        for row in crate::keys::KEYS {
            for mask in [row.max, row.max & 0x5555_5555_5555_5555_5555_5555_5555_5555, row.max & !1] {
                if mask == 0 || row.mask_attr.is_none() && mask != row.max {
                    continue;
                }
                let mut f = Flower::default();
                f.set_masked(row.id, u128::MAX, mask);
                f.actions.push(TcAction::verdict(Verdict::Drop));
                assert_eq!(round(&f), f, "{}", row.name);
            }
        }
    }

    #[test]
    fn hooks_are_told_apart() {
        for h in [Hook::Ingress(5), Hook::Egress(5), Hook::Block(22)] {
            let (i, p) = h.raw();
            assert_eq!(Hook::from_raw(i, p), Some(h));
        }
        assert_eq!(Hook::from_raw(5, 0x0001_0000), None);
    }

    #[test]
    fn attributes_nobody_knows_are_reported() {
        let mut w = Writer::new();
        w.u32(120, 1);
        let (_, r) = Flower::get_options(w.bytes()).unwrap();
        assert_eq!(r.unknown, [120]);
    }
}
