//! What `bond/show` and `bond/list` print, as Open vSwitch 3.1 does.

use std::fmt::Write;

use clock::Instant;

use super::{Bond, BondMode, Member};
use crate::mac_text;

fn until(now: Instant, at: Instant) -> i64 {
    let ms = |i: Instant| i64::try_from(i.as_millis()).unwrap_or(i64::MAX);
    ms(at).saturating_sub(ms(now))
}

impl Bond {
    fn sorted(&self) -> Vec<(u32, &Member)> {
        let mut all: Vec<_> = self.members.iter().map(|(id, m)| (*id, m)).collect();
        all.sort_by(|a, b| a.1.name.cmp(&b.1.name));
        all
    }

    /// The text of `bond/show`.
    pub fn text(&self, now: Instant) -> String {
        let s = &self.settings;
        let recirc = self.recirc.filter(|_| s.mode == BondMode::BalanceTcp);
        let mut out = format!(
            "---- {} ----\nbond_mode: {}\nbond may use recirculation: {}, Recirc-ID : {}\nbond-hash-basis: {}\n\
             lb_output action: {}, bond-id: {}\n",
            self.name,
            s.mode.word(),
            if s.mode == BondMode::BalanceTcp { "yes" } else { "no" },
            recirc.map_or("-1".to_owned(), |r| r.to_string()),
            s.basis,
            if self.table.is_some() { "enabled" } else { "disabled" },
            self.table.map_or("-1".to_owned(), |t| t.to_string())
        );
        if s.mode == BondMode::BalanceSlb {
            let _ = writeln!(out, "all members active: {}", s.all_members_active);
        }
        let _ = writeln!(
            out,
            "updelay: {} ms\ndowndelay: {} ms",
            s.up_delay.as_millis(),
            s.down_delay.as_millis()
        );
        if self.is_balanced() {
            let at = self.rebalances_at.unwrap_or(now);
            let _ = writeln!(out, "next rebalance: {} ms", until(now, at));
        }
        let primary = match &s.primary {
            None => "<none>".to_owned(),
            Some(p) if self.members.values().any(|m| m.name == *p) => p.clone(),
            Some(p) => format!("{p} (no such member)"),
        };
        let mac = mac_text(s.last_active.unwrap_or_default());
        let active = self.active.and_then(|id| self.members.get(&id)).map_or("none", |m| m.name.as_str());
        let _ = writeln!(
            out,
            "lacp_status: {}\nlacp_fallback_ab: {}\nactive-backup primary: {primary}\nactive member mac: {mac}({active})",
            self.lacp.word(),
            s.fallback_ab
        );
        for (id, m) in self.sorted() {
            let _ = writeln!(out, "\nmember {}: {}", m.name, if m.enabled { "enabled" } else { "disabled" });
            if self.active == Some(id) {
                out.push_str("  active member\n");
            }
            if let Some(at) = m.changes_at {
                let which = if m.enabled { "downdelay" } else { "updelay" };
                let _ = writeln!(out, "  {which} expires in {} ms", until(now, at));
            }
            let _ = writeln!(out, "  may_enable: {}", m.may_enable);
            if self.is_balanced() {
                for (i, load) in self.loads(id).filter(|(_, l)| *l >= 1024) {
                    let _ = writeln!(out, "  hash {i}: {} kB load", load / 1024);
                }
            }
        }
        out.push('\n');
        out
    }

    /// Its line of `bond/list`.
    pub fn line(&self) -> String {
        let names: Vec<&str> = self.sorted().iter().map(|(_, m)| m.name.as_str()).collect();
        format!(
            "{}\t{}\t{}\t{}\n",
            self.name,
            self.settings.mode.word(),
            self.recirc.unwrap_or(0),
            names.join(", ")
        )
    }
}
