//! What entries hold of the device that others may hold, too: key profiles, headers for tunnels, replication groups.

use device::DeviceBacking;
use offload::Reject;
use simnic_defs::cmd::{TABLE_EXACT, TABLE_LPM, TABLE_RANGE};
use simnic_defs::{CmdDesc, HeaderSpec, Opcode};
use zerocopy::IntoBytes;

use crate::capability::{room, table_name};
use crate::profiles::{ProfileId, Profiles};
use crate::provider::{Job, Lowered, SimnicProvider, to_ranges};

/// What an entry uses that others may use, too.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Holds {
    /// Key profile, in the exact and the longest-prefix table.
    pub profile: Option<ProfileId>,
    /// Header for a tunnel.
    pub header: Option<ProfileId>,
    /// Replication group.
    pub group: Option<ProfileId>,
}

/// What is programmed apart from entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shared {
    /// A key profile of a table.
    Profile(u8, ProfileId),
    /// A header.
    Header(ProfileId),
    /// A replication group.
    Group(ProfileId),
}

impl<B: DeviceBacking> SimnicProvider<B> {
    /// The profiles of a table that has any.
    fn profiles_of(&mut self, table: u8) -> &mut Profiles {
        if table == TABLE_LPM { &mut self.templates } else { &mut self.profiles }
    }

    /// An entry of `table` is gone, or was never made.
    pub(crate) fn let_go(&mut self, table: u8, holds: Holds) {
        if let Some(n) = self.used.get_mut(usize::from(table)) {
            *n = n.saturating_sub(1);
        }
        if let Some(p) = holds.profile {
            self.profiles_of(table).release(p);
        }
        self.release(holds);
    }

    /// Nothing uses the header and the group any more.
    pub(crate) fn release(&mut self, holds: Holds) {
        if let Some(h) = holds.header {
            self.headers.release(h);
        }
        if let Some(g) = holds.group {
            self.groups.release(g);
        }
    }

    /// The device did not take what it was to be programmed with.
    pub(crate) fn forget_shared(&mut self, what: Shared) {
        match what {
            Shared::Profile(table, p) => self.profiles_of(table).forget(p),
            Shared::Header(h) => self.headers.forget(h),
            Shared::Group(g) => self.groups.forget(g),
        }
    }

    /// One of the device's headers for what a rule puts in front of packets, programmed if need be; `Err` when all are in use.
    fn acquire_header(&mut self, wanted: Option<&HeaderSpec>) -> Result<Option<ProfileId>, Reject> {
        let Some(h) = wanted else { return Ok(None) };
        let full = Reject::TableFull { table: "headers", entries: self.headers.len() };
        let (id, program) = self.headers.acquire(h).ok_or(full)?;
        if program {
            let mut d = CmdDesc::new(Opcode::HeaderSet, 0);
            d.entry = u32::from(id.0).into();
            self.command(d, h.as_bytes(), Job::Program(Shared::Header(id)));
        }
        Ok(Some(id))
    }

    /// One of the device's groups for outputs of a rule, programmed if need be; none when all are in use and the entry can do without.
    fn acquire_group(&mut self, lowered: &Lowered) -> Result<Option<ProfileId>, Reject> {
        let Some((_, ports)) = &lowered.group else { return Ok(None) };
        let Some((id, program)) = self.groups.acquire(ports) else {
            let full = Reject::TableFull { table: "groups", entries: self.groups.len() };
            return if lowered.outputs() > self.caps.max_outputs.into() { Err(full) } else { Ok(None) };
        };
        if program {
            let mut d = CmdDesc::new(Opcode::GroupSet, 0);
            (d.entry, d.arg) = (u32::from(id.0).into(), u64::from(*ports).into());
            self.command(d, &[], Job::Program(Shared::Group(id)));
        }
        Ok(Some(id))
    }

    /// Header and group for a rule. `Err` when there is none to be had; nothing is held then.
    pub(crate) fn acquire(&mut self, lowered: &Lowered) -> Result<Holds, Reject> {
        let header = self.acquire_header(lowered.header.as_ref())?;
        let holds = Holds { header, ..Holds::default() };
        match self.acquire_group(lowered) {
            Ok(group) => Ok(Holds { group, ..holds }),
            Err(r) => {
                self.release(holds);
                Err(r)
            }
        }
    }

    /// A place in `table` for a rule: its profile, when the table has profiles. `Err` when it cannot hold the rule now.
    pub(crate) fn reserve(&mut self, table: u8, lowered: &Lowered) -> Result<Option<ProfileId>, Reject> {
        let name = table_name(table);
        let used = self.used[usize::from(table)];
        if table != TABLE_EXACT && used >= room(&self.caps, table) {
            return Err(Reject::TableFull { table: name, entries: used });
        }
        let masks = |p: &Profiles| Reject::MasksFull { table: name, masks: p.len() };
        let profile = match table {
            TABLE_EXACT | TABLE_LPM => {
                let profiles = self.profiles_of(table);
                let full = masks(profiles);
                let mask = lowered.profile(table).ok_or(full.clone())?;
                let (p, program) = self.profiles_of(table).acquire(&mask).ok_or(full)?;
                if program {
                    let mut d = CmdDesc::new(Opcode::ProfileSet, 0);
                    (d.table, d.profile) = (table, p.0 as u8);
                    self.command(d, &mask, Job::Program(Shared::Profile(table, p)));
                }
                Some(p)
            }
            TABLE_RANGE if to_ranges(&lowered.matches).is_none() => {
                return Err(Reject::TableFull { table: name, entries: used });
            }
            _ => None,
        };
        self.used[usize::from(table)] += 1;
        Ok(profile)
    }
}
