//! The switch under test: our datapath on one core between two ports in memory, the OpenFlow layer behind it, loaded with a
//! workload's rules. What runs on other cores in a daemon (revalidation, learning) runs here between the measured
//! polls and is not in the figure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clock::{Clock, HostClock, Instant};
use datapath::{Core, DatapathConfig, PortConfig, SoftDatapath, Stage};
use datapath_api::{Datapath, DatapathStats};
use device::BufferPool;
use flow::PortId;
use flow::tunnel::TunnelKind;
use ofproto::tunnel::{Address, End, TunnelKey};
use ofproto::{Bridge, BridgeConfig, Port, Switch, SwitchConfig, Tunnel, TunnelSettings, fdb};
use openflow::PortNo;
use openflow::number::MacAddr;

use super::directory::{Directory, Frames, N0, N1, TUN0, Underlay};
use super::queues::{Replay, Silent, Sink, Source};
use super::{Options, SwitchingError};
use crate::cycles::{now, processor_time};

/// Polls between two readings of the counter.
const POLLS: usize = 32;
/// Pause between revalidations, of the host's time.
const REVALIDATE: Duration = Duration::from_millis(500);
/// The port that frames come in on before the measured ones, in the datapath and in OpenFlow.
const PRIME: PortId = PortId(3);
const PRIME_NO: u32 = 7;
/// The port of the datapath that tunnels share, and the LOCAL port of the bridge below them.
const VXLAN: PortId = PortId(4789);
const BELOW: PortId = PortId(100);
/// Pause between looks at what the switch has to do.
const LOOK: Duration = Duration::from_millis(20);

/// Cycles and packets of some polls.
#[derive(Clone, Copy)]
pub struct Chunk {
    /// Cycles that the polls took.
    pub cycles: u64,
    /// Nanoseconds of them in which the processor was the thread's.
    pub on_processor_ns: u64,
    /// Packets received by them.
    pub packets: u64,
}

fn refused((at, e): (usize, impl std::fmt::Debug)) -> SwitchingError {
    SwitchingError::FlowMod(format!("{at}: {e:?}"))
}

/// The switch.
pub struct Bed {
    switch: Arc<Switch>,
    bridge: Arc<Bridge>,
    dp: Arc<SoftDatapath>,
    core: Core,
    clock: Arc<HostClock>,
    allowance: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
    primed: u64,
    looked: Instant,
    revalidated: Instant,
}

/// The bridge below a tunnel, and the tunnel's port on the other.
fn underlay(
    switch: &Arc<Switch>,
    above: &Bridge,
    t: &Underlay,
    now: Instant,
) -> Result<Arc<Bridge>, SwitchingError> {
    let below = switch.add_bridge(BridgeConfig::new("brphy", 2));
    below.put_port(Port::new(PortNo::LOCAL, BELOW, "brphy", MacAddr(t.local_mac.0)));
    let settings = TunnelSettings {
        remote: End::Address(t.remote),
        in_key: TunnelKey::Flow,
        out_key: TunnelKey::Flow,
        ..TunnelSettings::new(TunnelKind::Vxlan)
    };
    let tunnel = Tunnel::new(settings, String::new());
    let mac = MacAddr([2, 0, 0, 0, 0xff, 9]);
    above.put_port(Port::tunnel(PortNo(TUN0), VXLAN, "tun0", mac, tunnel));
    switch.with_tunnels(|all| {
        let (ip, prefix) = t.local;
        all.routing.add_address(Address { device: "brphy".into(), ip, prefix });
        all.neighbours.set("brphy", t.remote, t.remote_mac, now);
    });
    below
        .apply(&t.flows, now)
        .map_err(|(at, e)| SwitchingError::FlowMod(format!("phy.flows {at}: {e:?}")))?;
    Ok(below)
}

