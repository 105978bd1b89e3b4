//! A bond: which of its members carry frames, and which one a frame goes by (ovs-vswitchd.conf.db(5), table Port).
//!
//! Members are enabled when they may be (their link carries, and link aggregation has agreed) and have been so for a while, and
//! disabled alike. An active-backup bond sends by one of them, the active one. The others send by what a hash of the frame falls on:
//! 256 buckets, each of which has a member, and moves to another when that is disabled, or when loads differ ([`balance`]).

mod balance;
mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use clock::Instant;

use crate::MemberId;
use crate::lacp::LacpStatus;

/// Buckets that hashes fall into.
pub const BUCKETS: usize = 256;
/// Between looks at loads when nothing is configured, and the least.
const REBALANCE: Duration = Duration::from_secs(10);
const MIN_REBALANCE_MS: u64 = 1000;

/// How members are chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BondMode {
    /// One carries all.
    #[default]
    ActiveBackup,
    /// By source address and VLAN; the other end need not know.
    BalanceSlb,
    /// By connection; the other end must agree by link aggregation.
    BalanceTcp,
}

impl BondMode {
    /// By its word.
    pub fn by_name(name: &str) -> Option<BondMode> {
        [BondMode::ActiveBackup, BondMode::BalanceSlb, BondMode::BalanceTcp]
            .into_iter()
            .find(|m| m.word() == name)
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            BondMode::ActiveBackup => "active-backup",
            BondMode::BalanceSlb => "balance-slb",
            BondMode::BalanceTcp => "balance-tcp",
        }
    }
}

/// How a bond is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BondSettings {
    /// How members are chosen.
    pub mode: BondMode,
    /// How long a link must have carried before its member is enabled, unless none is.
    pub up_delay: Duration,
    /// How long it must not have before the member is disabled.
    pub down_delay: Duration,
    /// Between looks at loads; `None` leaves them.
    pub rebalance: Option<Duration>,
    /// Of an active-backup bond, the member that is active whenever it is enabled.
    pub primary: Option<String>,
    /// Mixed into hashes.
    pub basis: u32,
    /// Multicast is taken by any member, not by the active one alone.
    pub all_members_active: bool,
    /// Where members are chosen by connection, the datapath is to do that, by a table that it has of the bond.
    pub lb_output: bool,
    /// Without a partner to agree with, goes on as an active-backup bond.
    pub fallback_ab: bool,
    /// Address of the member that was active last.
    pub last_active: Option<[u8; 6]>,
}

impl Default for BondSettings {
    fn default() -> Self {
        BondSettings {
            mode: BondMode::default(),
            up_delay: Duration::ZERO,
            down_delay: Duration::ZERO,
            rebalance: Some(REBALANCE),
            primary: None,
            basis: 0,
            all_members_active: false,
            lb_output: false,
            fallback_ab: false,
            last_active: None,
        }
    }
}

impl BondSettings {
    /// The interval between looks at loads that is meant by so many milliseconds; 0 is none.
    pub fn rebalance_ms(ms: u64) -> Option<Duration> {
        (ms > 0).then(|| Duration::from_millis(ms.max(MIN_REBALANCE_MS)))
    }
}

#[derive(Debug)]
struct Member {
    name: String,
    mac: [u8; 6],
    /// Its link carries and it may be used.
    may_enable: bool,
    enabled: bool,
    /// When it changes to what it may be.
    changes_at: Option<Instant>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Bucket {
    member: Option<MemberId>,
    /// Bytes sent lately, of which half is forgotten at each look.
    load: u64,
    /// All bytes, as counted when it was looked at last.
    counted: u64,
}

/// What a bond says of a frame that has come in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// It is taken.
    Accept,
    /// It is not.
    Drop,
    /// It is, unless its sender is known to be behind another port: then it has come back by another member.
    DropIfMoved,
}

/// What translations need to know of a bond: as it is published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BondView {
    /// How members are chosen.
    pub mode: BondMode,
    /// Mixed into hashes.
    pub basis: u32,
    /// All members, and which are enabled.
    pub members: Vec<(MemberId, bool)>,
    /// The active one.
    pub active: Option<MemberId>,
    /// What has been agreed on.
    pub lacp: LacpStatus,
    /// The number of the datapath's table that members are chosen by, if it does that.
    pub table: Option<u32>,
    all_members_active: bool,
    fallback_ab: bool,
    buckets: Vec<Option<MemberId>>,
}

impl BondView {
    /// Whether every frame goes by the active member.
    pub fn is_fixed(&self) -> bool {
        self.mode == BondMode::ActiveBackup || self.falls_back()
    }

    fn falls_back(&self) -> bool {
        self.lacp.falls_back(self.fallback_ab)
    }

    /// Whether frames go by what their connection falls on.
    pub fn by_connection(&self) -> bool {
        self.mode == BondMode::BalanceTcp && !self.falls_back()
    }

    /// The member of each bucket.
    pub fn buckets(&self) -> &[Option<MemberId>] {
        &self.buckets
    }

