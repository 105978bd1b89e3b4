//! Roles of controllers and what each asynchronous message asks of them (OpenFlow 1.3.5 6.3.6, 7.3.9, 7.3.10).

use openflow::Dialect;
use openflow::error::{ErrorCode, RoleRequestFailed};
use openflow::message::{AsyncConfig, Role, RoleMessage};
use openflow::switch::ConnId;

/// What a connection may do and wants to hear.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) conn: ConnId,
    /// Equal, master or slave.
    pub(super) role: Role,
    pub(super) events: AsyncConfig,
    /// Bytes of a table miss's packet it wants.
    pub(super) miss_send_len: u16,
    /// Which packet-ins of `controller` actions it gets: those with this id (Nicira).
    pub(super) controller_id: u16,
    /// What is agreed on for its messages.
    pub(super) dialect: Dialect,
    /// Connected to us, and gets no asynchronous message until it sets a miss length (as in Open vSwitch).
    pub(super) must_ask: bool,
}

impl Standing {
    fn masks<'a>(&self, pair: &'a [u32; 2]) -> &'a u32 {
        if self.role == Role::Slave { &pair[1] } else { &pair[0] }
    }

    fn hears(&self) -> bool {
        !(self.must_ask && self.miss_send_len == 0)
    }

    /// Whether it gets packet-ins of that reason.
    pub(super) fn wants_packet_in(&self, reason: u8) -> bool {
        self.hears() && self.masks(&self.events.packet_in) & 1 << (reason & 31) != 0
    }

    /// Whether it hears that tables fill up or empty, for that reason.
    pub(super) fn wants_table_status(&self, reason: u8) -> bool {
        self.hears() && self.masks(&self.events.table_status) & 1 << (reason & 31) != 0
    }

    /// Whether it gets what others did to groups (0) or meters (1).
    pub(super) fn wants_request_forward(&self, kind: u8) -> bool {
        self.masks(&self.events.request_forward) & 1 << (kind & 31) != 0
    }

    /// Whether it gets port status messages of that reason.
    pub(super) fn wants_port_status(&self, reason: u8) -> bool {
        self.hears() && self.masks(&self.events.port_status) & 1 << (reason & 31) != 0
    }

    /// Whether it gets flow-removed messages of that reason.
    pub(super) fn wants_flow_removed(&self, reason: u8) -> bool {
        self.hears() && self.masks(&self.events.flow_removed) & 1 << (reason & 31) != 0
    }
}

/// Carries out a role request of connection `me` and returns the reply. `generation` is the switch's, shared by all. Those
/// that lose the role of master by it are added to `demoted`.
///
/// # Errors
/// `OFPRRFC_STALE` when the request is of an older generation.
pub(super) fn change_role<'a>(
    request: RoleMessage,
    me: ConnId,
    generation: &mut Option<u64>,
    all: impl Iterator<Item = &'a mut Standing>,
    demoted: &mut Vec<ConnId>,
) -> Result<RoleMessage, ErrorCode> {
    // Nicira's form has no generations.
    if let (Role::Master | Role::Slave, Some(id)) = (request.role, request.generation_id) {
        // Generations wrap: only the distance counts.
        let stale = generation.is_some_and(|g| (id.wrapping_sub(g) as i64) < 0);
        if stale {
            return Err(RoleRequestFailed::Stale.into());
        }
        *generation = Some(id);
    }
    let mut role = Role::Equal;
    for s in all {
        if s.conn == me {
            if request.role != Role::NoChange {
                s.role = request.role;
            }
            role = s.role;
        } else if request.role == Role::Master && s.role == Role::Master {
            s.role = Role::Slave;
            demoted.push(s.conn);
        }
    }
    let known = request.generation_id.map(|_| generation.unwrap_or(u64::MAX));
    Ok(RoleMessage { role, generation_id: known })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(n: u64) -> Standing {
        Standing {
            conn: ConnId(n),
            role: Role::Equal,
            events: AsyncConfig::default(),
            miss_send_len: 128,
            controller_id: 0,
            dialect: Dialect::new(openflow::Version::V13),
            must_ask: false,
        }
    }

    fn ask(
        all: &mut [Standing],
        g: &mut Option<u64>,
        me: u64,
        role: Role,
        id: u64,
    ) -> Result<Role, ErrorCode> {
        let request = RoleMessage { role, generation_id: Some(id) };
        change_role(request, ConnId(me), g, all.iter_mut(), &mut Vec::new()).map(|r| r.role)
    }

    #[test]
    fn a_new_master_makes_the_old_one_a_slave() {
        let (mut all, mut g) = ([standing(1), standing(2), standing(3)], None);
        assert_eq!(ask(&mut all, &mut g, 1, Role::Master, 5), Ok(Role::Master));
        assert_eq!(ask(&mut all, &mut g, 2, Role::Master, 6), Ok(Role::Master));
        assert_eq!([all[0].role, all[1].role, all[2].role], [Role::Slave, Role::Master, Role::Equal]);
    }

    #[test]
    fn an_older_generation_is_stale_across_the_wrap() {
        let (mut all, mut g) = ([standing(1)], None);
        assert_eq!(ask(&mut all, &mut g, 1, Role::Master, u64::MAX), Ok(Role::Master));
        assert_eq!(ask(&mut all, &mut g, 1, Role::Slave, 1), Ok(Role::Slave));
        assert_eq!(ask(&mut all, &mut g, 1, Role::Master, u64::MAX), Err(RoleRequestFailed::Stale.into()));
        assert_eq!(ask(&mut all, &mut g, 1, Role::NoChange, 0), Ok(Role::Slave));
    }

    #[test]
    fn a_slave_hears_of_ports_only_and_a_visitor_of_nothing_until_it_asks() {
        let mut s = standing(1);
        assert!(s.wants_packet_in(0) && s.wants_flow_removed(1) && s.wants_port_status(2));
        assert!(!s.wants_packet_in(2), "invalid TTL is off by default");
        s.role = Role::Slave;
        assert!(!s.wants_packet_in(0) && !s.wants_flow_removed(1) && s.wants_port_status(2));
        let mut visitor = Standing { must_ask: true, miss_send_len: 0, ..standing(2) };
        assert!(!visitor.wants_port_status(0));
        visitor.miss_send_len = 64;
        assert!(visitor.wants_port_status(0));
    }
}
