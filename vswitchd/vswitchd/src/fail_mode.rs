//! What a bridge does without a controller.
//!
//! In mode *secure*: nothing. In mode *standalone*, a bridge that has had no controller for a while acts as a learning
//! switch: a flow `priority=0,actions=NORMAL` is put into table 0, and taken out again when a controller is back, or when the
//! mode changes. With no controllers configured it is there at once.

use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use daemon::signals::Stopped;
use ofproto::Bridge;
use openflow::flow_mod::{FlowMod, FlowModCommand, Instructions};
use openflow::{Action, PortNo};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::controller::Hub;

/// How long a bridge waits for its controllers before it acts on its own: three probe intervals of Open vSwitch.
const PATIENCE: Duration = Duration::from_secs(15);

/// What is configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// Fail mode is standalone.
    pub standalone: bool,
    /// There are controllers to wait for.
    pub controllers: bool,
}

/// The fail mode of one bridge.
pub struct FailOpen {
    bridge: Arc<Bridge>,
    hub: Arc<Hub>,
    clock: Arc<dyn Clock>,
    /// Whether the bridge acts on its own now.
    alone: Mutex<bool>,
    policy: watch::Sender<Policy>,
}

impl FailOpen {
    /// Of a bridge in mode secure, until told otherwise.
    pub fn new(bridge: Arc<Bridge>, hub: Arc<Hub>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let policy = watch::Sender::new(Policy::default());
        Arc::new(FailOpen { bridge, hub, clock, alone: Mutex::new(false), policy })
    }

    /// Changes the policy. What follows from it at once has happened when this returns.
    pub fn set_policy(&self, policy: Policy) {
        let before = self.policy.send_replace(policy);
        if policy.standalone && !policy.controllers {
            self.act_alone(true);
        } else if before != policy {
            // Controllers that are configured are waited for before the bridge acts on its own again.
            self.act_alone(false);
        }
    }

    fn act_alone(&self, alone: bool) {
        let mut now = self.alone.lock();
        if *now == alone {
            return;
        }
        *now = alone;
        let out = vec![Action::Output { port: PortNo::NORMAL, max_len: 0 }];
        let command = if alone { FlowModCommand::Add } else { FlowModCommand::DeleteStrict };
        let flow = FlowMod { priority: 0, instructions: Instructions::apply(out), ..FlowMod::new(command) };
        if let Err((_, e)) = self.bridge.apply(&[flow], self.clock.now()) {
            tracing::warn!("{}: fail-open flow: {e:?}", self.bridge.name());
        }
    }

    /// Watches the controllers until asked to stop.
    pub async fn watch(self: Arc<Self>, mut stopped: Stopped) {
        let mut connected = self.hub.connected_controllers();
        let mut policy = self.policy.subscribe();
        loop {
            let none = *connected.borrow_and_update() == 0;
            let p = *policy.borrow_and_update();
            let waits = p.standalone && p.controllers;
            let alone = *self.alone.lock();
            if waits && !none && alone {
                tracing::info!("{}: a controller is connected, leaving standalone mode", self.bridge.name());
                self.act_alone(false);
            }
            tokio::select! {
                () = stopped.wait() => return,
                changed = connected.changed() => if changed.is_err() { return },
                changed = policy.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(PATIENCE), if waits && none && !alone => {
                    let name = self.bridge.name();
                    tracing::warn!("{name}: no controller for {PATIENCE:?}, acting as a learning switch");
                    self.act_alone(true);
                }
            }
        }
    }
}
