//! Changes of the topology: its state machine (IEEE 802.1D-2004 17.31).

use super::Rstp;
use super::port::{Change, Role};

impl Rstp {
    /// Whether something changed.
    pub(super) fn topology_change(&mut self, n: u8) -> bool {
        let (hello_ms, root_times) = (self.own.hello_ms, self.root_times);
        let Some(p) = self.ports.get_mut(&n) else { return false };
        let heard = p.rcvd_tc || p.rcvd_tcn || p.rcvd_tc_ack || p.tc_prop;
        let clear = |p: &mut super::port::Port| {
            (p.rcvd_tc, p.rcvd_tcn, p.rcvd_tc_ack, p.tc_prop) = (false, false, false, false);
        };
        // 17.21.7.
        let start = |p: &mut super::port::Port| {
            if p.t.topology_change == 0 {
                if p.send_rstp {
                    p.t.topology_change = hello_ms + 1000;
                    p.new_info = true;
                } else {
                    p.t.topology_change = root_times.max_age_ms + root_times.forward_delay_ms;
                }
            }
        };
        let mut to_others = false;
        let changed = match p.change {
            Change::Inactive => {
                if p.learn && !p.flush {
                    clear(p);
                    p.change = Change::Learning;
                }
                p.change != Change::Inactive
            }
            Change::Learning => {
                if p.is_root_or_designated() && p.forward && !p.oper_edge {
                    // DETECTED.
                    start(p);
                    to_others = true;
                    p.new_info = true;
                    p.change = Change::Active;
                    true
                } else if !p.is_root_or_designated() && !p.learn && !p.learning && !heard {
                    p.flush = true;
                    p.t.topology_change = 0;
                    p.tc_ack = false;
                    p.change = Change::Inactive;
                    true
                } else {
                    if heard {
                        clear(p);
                    }
                    heard
                }
            }
            Change::Active => {
                if !p.is_root_or_designated() || p.oper_edge {
                    clear(p);
                    p.change = Change::Learning;
                    true
                } else if p.rcvd_tcn || p.rcvd_tc {
                    if p.rcvd_tcn {
                        start(p);
                    }
                    (p.rcvd_tcn, p.rcvd_tc) = (false, false);
                    p.tc_ack |= p.role == Role::Designated;
                    to_others = true;
                    true
                } else if p.tc_prop {
                    start(p);
                    (p.flush, p.tc_prop) = (true, false);
                    true
                } else if p.rcvd_tc_ack {
                    p.t.topology_change = 0;
                    p.rcvd_tc_ack = false;
                    true
                } else {
                    false
                }
            }
        };
        if to_others {
            // 17.21.18.
            self.ports.iter_mut().filter(|(m, _)| **m != n).for_each(|(_, p)| p.tc_prop = true);
        }
        changed
    }
}
