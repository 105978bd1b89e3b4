//! What `lacp/show` and `lacp/show-stats` print, as Open vSwitch 3.1 does.

use std::fmt::Write;

use super::pdu::{Info, state};
use super::{Freshness, Lacp, Member};
use crate::mac_text;

fn end(out: &mut String, who: &str, i: &Info) {
    let _ = write!(
        out,
        "  {who} sys_id: {}\n  {who} sys_priority: {}\n  {who} port_id: {}\n  {who} port_priority: {}\n  {who} key: {}\n  \
         {who} state:{}\n",
        mac_text(i.system),
        i.system_priority,
        i.port,
        i.port_priority,
        i.key,
        state::words(i.state)
    );
}

impl Lacp {
    fn by_name(&self) -> Vec<(u32, &Member)> {
        let mut all: Vec<_> = self.members.iter().map(|(id, m)| (*id, m)).collect();
        all.sort_by(|a, b| a.1.name.cmp(&b.1.name));
        all
    }

    /// The text of `lacp/show`.
    pub fn text(&self) -> String {
        let mode = if self.settings.active { "active" } else { "passive" };
        let negotiated = if self.negotiated { " negotiated" } else { "" };
        let key = self.key().map_or("none".to_owned(), |k| k.to_string());
        let mut out = format!(
            "---- {} ----\n  status: {mode}{negotiated}\n  sys_id: {}\n  sys_priority: {}\n  aggregation key: {key}\n  \
             lacp_time: {}\n",
            self.name,
            mac_text(self.system()),
            self.settings.priority,
            if self.settings.fast { "fast" } else { "slow" },
        );
        for (id, m) in self.by_name() {
            let fresh = match m.freshness {
                Freshness::Current => "current",
                Freshness::Expired => "expired",
                Freshness::Defaulted => "defaulted",
            };
            let _ = write!(
                out,
                "\nmember: {}: {fresh} {}\n  port_id: {}\n  port_priority: {}\n  may_enable: {}\n\n",
                m.name,
                if m.attached { "attached" } else { "detached" },
                m.port.id,
                m.port.priority,
                self.may_enable(id)
            );
            end(&mut out, "actor", &self.actor(m));
            out.push('\n');
            end(&mut out, "partner", &m.partner);
        }
        out
    }

    /// The text of `lacp/show-stats`.
    pub fn counters_text(&self) -> String {
        let mut out = format!("---- {} statistics ----\n", self.name);
        for (_, m) in self.by_name() {
            let c = &m.counters;
            let _ = write!(
                out,
                "\nmember: {}:\n  TX PDUs: {}\n  RX PDUs: {}\n  RX Bad PDUs: {}\n  RX Marker Request PDUs: {}\n  Link Expired: \
                 {}\n  Link Defaulted: {}\n  Carrier Status Changed: {}\n",
                m.name, c.sent, c.received, c.bad, c.markers, c.expired, c.defaulted, c.carrier_changes
            );
        }
        out
    }
}