impl Bed {
    /// With the rules of `d`, receiving `source`.
    ///
    /// # Errors
    /// [`SwitchingError`].
    pub fn new(d: &Directory, source: Source, o: &Options) -> Result<Self, SwitchingError> {
        let clock = Arc::new(HostClock::new());
        let switch = Switch::new(clock.clone(), SwitchConfig::default());
        let config = DatapathConfig {
            exact_slots: if o.no_emc { 0 } else { DatapathConfig::default().exact_slots },
            ..DatapathConfig::default()
        };
        let dp = SoftDatapath::new(config, clock.clone(), switch.clone(), switch.clone())?;
        switch.set_datapath(dp.clone());
        let bridge = switch.add_bridge(BridgeConfig::new("br0", 1));
        let core = dp.take_core(0)?;
        let (allowance, sent) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let pool = BufferPool::new(4096)?;
        let replay = Replay::new(source, pool, allowance.clone());
        let back = Arc::new(AtomicU64::new(0));
        dp.attach(PortConfig::new(PortId(1), "n0"), Box::new(replay), Box::new(Sink(back)))?;
        dp.attach(PortConfig::new(PortId(2), "n1"), Box::new(Silent), Box::new(Sink(sent.clone())))?;
        let below = match &d.tunnel {
            Some(t) => Some(underlay(&switch, &bridge, t, clock.now())?),
            None => None,
        };
        for (name, no, dp) in [("n0", N0, 1u8), ("n1", N1, 2)] {
            let mac = MacAddr([2, 0, 0, 0, 0xff, dp]);
            let outside = matches!((d.topo.as_str(), name), ("encap", "n1") | ("decap", "n0"));
            let on = below.as_ref().filter(|_| outside).unwrap_or(&bridge);
            on.put_port(Port::new(PortNo(no), PortId(dp.into()), name, mac));
        }
        for some in d.flows.chunks(1000) {
            bridge.apply(some, clock.now()).map_err(refused)?;
        }
        for (port, mac) in &d.stations {
            fdb::add(&switch, "br0", port, "0", mac).map_err(SwitchingError::FlowMod)?;
        }
        let zero = Instant::ZERO;
        let mut bed = Bed {
            switch,
            bridge,
            dp,
            core,
            clock,
            allowance,
            sent,
            primed: 0,
            looked: zero,
            revalidated: zero,
        };
        if let Some(frames) = &d.prime {
            bed.prime(frames.clone())?;
        }
        Ok(bed)
    }

    /// Receives `frames` once, on a port that is there only for that.
    fn prime(&mut self, frames: Arc<Frames>) -> Result<(), SwitchingError> {
        let n = frames.len() as u64;
        let left = Arc::new(AtomicU64::new(n));
        let replay = Replay::new(Source::Frames(frames), BufferPool::new(4096)?, left.clone());
        self.dp.attach(PortConfig::new(PRIME, "np"), Box::new(replay), Box::new(Sink(Arc::default())))?;
        let mac = MacAddr([2, 0, 0, 0, 0xff, 3]);
        self.bridge.put_port(Port::new(PortNo(PRIME_NO), PRIME, "np", mac));
        // Nothing comes in on the other port yet.
        self.allowance.store(0, Ordering::Relaxed);
        while left.load(Ordering::Relaxed) > 0 {
            self.core.poll_once(self.clock.now());
            self.control();
        }
        self.bridge.remove_port(PortNo(PRIME_NO));
        // The core lets go of it in the next poll.
        drop(self.dp.detach(PRIME)?);
        self.primed = n;
        self.sent.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Packets that were received before the measured ones.
    pub fn primed(&self) -> u64 {
        self.primed
    }

    /// Applies flow-mods in one change of the tables; records follow at once.
    ///
    /// # Errors
    /// [`SwitchingError::FlowMod`].
    pub fn change(&mut self, mods: &[openflow::FlowMod]) -> Result<(), SwitchingError> {
        self.bridge.apply(mods, self.clock.now()).map_err(refused)?;
        self.switch.revalidate(self.clock.now());
        Ok(())
    }

    /// What control threads do meanwhile.
    fn control(&mut self) {
        let now = self.clock.now();
        if now.since(self.looked) >= LOOK {
            self.looked = now;
            self.switch.run(now);
        }
        if now.since(self.revalidated) >= REVALIDATE {
            self.revalidated = now;
            self.switch.revalidate(now);
        }
    }

    /// Receives `packets`, telling `each` of every few polls, as long as that says to go on.
    pub fn run(&mut self, packets: u64, mut each: impl FnMut(Chunk) -> bool) {
        self.allowance.store(packets, Ordering::Relaxed);
        loop {
            self.control();
            let at = self.clock.now();
            let before = self.allowance.load(Ordering::Relaxed);
            let (mine, start) = (processor_time().as_nanos() as u64, now());
            for _ in 0..POLLS {
                self.core.poll_once(at);
            }
            let (cycles, mine) = (now().wrapping_sub(start), processor_time().as_nanos() as u64 - mine);
            let left = self.allowance.load(Ordering::Relaxed);
            let go_on = each(Chunk { cycles, on_processor_ns: mine, packets: before - left });
            if left == 0 || !go_on {
                return;
            }
        }
    }

    /// Packets sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Cycles per packet of each stage, of the polls that were timed by stages.
    pub fn stages(&self) -> Vec<(&'static str, f64)> {
        let all = self.dp.core_stats();
        let Some(c) = all.first() else { return Vec::new() };
        let per = |s: &Stage| c.stage_cycles[*s as usize] as f64 / c.sampled_packets.max(1) as f64;
        Stage::ALL.iter().map(|s| (s.name(), per(s))).collect()
    }

    /// The datapath's counters.
    pub fn stats(&self) -> DatapathStats {
        self.dp.stats()
    }

    /// Packets that all rules of the bridge have counted.
    pub fn counted_by_rules(&self) -> u64 {
        self.switch.revalidate(self.clock.now());
        let p = self.bridge.pipeline();
        p.tables().flat_map(|(_, t)| t.rules.iter()).map(|(_, f)| f.rule.packets()).sum()
    }
}
