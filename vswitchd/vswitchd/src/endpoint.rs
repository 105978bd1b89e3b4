//! The OpenFlow side of a bridge: its sockets and connections.

use std::sync::Arc;

use clock::Clock;
use daemon::signals::Stopped;
use daemon::{Listener, OPENFLOW_PORT, Passive, RunDir, StreamError};
use ofproto::Bridge;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::config::{BridgeConfig, FailMode};
use crate::controller::{Hub, Limits, connect_to, listen};
use crate::fail_mode;

/// A bridge with its connections.
pub struct Endpoint {
    /// The bridge.
    pub bridge: Arc<Bridge>,
    /// Its connections.
    pub hub: Arc<Hub>,
    /// As configured.
    pub config: BridgeConfig,
    /// Where it listens, as it can be connected to.
    pub listening: Vec<String>,
}

impl Endpoint {
    /// A bridge without connections yet.
    pub fn new(bridge: Arc<Bridge>, config: BridgeConfig, clock: Arc<dyn Clock>) -> Endpoint {
        let hub = Hub::new(bridge.name(), Limits::default(), clock);
        bridge.set_controllers(hub.clone());
        Endpoint { bridge, hub, config, listening: Vec::new() }
    }

    /// Opens its sockets and starts to connect to its controllers. What runs ends when `stopped`.
    ///
    /// # Errors
    /// [`StreamError`] when something cannot be listened on.
    pub fn open(
        &mut self,
        runtime: &Runtime,
        dir: &RunDir,
        clock: &Arc<dyn Clock>,
        stopped: &Stopped,
    ) -> Result<Vec<JoinHandle<()>>, StreamError> {
        let mut tasks = Vec::new();
        let own = Passive::Unix(dir.bridge_socket(self.bridge.name()));
        let mut all = vec![own.clone()];
        // The bridge's own socket may be listed as well; it is one socket.
        all.extend(self.config.listen.iter().map(|l| l.clone().in_dir(dir.path())).filter(|l| *l != own));
        for on in all {
            let l = runtime.block_on(Listener::bind(&on, OPENFLOW_PORT))?;
            self.listening.push(match (l.tcp_port(), &on) {
                (Some(port), Passive::Tcp { host, .. }) => {
                    Passive::Tcp { host: host.clone(), port: Some(port) }.to_string()
                }
                _ => on.to_string(),
            });
            tasks.push(runtime.spawn(listen(self.hub.clone(), self.bridge.clone(), l, stopped.clone())));
        }
        for to in &self.config.controllers {
            let to = to.clone().in_dir(dir.path());
            tasks.push(runtime.spawn(connect_to(self.hub.clone(), self.bridge.clone(), to, stopped.clone())));
        }
        if self.config.fail_mode == FailMode::Standalone {
            if self.config.controllers.is_empty() {
                fail_mode::act_alone(&self.bridge, &**clock);
            } else {
                let (b, h, c) = (self.bridge.clone(), self.hub.clone(), clock.clone());
                tasks.push(runtime.spawn(fail_mode::watch(b, h, c, stopped.clone())));
            }
        }
        Ok(tasks)
    }
}
