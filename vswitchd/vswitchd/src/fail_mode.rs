//! What a bridge does without a controller.
//!
//! In mode *secure*: nothing. In mode *standalone*, a bridge that has had no controller for a while acts as a learning
//! switch: a flow `priority=0,actions=NORMAL` is put into table 0, and taken out again when a controller is back. With no
//! controllers configured it is there from the start.

use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use daemon::signals::Stopped;
use ofproto::Bridge;
use openflow::flow_mod::{FlowMod, FlowModCommand, Instructions};
use openflow::{Action, PortNo};

use crate::controller::Hub;

/// How long a bridge waits for its controllers before it acts on its own: three probe intervals of Open vSwitch.
const PATIENCE: Duration = Duration::from_secs(15);

fn normal(command: FlowModCommand) -> FlowMod {
    let out = Action::Output { port: PortNo::NORMAL, max_len: 0 };
    FlowMod { priority: 0, instructions: Instructions::apply(vec![out]), ..FlowMod::new(command) }
}

fn change(bridge: &Bridge, clock: &dyn Clock, command: FlowModCommand) {
    if let Err((_, e)) = bridge.apply(&[normal(command)], clock.now()) {
        tracing::warn!("{}: fail-open flow: {e:?}", bridge.name());
    }
}

/// Makes the bridge a learning switch: for bridges that have no controllers.
pub fn act_alone(bridge: &Bridge, clock: &dyn Clock) {
    change(bridge, clock, FlowModCommand::Add);
}

/// Watches the controllers of a standalone bridge until asked to stop.
pub async fn watch(bridge: Arc<Bridge>, hub: Arc<Hub>, clock: Arc<dyn Clock>, mut stopped: Stopped) {
    let mut connected = hub.connected_controllers();
    let mut alone = false;
    loop {
        let none = *connected.borrow_and_update() == 0;
        if !none && alone {
            tracing::info!("{}: a controller is connected, leaving standalone mode", bridge.name());
            change(&bridge, &*clock, FlowModCommand::DeleteStrict);
            alone = false;
        }
        tokio::select! {
            () = stopped.wait() => return,
            changed = connected.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(PATIENCE), if none && !alone => {
                tracing::warn!("{}: no controller for {PATIENCE:?}, acting as a learning switch", bridge.name());
                change(&bridge, &*clock, FlowModCommand::Add);
                alone = true;
            }
        }
    }
}
