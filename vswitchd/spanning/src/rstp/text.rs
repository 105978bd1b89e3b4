//! The text of `rstp/show`.

use super::Rstp;
use super::port::Port;
use crate::text::{Row, Tree};

impl Rstp {
    /// The lines of `rstp/show`. Ports are called as `port` says; those without a part in the tree are left out.
    pub fn text(&self, port: &dyn Fn(u8) -> String) -> String {
        let (t, own) = (self.root_times, self.own);
        let row = |n: u8, p: &Port| Row {
            name: port(n),
            role: self.role(n).name(),
            state: self.state(n).name(),
            path_cost: p.settings.path_cost,
            priority: p.settings.priority,
            number: n,
        };
        let ports = self.ports.iter().filter(|(_, p)| p.enabled);
        Tree {
            rapid: true,
            bridge: &self.name,
            root: (self.root, [t.hello_ms, t.max_age_ms, t.forward_delay_ms]),
            way: self.root_port.map(|n| (port(n), self.root_path_cost)),
            own: (own.id, [own.hello_ms, own.max_age_ms, own.forward_delay_ms]),
            ports: ports.map(|(n, p)| row(*n, p)).collect(),
        }
        .text()
    }
}
