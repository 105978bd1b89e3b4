//! The port role selection state machine (IEEE 802.1D-2004 17.28) and its procedure `updtRolesTree` (17.21.25).

use super::Rstp;
use super::port::{InfoIs, Role, Times};
use crate::vector::Vector;

impl Rstp {
    /// Selects roles anew where something was said that may change them.
    pub(super) fn role_selection(&mut self) -> bool {
        if !self.ports.values().any(|p| p.reselect) {
            return false;
        }
        self.ports.values_mut().for_each(|p| p.reselect = false);
        self.update_roles();
        self.ports.values_mut().for_each(|p| p.selected = true);
        true
    }

    fn update_roles(&mut self) {
        let own = self.own.id;
        let by_own = Vector { root: own, cost: 0, bridge: own, port: 0 };
        // The best way to the root, and the port that it is by.
        let way = |(n, p): (&u8, &super::port::Port)| {
            let said = p.port_priority;
            let there = p.info_is == InfoIs::Received && said.bridge.mac() != own.mac();
            let cost = said.cost.saturating_add(p.settings.path_cost);
            there.then_some((Vector { cost, ..said }, p.id, *n))
        };
        let best = self.ports.iter().filter_map(way).min().filter(|(v, ..)| *v < by_own);
        self.root_port = best.map(|(.., n)| n);
        (self.root, self.root_path_cost) = best.map_or((own, 0), |(v, ..)| (v.root, v.cost));
        self.root_times = match self.root_port.and_then(|n| self.ports.get(&n)) {
            Some(p) => Times {
                message_age_ms: p.port_times.message_age_ms.saturating_add(super::MESSAGE_AGE_INCREMENT_MS),
                ..p.port_times
            },
            None => self.own_times(),
        };
        let (root, cost, root_port) = (self.root, self.root_path_cost, self.root_port);
        let times = Times { hello_ms: self.own.hello_ms, ..self.root_times };
        for (n, p) in &mut self.ports {
            p.designated_priority = Vector { root, cost, bridge: own, port: p.id };
            p.designated_times = times;
            match p.info_is {
                InfoIs::Disabled => p.selected_role = Role::Disabled,
                InfoIs::Aged => {
                    p.updt_info = true;
                    p.selected_role = Role::Designated;
                }
                InfoIs::Mine => {
                    p.selected_role = Role::Designated;
                    p.updt_info |=
                        p.port_priority != p.designated_priority || p.port_times != p.designated_times;
                }
                InfoIs::Received if root_port == Some(*n) => {
                    p.selected_role = Role::Root;
                    p.updt_info = false;
                }
                InfoIs::Received if p.designated_priority < p.port_priority => {
                    p.selected_role = Role::Designated;
                    p.updt_info = true;
                }
                InfoIs::Received => {
                    let of_this_bridge = p.port_priority.bridge.mac() == own.mac();
                    p.selected_role = if of_this_bridge { Role::Backup } else { Role::Alternate };
                    p.updt_info = false;
                }
            }
        }
    }
}