    /// Whether translations do the same by `new` as by this: what is in buckets is nothing to them when the datapath has a table.
    pub fn says(&self, new: &BondView) -> bool {
        let with_mine = || BondView { buckets: self.buckets.clone(), ..new.clone() };
        if self.table.is_some() { *self == with_mine() } else { self == new }
    }

    /// The member that a hash falls on. One that goes by connection sends nothing unless the other end has agreed.
    pub fn member_of(&self, hash: u32) -> Option<MemberId> {
        if self.is_fixed() {
            return self.active;
        }
        if self.mode == BondMode::BalanceTcp && self.lacp != LacpStatus::Negotiated {
            return None;
        }
        self.buckets.get(bucket(hash)).copied().flatten()
    }

    /// Whether a frame that has come in by `member` is taken.
    pub fn admits(&self, member: MemberId, multicast: bool) -> Admission {
        let enabled = self.members.contains(&(member, true));
        match self.lacp {
            // The other end knows what it does, but it should not send by a member that is not enabled.
            LacpStatus::Negotiated if enabled => return Admission::Accept,
            LacpStatus::Negotiated => return Admission::Drop,
            LacpStatus::Configured if !self.fallback_ab => return Admission::Drop,
            LacpStatus::Off if self.mode == BondMode::BalanceTcp => return Admission::Drop,
            _ => {}
        }
        let is_active = self.active == Some(member);
        if multicast && !is_active && !(self.all_members_active && self.mode == BondMode::BalanceSlb) {
            // It comes by the active one as well.
            return Admission::Drop;
        }
        match self.mode {
            BondMode::BalanceSlb => Admission::DropIfMoved,
            _ if is_active => Admission::Accept,
            _ => Admission::Drop,
        }
    }
}

/// The bucket of a hash.
pub fn bucket(hash: u32) -> usize {
    hash as usize % BUCKETS
}

/// A bond.
#[derive(Debug)]
pub struct Bond {
    name: String,
    settings: BondSettings,
    members: BTreeMap<MemberId, Member>,
    active: Option<MemberId>,
    lacp: LacpStatus,
    buckets: Vec<Bucket>,
    /// When loads are looked at next.
    rebalances_at: Option<Instant>,
    /// Stations behind other ports are to be told of, by frames from them.
    teach: bool,
    /// By what number it recirculates, for people.
    recirc: Option<u32>,
    /// The number of the datapath's table that members are chosen by.
    table: Option<u32>,
}

