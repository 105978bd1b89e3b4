//! The networks below tunnels, as the switch looks after them: routes and addresses come and go, neighbours are heard, asked for and
//! forgotten.
//!
//! Translations only read; what they miss and what they hear is queued and seen to by the control thread.

use std::net::IpAddr;
use std::sync::Arc;

use clock::Instant;
use crossbeam_queue::ArrayQueue;
use flow::{MacAddr, PipelineMatch, PortId};
use openflow::message::PacketOut;
use openflow::{Action, PortNo};
use parking_lot::Mutex;

use crate::switch::Switch;
use crate::tunnel::{Overheard, Tunnel, Tunnels, Wanted, solicitation};

/// Most of what waits to be seen to, of each kind; what comes when it is full is lost, and the next packet says it again.
const QUEUE: usize = 256;

/// What translations have heard and missed.
pub(crate) struct Neighbourhood {
    heard: ArrayQueue<Overheard>,
    missed: ArrayQueue<(u32, IpAddr, IpAddr)>,
    wanted: Mutex<Wanted>,
}

impl Default for Neighbourhood {
    fn default() -> Self {
        let (heard, missed) = (ArrayQueue::new(QUEUE), ArrayQueue::new(QUEUE));
        Neighbourhood { heard, missed, wanted: Mutex::default() }
    }
}

impl Switch {
    /// What is known of tunnels and the networks below them.
    pub fn tunnels(&self) -> Arc<Tunnels> {
        self.routes().tunnels.clone()
    }

    /// Changes routes, addresses or neighbours, or whether tunnels are this switch's own to carry out.
    pub fn with_tunnels<T>(&self, f: impl FnOnce(&mut Tunnels) -> T) -> T {
        self.change_tunnels(f)
    }

    /// Says that a port is the end of a tunnel, or is no more.
    pub(crate) fn route_tunnel(&self, dp: PortId, t: &Tunnel, to: (u32, PortNo), is_there: bool) {
        let taken = self.change_tunnels(|all| match is_there {
            true => all.add(dp, t, to),
            false => {
                all.remove(dp, t, to);
                true
            }
        });
        if !taken {
            let name = t.settings.datapath_name();
            tracing::warn!(target: "tunnel", "attempting to add tunnel port {} with same config as another one ({name})", to.1);
        }
    }

    /// Forgets what was known of the network behind a port, or a bridge, that is gone.
    pub(crate) fn forget_network(&self, name: &str, bridge: bool) {
        let known = self.tunnels();
        let has_address = bridge && known.routing.addresses().iter().any(|a| a.device == name);
        if has_address || known.neighbours.has_any_of(name) {
            self.change_tunnels(|t| {
                t.neighbours.flush(Some(name));
                if bridge {
                    t.routing.set_addresses(name, &[]);
                }
            });
        }
    }

    /// Queues what a translation has missed and heard.
    pub(crate) fn note_neighbours(&self, wanted: &[(u32, IpAddr, IpAddr)], heard: &[Overheard]) {
        if wanted.is_empty() && heard.is_empty() {
            return;
        }
        for w in wanted {
            let _ = self.neighbours.missed.push(*w);
        }
        for h in heard {
            let _ = self.neighbours.heard.push(*h);
        }
        self.wake();
    }

    /// Learns of neighbours, asks for those that are missing, forgets those that are silent.
    pub(crate) fn tend_neighbours(&self, now: Instant) {
        let n = &self.neighbours;
        let heard: Vec<Overheard> = std::iter::from_fn(|| n.heard.pop()).take(QUEUE).collect();
        let known = self.tunnels();
        let news = heard.iter().filter_map(|h| Some((self.bridge(h.bridge)?.name().to_owned(), h)));
        let news: Vec<_> = news.collect();
        let past = known.neighbours.any_past(now);
        let learn = |t: &mut Tunnels| {
            for (bridge, h) in &news {
                t.neighbours.set(bridge, h.ip, h.mac, now);
            }
            t.neighbours.age(now);
        };
        // One that says the same again is remembered for longer: that is no news for translations.
        if past || news.iter().any(|(bridge, h)| known.neighbours.get(bridge, h.ip) != Some(h.mac)) {
            self.change_tunnels(learn);
        } else if !news.is_empty() {
            self.amend_tunnels(learn);
        }
        let missed: Vec<_> = std::iter::from_fn(|| n.missed.pop()).take(QUEUE).collect();
        let known = self.tunnels();
        let mut wanted = n.wanted.lock();
        let mut ask: Vec<(u32, IpAddr)> = missed
            .iter()
            .filter(|(b, _, ip)| wanted.want(*b, *ip, now))
            .map(|(b, _, ip)| (*b, *ip))
            .collect();
        let is_known = |b: u32, ip| {
            let bridge = self.bridge(b);
            bridge.is_none_or(|b| known.neighbours.get(b.name(), ip).is_some())
        };
        ask.extend(wanted.due(now, is_known));
        drop(wanted);
        for (bridge, ip) in ask {
            self.solicit(&known, bridge, ip);
        }
    }

    /// Asks who has `ip`, through the tables of the bridge, as the host would by its LOCAL port.
    fn solicit(&self, known: &Tunnels, bridge: u32, ip: IpAddr) {
        let Some(b) = self.bridge(bridge) else { return };
        let source = known.routing.lookup(ip, 0).and_then(|h| h.source);
        let of_bridge = known.routing.addresses().iter().find(|a| a.device == b.name());
        let Some(source) = source.or(of_bridge.map(|a| a.ip)) else { return };
        let Some(mac) = b.pipeline().ports.get(PortNo::LOCAL).map(|p| MacAddr(p.hw_addr.0)) else { return };
        let Some(data) = solicitation(mac, source, ip) else { return };
        let actions = vec![Action::Output { port: PortNo::TABLE, max_len: 0 }];
        let po =
            PacketOut { buffer: None, in_port: PortNo::LOCAL, matches: PipelineMatch::ANY, actions, data };
        if let Err(e) = b.packet_out(&po) {
            tracing::debug!(target: "tunnel", bridge = b.name(), error = ?e, "a neighbour was not asked for");
        }
    }
}
