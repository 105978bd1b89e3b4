//! The text of `stp/show`.

use super::{State, Stp};
use crate::text::{Row, Tree};

impl Stp {
    /// The lines of `stp/show`. Ports are called as `port` says; those without a part in the tree are left out.
    pub fn text(&self, port: &dyn Fn(u8) -> String) -> String {
        let (t, own) = (self.times, self.own);
        let row = |n: u8, p: &super::Port| Row {
            name: port(n),
            role: self.role(n).name(),
            state: p.state.name(),
            path_cost: p.settings.path_cost.into(),
            priority: p.settings.priority,
            number: n,
        };
        let ports = self.ports.iter().filter(|(_, p)| p.state != State::Disabled);
        Tree {
            rapid: false,
            bridge: &self.name,
            root: (self.root, [t.hello_ms, t.max_age_ms, t.forward_delay_ms]),
            way: self.root_port.map(|n| (port(n), self.root_path_cost)),
            own: (own.id, [own.hello_ms, own.max_age_ms, own.forward_delay_ms]),
            ports: ports.map(|(n, p)| row(*n, p)).collect(),
        }
        .text()
    }
}
