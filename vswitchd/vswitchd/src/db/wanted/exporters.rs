//! Who is told of a bridge's traffic: table NetFlow.

use std::time::Duration;

use exporters::NetflowSettings;
use ovsdb::client::{Row, Snapshot};

use super::is_set;

/// What a bridge tells by NetFlow; `None` where it tells nobody.
pub(super) fn netflow(
    db: &Snapshot,
    bridge: Row<'_>,
    name: &str,
    ignored: &mut Vec<String>,
) -> Option<NetflowSettings> {
    let row = db.referred(bridge, "netflow", "NetFlow").next()?;
    let byte = |column| row.integer(column).and_then(|n| u8::try_from(n).ok()).unwrap_or(0);
    let settings = NetflowSettings {
        targets: row.texts("targets").map(str::to_owned).collect(),
        engine_type: byte("engine_type"),
        engine_id: byte("engine_id"),
        active_timeout: match row.integer("active_timeout").unwrap_or(0) {
            0 => Some(NetflowSettings::USUAL_TIMEOUT),
            n => u64::try_from(n).ok().map(Duration::from_secs),
        },
        add_id_to_interface: is_set(row, "add_id_to_interface"),
    };
    if settings.add_id_to_interface && settings.engine_id > 0x7f {
        ignored.push(format!(
            "bridge {name}: NetFlow port mangling may conflict with another vswitch, choose an engine id less than 128"
        ));
    }
    Some(settings)
}
