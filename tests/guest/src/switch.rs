//! The provider on the real kernel, and records for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clock::HostClock;
use flow::{Action, FieldId, FlowId, PacketMatch, PortId};
use offload::{FlowOp, FlowRule, HwHandle, OffloadProvider, OpId, OpResult, RawStats, Reject, StatsCursor};
use offload_tc::{Kernel, TcConfig, TcPolicy, TcProvider};

use crate::net;

/// How long a completion is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ports by interface: `va` is 1, `vb` 2, `vc` 3.
pub const PORTS: [(&str, PortId); 3] = [("va", PortId(1)), ("vb", PortId(2)), ("vc", PortId(3))];

/// See the module's text.
pub struct Switch {
    pub provider: TcProvider<Kernel>,
    next: u64,
}

/// A record's match: packets of `eth_type` that come in by `port` untagged.
pub fn untagged(port: PortId, eth_type: u16) -> PacketMatch {
    let mut m = PacketMatch::ANY;
    m.set(FieldId::DpPort, port.0.into());
    m.set(FieldId::RecircId, 0);
    m.set(FieldId::EthType, eth_type.into());
    m.set_masked(FieldId::VlanTci, 0, 0x1fff);
    if matches!(eth_type, 0x0800 | 0x86dd) {
        m.set_masked(FieldId::NwFrag, 0, 3);
    }
    m
}

/// A write of a whole field.
pub fn set(field: FieldId, value: u128) -> Action {
    Action::SetField { field, value, mask: field.info().max() }
}

/// An IPv4 address as a number.
pub fn ip(text: &str) -> u128 {
    text.parse::<std::net::Ipv4Addr>().map_or(0, |a| u32::from(a).into())
}

impl Switch {
    /// A provider with every interface, or as many as there are.
    pub fn new(policy: TcPolicy) -> Result<Switch> {
        Switch::with(TcConfig { policy, ..TcConfig::new("lab") }, &PORTS)
    }

    /// A provider with other settings and interfaces, or as many as there are.
    pub fn with(config: TcConfig, ports: &[(&str, PortId)]) -> Result<Switch> {
        let link = Kernel::open().context("netlink socket")?;
        let mut provider = TcProvider::new(link, config, Arc::new(HostClock::new()));
        let ports: Vec<_> = ports.iter().filter_map(|(name, p)| Some((*p, net::index(name).ok()?))).collect();
        provider.set_interfaces(&ports)?;
        Ok(Switch { provider, next: 1 })
    }

    /// Takes every filter and qdisc away.
    pub fn provider_off(&mut self) -> Result<()> {
        Ok(self.provider.set_interfaces(&[])?)
    }

    fn run(&mut self, op: FlowOp) -> Result<OpResult> {
        let began = Instant::now();
        let mut done = Vec::new();
        let mut sent = self.provider.submit(std::slice::from_ref(&op));
        while done.is_empty() {
            if sent == 0 {
                sent = self.provider.submit(std::slice::from_ref(&op));
            }
            self.provider.poll(&mut done, 1);
            if began.elapsed() > PATIENCE {
                bail!("{op:?} never completes");
            }
        }
        done.pop().map(|c| c.result).context("no completion")
    }

    /// A rule with a name of its own.
    pub fn rule(&mut self, matches: PacketMatch, actions: &[Action]) -> FlowRule {
        self.next += 1;
        FlowRule { id: FlowId(self.next), matches, actions: actions.into(), provenance: [].into() }
    }

    /// Installs a rule; its refusal is `Err` within.
    pub fn offer(&mut self, matches: PacketMatch, actions: &[Action]) -> Result<Result<HwHandle, Reject>> {
        let rule = self.rule(matches, actions);
        match self.run(FlowOp::Install(OpId(self.next), rule))? {
            OpResult::Installed(h, _) => Ok(Ok(h)),
            OpResult::Rejected(r, _) => Ok(Err(r)),
            other => bail!("{other:?}"),
        }
    }

    /// Installs a rule that has to be taken.
    pub fn install(&mut self, matches: PacketMatch, actions: &[Action]) -> Result<HwHandle> {
        self.offer(matches, actions)?.map_err(|r| anyhow::anyhow!("refused: {r}"))
    }

    /// Makes a rule do something else.
    pub fn replace(&mut self, h: HwHandle, matches: PacketMatch, actions: &[Action]) -> Result<()> {
        let rule = self.rule(matches, actions);
        match self.run(FlowOp::Replace(OpId(self.next), h, rule))? {
            OpResult::Replaced(..) => Ok(()),
            other => bail!("{other:?}"),
        }
    }

    /// Removes a rule; its last counters.
    pub fn remove(&mut self, h: HwHandle) -> Result<RawStats> {
        self.next += 1;
        match self.run(FlowOp::Remove(OpId(self.next), h))? {
            OpResult::Removed(_, last) => Ok(last),
            other => bail!("{other:?}"),
        }
    }

    /// What a rule has counted.
    pub fn stats(&mut self, h: HwHandle) -> Result<RawStats> {
        let mut cursor = StatsCursor::default();
        loop {
            let b = self.provider.poll_stats(&mut cursor, 1000)?;
            if let Some((_, _, s)) = b.stats.iter().find(|(n, _, _)| *n == h) {
                return Ok(*s);
            }
            if b.wrapped {
                bail!("{h:?} is not among the counters");
            }
        }
    }

    /// Lets everything of an Ethernet type pass between two ports.
    pub fn connect(&mut self, eth_type: u16, a: PortId, b: PortId) -> Result<[HwHandle; 2]> {
        Ok([
            self.install(untagged(a, eth_type), &[Action::Output(b)])?,
            self.install(untagged(b, eth_type), &[Action::Output(a)])?,
        ])
    }
}
