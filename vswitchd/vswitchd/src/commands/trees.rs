//! `stp/*` and `rstp/*`: the texts of Open vSwitch 3.1.

use std::sync::Arc;
use std::time::Duration;

use daemon::unixctl::Commands;

use crate::control::tell_links;
use crate::report::Parts;

/// Longest wait for the control thread to come round, in host time.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn register(commands: &Commands, parts: &Arc<Parts>) {
    for (show, change, rapid) in [("stp/show", "stp/tcn", false), ("rstp/show", "rstp/tcn", true)] {
        let p = Arc::clone(parts);
        commands.register(show, "[bridge]", 0..=1, move |a| {
            // Links as they are now.
            tell_links(&p);
            p.rounds.go_round(PATIENCE);
            p.layer.tree_text(a.first().map(String::as_str), rapid)
        });
        let p = Arc::clone(parts);
        commands.register(change, "[bridge]", 0..=1, move |a| {
            p.layer.change_topology(a.first().map(String::as_str), rapid)?;
            Ok("OK\n".to_owned())
        });
    }
}
