//! `stp/*`: the texts of Open vSwitch 3.1.

use std::sync::Arc;
use std::time::Duration;

use daemon::unixctl::Commands;

use crate::control::tell_links;
use crate::report::Parts;

/// Longest wait for the control thread to come round, in host time.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn register(commands: &Commands, parts: &Arc<Parts>) {
    let p = Arc::clone(parts);
    commands.register("stp/show", "[bridge]", 0..=1, move |a| {
        // Links as they are now.
        tell_links(&p);
        p.rounds.go_round(PATIENCE);
        p.layer.tree_text(a.first().map(String::as_str))
    });
    let p = Arc::clone(parts);
    commands.register("stp/tcn", "[bridge]", 0..=1, move |a| {
        p.layer.change_topology(a.first().map(String::as_str))?;
        Ok("OK\n".to_owned())
    });
}
