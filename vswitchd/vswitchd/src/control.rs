//! The control thread: revalidation, placement, links.
//!
//! It comes round when poked (tables changed, stations to learn, records to place), every millisecond while hardware
//! operations are under way, every 100 ms while there are flow records, and every 500 ms otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use clock::{Clock, Instant};
use datapath_api::Datapath;
use device::LinkState;
use ofproto::{Port, Switch};
use openflow::port::{PortConfig, PortState};

use crate::addresses::tell_addresses;
use crate::placing::Placing;
use crate::poke::Poke;
use crate::reconfigure::Reconfigure;
use crate::report::Parts;

/// Between rounds while hardware operations are under way; also the longest rest between rounds when poked.
const HOT: Duration = Duration::from_millis(1);
/// Between revalidations while there are records.
const WARM: Duration = Duration::from_millis(100);
/// Between rounds otherwise, and between looks at the links.
const IDLE: Duration = Duration::from_millis(500);

/// What the thread works on.
pub struct Control {
    /// The OpenFlow layer.
    pub openflow: Arc<Switch>,
    /// Placement.
    pub placing: Arc<Placing>,
    /// Its simulated devices, whose links are those of their wires.
    pub parts: Arc<Parts>,
    /// Has the switch looked at again: when devices that the platform asks for are to be given back, or queues given out anew.
    pub reconfigure: Reconfigure,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Wakes it.
    pub poke: Arc<Poke>,
}

impl Control {
    /// Starts the thread; it ends soon after `stop` is set and it is poked.
    ///
    /// # Errors
    /// When there are no threads left.
    pub fn start(self, stop: Arc<AtomicBool>) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("control".to_owned()).spawn(move || self.run(&stop))
    }

    fn run(&self, stop: &AtomicBool) {
        let (mut revalidated, mut looked) = (None::<Instant>, None::<Instant>);
        while !stop.load(Ordering::Acquire) {
            self.parts.rounds.begin();
            let now = self.clock.now();
            let due = |last: Option<Instant>, every| last.is_none_or(|t| now.since(t) >= every);
            if self.openflow.run(now) {
                revalidated = Some(now);
            }
            if due(revalidated, WARM) {
                self.openflow.revalidate(now);
                revalidated = Some(now);
            }
            let worked = self.placing.tick(now);
            for (meter, passed) in self.placing.take_meter_charges() {
                // One that has gone has nothing to be charged with.
                let _ = self.parts.soft.meter_charge(meter, passed, now);
            }
            if self.placing.take_requests() {
                self.reconfigure.look_again();
            }
            if due(looked, IDLE) {
                tell_links(&self.parts);
                tell_addresses(&self.parts);
                self.parts.cores.history.sample(now, || self.parts.soft.core_stats());
                looked = Some(now);
            }
            if self.parts.cores.balancing.has_come(now) {
                self.reconfigure.look_again();
            }
            self.parts.rounds.end();
            let wait = if worked > 0 || !self.placing.is_quiet() {
                HOT
            } else if self.openflow.live_records() > 0 {
                WARM
            } else {
                IDLE
            };
            let took = self.clock.now().since(now);
            if self.poke.wait(wait) && wait > HOT {
                // Pokes come in swarms: rest as long as the round took, so that they cost at most half a processor. Not
                // longer: whoever sends a barrier behind each flow waits for every round.
                std::thread::sleep(took.min(HOT));
            }
        }
    }
}

/// Tells the bridges which links have changed.
pub fn tell_links(parts: &Parts) {
    for s in parts.sims.lock().iter() {
        s.carry_links();
    }
    for p in parts.ports.all() {
        // Looked at now and then, so that little is lost when a device is reset.
        p.counters();
        let _one = parts.ports.changing();
        let Some(link) = p.link_change() else { continue };
        if parts.ports.by_datapath(p.dp).is_none() {
            continue;
        }
        let Some(bridge) = parts.layer.bridge(p.bridge) else { continue };
        let Some(port) = bridge.pipeline().ports.get(p.no).cloned() else { continue };
        let word = if link.link_up { "up" } else { "down" };
        tracing::info!("port {} of {}: link {word}", p.name, bridge.name());
        bridge.put_port(with_link(port, link, p.is_the_hosts()));
    }
}

/// A port's description with its link as it is now. Of one that is the host's, whether it is up is the host's to say.
pub fn with_link(mut port: Port, link: LinkState, the_hosts: bool) -> Port {
    port.state = if link.link_up { PortState::LIVE } else { PortState::LINK_DOWN };
    port.speed_kbps = link.speed_mbps.saturating_mul(1000);
    if the_hosts {
        let down = PortConfig::PORT_DOWN.0;
        port.config = PortConfig(if link.admin_up { port.config.0 & !down } else { port.config.0 | down });
    }
    port
}
