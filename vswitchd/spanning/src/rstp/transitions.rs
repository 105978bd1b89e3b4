//! What ports do: the port role transitions and port state transition state machines (IEEE 802.1D-2004 17.29 and 17.30).
//!
//! Each function makes the first transition that there is, and says whether there was one; it is called again until there is none.

use super::Rstp;
use super::port::{Port, Role};

/// What of the other ports a port goes by.
#[derive(Clone, Copy)]
struct Others {
    /// Every other port has its role and is synchronized with what this bridge says, or is the root port (17.20.3).
    all_synced: bool,
    /// No other port was the root port just now (17.20.10).
    re_rooted: bool,
}

/// What a transition has other ports do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tree {
    Nothing,
    Sync,
    ReRoot,
}

impl Rstp {
    /// 17.29.
    pub(super) fn role_transition(&mut self, n: u8) -> bool {
        let others = {
            let rest = || self.ports.iter().filter(|(m, _)| **m != n).map(|(_, p)| p);
            let in_step =
                |p: &Port| p.is_settled() && p.role == p.selected_role && (p.role == Role::Root || p.synced);
            Others { all_synced: rest().all(in_step), re_rooted: rest().all(|p| p.t.recent_root == 0) }
        };
        let (root_times, own) = (self.root_times, self.own);
        let Some(p) = self.ports.get_mut(&n) else { return false };
        if !p.is_settled() {
            return false;
        }
        // 17.20.5 and 17.20.6.
        let delays = Delays {
            max_age_ms: p.designated_times.max_age_ms,
            full_ms: p.designated_times.forward_delay_ms,
            forward_ms: if p.send_rstp { own.hello_ms } else { root_times.forward_delay_ms },
            hello_ms: own.hello_ms,
        };
        let (moved, tree) = match p.selected_role {
            Role::Disabled => (p.be_disabled(delays), Tree::Nothing),
            Role::Root => p.be_root(others, delays),
            Role::Designated => (p.be_designated(delays), Tree::Nothing),
            Role::Alternate | Role::Backup => p.be_alternate(others, delays),
        };
        match tree {
            Tree::Nothing => {}
            // 17.21.16 and 17.21.14.
            Tree::Sync => self.ports.values_mut().for_each(|p| p.sync = true),
            Tree::ReRoot => self.ports.values_mut().for_each(|p| p.re_root = true),
        }
        moved
    }

    /// 17.30.
    pub(super) fn state_transition(&mut self, n: u8) -> bool {
        let now = self.now_ms;
        let Some(p) = self.ports.get_mut(&n) else { return false };
        let (learning, forwarding) = (p.learn, p.learn && p.forward);
        let changed = (p.learning, p.forwarding) != (learning, forwarding);
        if changed {
            (p.learning, p.forwarding) = (learning, forwarding);
            p.since_ms = now;
        }
        changed
    }
}

#[derive(Clone, Copy)]
struct Delays {
    max_age_ms: u32,
    full_ms: u32,
    forward_ms: u32,
    hello_ms: u32,
}

impl Port {
    fn be_disabled(&mut self, d: Delays) -> bool {
        if self.role != Role::Disabled {
            self.role = Role::Disabled;
            (self.learn, self.forward) = (false, false);
            return true;
        }
        let settled = self.t.forward == d.max_age_ms && !self.sync && !self.re_root && self.synced;
        if self.learning || self.forwarding || settled {
            return false;
        }
        self.t.forward = d.max_age_ms;
        self.synced = true;
        self.t.recent_root = 0;
        (self.sync, self.re_root) = (false, false);
        true
    }

    fn be_root(&mut self, o: Others, d: Delays) -> (bool, Tree) {
        if self.role != Role::Root {
            self.role = Role::Root;
            self.t.recent_root = d.full_ms;
            return (true, Tree::Nothing);
        }
        if self.proposed && !self.agree {
            self.proposed = false;
            return (true, Tree::Sync);
        }
        if o.all_synced && !self.agree || self.proposed && self.agree {
            (self.proposed, self.sync) = (false, false);
            (self.agree, self.new_info) = (true, true);
            return (true, Tree::Nothing);
        }
        if self.agreed && !self.synced || self.sync && self.synced {
            (self.synced, self.sync) = (true, false);
            return (true, Tree::Nothing);
        }
        if !self.forward && !self.re_root {
            return (true, Tree::ReRoot);
        }
        if self.re_root && self.forward {
            self.re_root = false;
            return (true, Tree::Nothing);
        }
        // It stays a recent root for as long as it is one; nothing else is changed by that.
        self.t.recent_root = d.full_ms;
        let may = self.t.forward == 0 || o.re_rooted && self.t.recent_backup == 0 && self.send_rstp;
        (may && self.go_on(d), Tree::Nothing)
    }

    /// Learns, or forwards when it learns already.
    fn go_on(&mut self, d: Delays) -> bool {
        if !self.learn {
            self.learn = true;
            self.t.forward = d.forward_ms;
            return true;
        }
        if !self.forward {
            self.forward = true;
            self.t.forward = 0;
            return true;
        }
        false
    }

    fn be_designated(&mut self, d: Delays) -> bool {
        if self.role != Role::Designated {
            self.role = Role::Designated;
            return true;
        }
        if !self.forward && !self.agreed && !self.proposing && !self.oper_edge {
            (self.proposing, self.new_info) = (true, true);
            // Who does not answer by then is no bridge (17.20.4).
            self.t.edge_delay = if self.settings.point_to_point { super::MIGRATE_MS } else { d.max_age_ms };
            return true;
        }
        let idle = !self.learning && !self.forwarding;
        if (idle || self.agreed || self.oper_edge) && !self.synced || self.sync && self.synced {
            self.t.recent_root = 0;
            (self.synced, self.sync) = (true, false);
            return true;
        }
        if self.t.recent_root == 0 && self.re_root {
            self.re_root = false;
            return true;
        }
        let must_stop = self.sync && !self.synced || self.re_root && self.t.recent_root != 0 || self.disputed;
        if must_stop && !self.oper_edge && (self.learn || self.forward) {
            (self.learn, self.forward, self.disputed) = (false, false, false);
            self.t.forward = d.full_ms;
            return true;
        }
        let may = (self.t.forward == 0 || self.agreed || self.oper_edge)
            && (self.t.recent_root == 0 || !self.re_root)
            && !self.sync;
        let forwarded = self.forward;
        let moved = may && self.go_on(d);
        if self.forward && !forwarded {
            self.agreed = self.send_rstp;
        }
        moved
    }

    fn be_alternate(&mut self, o: Others, d: Delays) -> (bool, Tree) {
        if self.role != self.selected_role {
            self.role = self.selected_role;
            (self.learn, self.forward) = (false, false);
            return (true, Tree::Nothing);
        }
        if self.proposed && !self.agree {
            self.proposed = false;
            return (true, Tree::Sync);
        }
        if o.all_synced && !self.agree || self.proposed && self.agree {
            self.proposed = false;
            (self.agree, self.new_info) = (true, true);
            return (true, Tree::Nothing);
        }
        if self.learning || self.forwarding {
            return (false, Tree::Nothing);
        }
        self.t.forward = d.forward_ms;
        if self.role == Role::Backup {
            self.t.recent_backup = d.hello_ms.saturating_mul(2);
        }
        let moved = self.sync || self.re_root || !self.synced;
        self.synced = true;
        self.t.recent_root = 0;
        (self.sync, self.re_root) = (false, false);
        (moved, Tree::Nothing)
    }
}
