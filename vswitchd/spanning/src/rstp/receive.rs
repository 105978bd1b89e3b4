//! What comes in: the port receive, protocol migration, bridge detection and port information state machines
//! (IEEE 802.1D-2004 17.23 to 17.25 and 17.27).

use super::port::{Info, InfoIs, Message, Migration, Port};
use super::{MIGRATE_MS, Rstp};
use crate::bpdu::RapidRole;

impl Port {
    /// 17.24: which protocol is spoken. Whether something changed.
    pub(super) fn migrate(&mut self) -> bool {
        let before = self.migration;
        match self.migration {
            Migration::CheckingRstp => {
                if !self.enabled {
                    self.t.migrate = MIGRATE_MS;
                } else if self.t.migrate == 0 {
                    self.sense();
                }
            }
            Migration::Sensing if !self.enabled || self.mcheck || !self.send_rstp && self.rcvd_rstp => {
                self.migration = Migration::CheckingRstp;
                self.mcheck = false;
                self.send_rstp = true;
                self.t.migrate = MIGRATE_MS;
            }
            Migration::Sensing if self.send_rstp && self.rcvd_stp => {
                self.migration = Migration::SelectingStp;
                self.send_rstp = false;
                self.t.migrate = MIGRATE_MS;
            }
            Migration::Sensing => {}
            Migration::SelectingStp => {
                if self.t.migrate == 0 || !self.enabled || self.mcheck {
                    self.sense();
                }
            }
        }
        before != self.migration
    }

    fn sense(&mut self) {
        self.migration = Migration::Sensing;
        (self.rcvd_rstp, self.rcvd_stp) = (false, false);
    }

    /// 17.25: whether there are but stations. Whether something changed.
    pub(super) fn detect_bridges(&mut self) -> bool {
        let before = self.oper_edge;
        let s = &self.settings;
        if !self.oper_edge {
            let quiet = self.t.edge_delay == 0 && s.auto_edge && self.send_rstp && self.proposing;
            self.oper_edge = !self.enabled && s.admin_edge || self.enabled && quiet;
        } else if !self.enabled && !s.admin_edge {
            self.oper_edge = false;
        }
        before != self.oper_edge
    }
}

impl Rstp {
    /// 17.27. Whether something changed.
    pub(super) fn port_information(&mut self, n: u8) -> bool {
        let Some(p) = self.ports.get_mut(&n) else { return false };
        if !p.enabled {
            let changed = p.info_is != InfoIs::Disabled;
            if changed || p.message.is_some() {
                p.message = None;
                (p.proposing, p.proposed, p.agree, p.agreed) = (false, false, false, false);
                p.t.received_info = 0;
            }
            if changed {
                p.info_is = InfoIs::Disabled;
                (p.reselect, p.selected) = (true, false);
            }
            return changed;
        }
        if p.info_is == InfoIs::Disabled {
            p.info_is = InfoIs::Aged;
            (p.reselect, p.selected) = (true, false);
            return true;
        }
        if p.selected && p.updt_info {
            // UPDATE.
            (p.proposing, p.proposed) = (false, false);
            // What the other end has agreed to holds for what is as good.
            p.agreed &= p.info_is == InfoIs::Mine && p.designated_priority <= p.port_priority;
            p.synced &= p.agreed;
            p.port_priority = p.designated_priority;
            p.port_times = p.designated_times;
            p.updt_info = false;
            p.info_is = InfoIs::Mine;
            p.new_info = true;
            return true;
        }
        if p.info_is == InfoIs::Received && p.t.received_info == 0 && p.message.is_none() {
            p.info_is = InfoIs::Aged;
            (p.reselect, p.selected) = (true, false);
            return true;
        }
        let Some(m) = p.message.filter(|_| !p.updt_info) else { return false };
        p.message = None;
        match what_it_is(p, &m) {
            Info::SuperiorDesignated => {
                (p.agreed, p.proposing) = (false, false);
                record_proposal(p, &m);
                set_tc_flags(p, &m);
                p.agree &= p.info_is == InfoIs::Received && m.vector <= p.port_priority;
                record_agreement(p, &m);
                p.synced &= p.agreed;
                (p.port_priority, p.port_times) = (m.vector, m.times);
                keep_info(p);
                p.info_is = InfoIs::Received;
                (p.reselect, p.selected) = (true, false);
            }
            Info::RepeatedDesignated => {
                record_proposal(p, &m);
                set_tc_flags(p, &m);
                record_agreement(p, &m);
                keep_info(p);
            }
            Info::InferiorDesignated => {
                if m.rapid.is_some_and(|f| f.learning) {
                    (p.disputed, p.agreed) = (true, false);
                }
            }
            Info::InferiorRootAlternate => {
                record_agreement(p, &m);
                set_tc_flags(p, &m);
            }
            Info::Other => {}
        }
        true
    }
}

/// 17.21.8.
fn what_it_is(p: &Port, m: &Message) -> Info {
    let role = m.rapid.map_or(RapidRole::Designated, |f| f.role);
    let (new, known) = (&m.vector, &p.port_priority);
    match role {
        RapidRole::Designated if new.is_superior_to(known) => Info::SuperiorDesignated,
        RapidRole::Designated if new == known && m.times == p.port_times => Info::RepeatedDesignated,
        RapidRole::Designated if new == known => Info::SuperiorDesignated,
        RapidRole::Designated => Info::InferiorDesignated,
        RapidRole::Root | RapidRole::Alternate if new >= known => Info::InferiorRootAlternate,
        _ => Info::Other,
    }
}

/// 17.21.9.
fn record_agreement(p: &mut Port, m: &Message) {
    let agrees = p.settings.point_to_point && m.rapid.is_some_and(|f| f.agreement);
    p.agreed = agrees;
    if agrees {
        p.proposing = false;
    }
}

/// 17.21.11.
fn record_proposal(p: &mut Port, m: &Message) {
    p.proposed |= m.rapid.is_some_and(|f| f.role == RapidRole::Designated && f.proposal);
}

/// 17.21.17.
fn set_tc_flags(p: &mut Port, m: &Message) {
    p.rcvd_tc |= m.topology_change;
    p.rcvd_tc_ack |= m.acknowledge;
}

/// 17.21.23.
fn keep_info(p: &mut Port) {
    let t = p.port_times;
    let in_time = t.message_age_ms.saturating_add(super::MESSAGE_AGE_INCREMENT_MS) <= t.max_age_ms;
    p.t.received_info = if in_time { t.hello_ms.saturating_mul(3) } else { 0 };
}