impl Bond {
    /// One without members.
    pub fn new(name: &str, settings: BondSettings) -> Bond {
        Bond {
            name: name.to_owned(),
            settings,
            members: BTreeMap::new(),
            active: None,
            lacp: LacpStatus::Off,
            buckets: vec![Bucket::default(); BUCKETS],
            rebalances_at: None,
            teach: false,
            recirc: None,
            table: None,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is to be.
    pub fn settings(&self) -> &BondSettings {
        &self.settings
    }

    /// Changes what it is to be.
    pub fn configure(&mut self, settings: &BondSettings) {
        if self.settings.rebalance != settings.rebalance {
            self.rebalances_at = None;
        }
        if self.settings.mode != settings.mode {
            self.buckets.fill(Bucket::default());
        }
        let last_active = self.settings.last_active.or(settings.last_active);
        self.settings = BondSettings { last_active, ..settings.clone() };
    }

    /// Adds or changes a member.
    pub fn put_member(&mut self, id: MemberId, name: &str, mac: [u8; 6]) {
        let m = self.members.entry(id).or_insert_with(|| Member {
            name: String::new(),
            mac: [0; 6],
            may_enable: false,
            enabled: false,
            changes_at: None,
        });
        (m.name, m.mac) = (name.to_owned(), mac);
    }

    /// A member is gone.
    pub fn remove_member(&mut self, id: MemberId) {
        self.members.remove(&id);
        if self.active == Some(id) {
            self.active = None;
        }
        self.reassign();
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Says whether a member's link carries and it may be used.
    pub fn set_may_enable(&mut self, id: MemberId, may: bool) {
        if let Some(m) = self.members.get_mut(&id) {
            m.may_enable = may;
        }
    }

    /// By what number it recirculates, for people.
    pub fn set_recirc(&mut self, id: Option<u32>) {
        self.recirc = id;
    }

    /// By what number the datapath knows it, if that chooses members.
    pub fn set_table(&mut self, number: Option<u32>) {
        self.table = number;
    }

    /// Does what has become due; what link aggregation says is `lacp`.
    pub fn run(&mut self, lacp: LacpStatus, now: Instant) {
        self.lacp = lacp;
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            self.follow_link(id, now);
        }
        let primary = self.primary().filter(|_| self.settings.mode == BondMode::ActiveBackup);
        let enabled = |id: &MemberId| self.members.get(id).is_some_and(|m| m.enabled);
        if !self.active.as_ref().is_some_and(enabled) || primary.is_some_and(|p| self.active != Some(p)) {
            self.choose_active(now);
        }
        self.reassign();
    }

    fn follow_link(&mut self, id: MemberId, now: Instant) {
        let Some(m) = self.members.get_mut(&id) else { return };
        let up = m.may_enable;
        let word = if up { "up" } else { "down" };
        if (up == m.enabled) != m.changes_at.is_none() {
            tracing::info!(target: "bond", "member {}: link state {word}", m.name);
            if up == m.enabled {
                m.changes_at = None;
                let what = if up { "disabled" } else { "enabled" };
                tracing::info!(target: "bond", "member {}: will not be {what}", m.name);
            } else {
                let delay = if up { self.settings.up_delay } else { self.settings.down_delay };
                m.changes_at = Some(now + delay);
                if !delay.is_zero() {
                    let what = if up { "enabled" } else { "disabled" };
                    tracing::info!(
                        target: "bond",
                        "member {}: will be {what} if it stays {word} for {} ms",
                        m.name,
                        delay.as_millis()
                    );
                }
            }
        }
        if m.changes_at.is_some_and(|at| now >= at) {
            self.enable(id, up);
        }
    }

    fn enable(&mut self, id: MemberId, on: bool) {
        let Some(m) = self.members.get_mut(&id) else { return };
        m.changes_at = None;
        if std::mem::replace(&mut m.enabled, on) != on {
            // Stations that were reached by a member that is gone are to be found by another.
            self.teach |= !on;
            tracing::info!(target: "bond", "member {}: {}", m.name, if on { "enabled" } else { "disabled" });
        }
    }

    /// The primary member, while it is enabled.
    fn primary(&self) -> Option<MemberId> {
        let name = self.settings.primary.as_ref()?;
        self.members.iter().find(|(_, m)| m.enabled && m.name == *name).map(|(id, _)| *id)
    }

    fn choose_active(&mut self, now: Instant) {
        let before = self.active;
        let enabled = || self.members.iter().filter(|(_, m)| m.enabled);
        let last = || enabled().find(|(_, m)| Some(m.mac) == self.settings.last_active);
        let first = || enabled().next();
        let chosen = self.primary().or_else(|| last().or_else(first).map(|(id, _)| *id));
        // Else the one that is the first to be: at once.
        let coming = self.members.iter().filter(|(_, m)| m.may_enable && m.changes_at.is_some());
        self.active = chosen.or_else(|| coming.min_by_key(|(_, m)| m.changes_at).map(|(id, _)| *id));
        let Some(id) = self.active else {
            if before.is_some() {
                tracing::info!(target: "bond", "bond {}: all members disabled", self.name);
            }
            return;
        };
        let Some(m) = self.members.get(&id) else { return };
        if m.enabled {
            tracing::info!(target: "bond", "bond {}: active member is now {}", self.name, m.name);
        } else {
            let left = m.changes_at.map_or(0, |at| at.since(now).as_millis());
            tracing::info!(
                target: "bond",
                "bond {}: active member is now {}, skipping remaining {left} ms updelay (since no member was enabled)",
                self.name,
                m.name
            );
            self.enable(id, true);
        }
        self.settings.last_active = self.members.get(&id).map(|m| m.mac);
        self.teach = true;
    }

    /// Whether stations behind other ports are to be told of, once.
    pub fn takes_lesson(&mut self) -> bool {
        std::mem::take(&mut self.teach)
    }

    /// The active member.
    pub fn active(&self) -> Option<MemberId> {
        self.active
    }

    /// Address of the member that is active, or was last.
    pub fn active_mac(&self) -> Option<[u8; 6]> {
        self.settings.last_active
    }

    /// As translations see it.
    pub fn view(&self) -> BondView {
        BondView {
            mode: self.settings.mode,
            basis: self.settings.basis,
            members: self.members.iter().map(|(id, m)| (*id, m.enabled)).collect(),
            active: self.active.filter(|id| self.members.get(id).is_some_and(|m| m.enabled)),
            lacp: self.lacp,
            table: self.table,
            all_members_active: self.settings.all_members_active,
            fallback_ab: self.settings.fallback_ab,
            buckets: self.buckets.iter().map(|b| b.member).collect(),
        }
    }

    fn by_name(&self, name: &str) -> Result<MemberId, String> {
        let found = self.members.iter().find(|(_, m)| m.name == name);
        found.map(|(id, _)| *id).ok_or_else(|| "no such member".to_owned())
    }

    /// `bond/set-active-member`: whether that is another one.
    ///
    /// # Errors
    /// What the command says.
    pub fn set_active(&mut self, member: &str) -> Result<bool, String> {
        let id = self.by_name(member)?;
        let m = self.members.get(&id).filter(|m| m.enabled);
        let m = m.ok_or_else(|| "cannot make disabled member active".to_owned())?;
        if self.active == Some(id) {
            return Ok(false);
        }
        tracing::info!(target: "bond", "bond {}: active member is now {member}", self.name);
        self.settings.last_active = Some(m.mac);
        (self.active, self.teach) = (Some(id), true);
        Ok(true)
    }

    /// `bond/enable-member` and `bond/disable-member`: until its link changes.
    ///
    /// # Errors
    /// What the command says.
    pub fn force(&mut self, member: &str, on: bool) -> Result<(), String> {
        let id = self.by_name(member)?;
        self.enable(id, on);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
