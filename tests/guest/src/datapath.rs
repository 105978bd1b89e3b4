//! The kernel's own datapath: what it does not know comes to us, what we put it forwards, and TC forwards before it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use flow::{Action, ControllerAction, FieldId, FlowId, PacketMatch, PortId};
use offload::OffloadProvider;
use offload_tc::kdp::{KernelDatapath, Upcall, Upcalls, VportKind};
use offload_tc::{Kernel, TcConfig, TcPolicy};

use crate::checks::{A, B, IP4};
use crate::net::{ping, python, sh};
use crate::switch::Switch;

const NAME: &str = "hoistdp";
/// How long a packet is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The datapath, the sockets of its CPUs, and its two ports.
struct Rig {
    dp: KernelDatapath<Kernel>,
    upcalls: Vec<Upcalls<Kernel>>,
    ports: [PortId; 2],
    next: u64,
}

fn no_data(_: &ControllerAction) -> Vec<u8> {
    Vec::new()
}

impl Rig {
    fn make() -> Result<Rig> {
        let mut dp = KernelDatapath::open(Kernel::generic()?, NAME).context("no datapath")?;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let sockets: Vec<Kernel> = (0..cpus).map(|_| Kernel::generic()).collect::<Result<_, _>>()?;
        let numbers: Vec<u32> = sockets.iter().map(Kernel::port).collect();
        dp.dispatch(&numbers)?;
        let families = dp.families();
        let upcalls = sockets.into_iter().map(|s| Upcalls::new(s, families)).collect();
        let a = dp.add_port("va", &VportKind::Netdev, None)?;
        let b = dp.add_port("vb", &VportKind::Netdev, Some(PortId(7)))?;
        ensure!(b == PortId(7) && a != b, "{a:?} {b:?}");
        Ok(Rig { dp, upcalls, ports: [a, b], next: 0 })
    }

    fn other(&self, port: PortId) -> PortId {
        if port == self.ports[0] { self.ports[1] } else { self.ports[0] }
    }

    fn receive(&mut self, wait: Duration) -> Result<Vec<Upcall>> {
        let mut out = Vec::new();
        for u in &mut self.upcalls {
            u.receive(wait, &mut out)?;
        }
        Ok(out)
    }

    /// Answers what comes: everything goes to the other port, by a flow for its type; until `over` says so.
    fn answer(&mut self, mut over: impl FnMut() -> bool) -> Result<usize> {
        let (began, mut n) = (Instant::now(), 0);
        while !over() {
            ensure!(began.elapsed() < PATIENCE, "no end, {n} packets came");
            for u in self.receive(Duration::from_millis(10))? {
                n += 1;
                let port = PortId(u.key.get(FieldId::DpPort) as u32);
                let recirc = u.key.get(FieldId::RecircId) as u32;
                let mut m = PacketMatch::ANY;
                m.set(FieldId::DpPort, port.0.into());
                m.set(FieldId::RecircId, recirc.into());
                m.set(FieldId::EthType, u.key.get(FieldId::EthType));
                m.set_masked(FieldId::VlanTci, 0, 0x1fff);
                // The first pass of what comes by the second port goes through the tables again.
                let again = recirc == 0 && port == self.ports[1];
                let actions = if again { [Action::Recirc(5)] } else { [Action::Output(self.other(port))] };
                self.next += 1;
                match self.dp.put(FlowId(self.next), (&m, u.beside.options()), &actions, &no_data) {
                    // Another packet of the flow was faster.
                    Err(offload_tc::kdp::KdpError::Refused { errno: 17, .. }) => {}
                    other => other?,
                }
                self.dp.execute(&u.packet, &u.key, &u.beside, &actions, &no_data)?;
            }
        }
        Ok(n)
    }
}

/// Pings while misses are answered.
fn ping_through(r: &mut Rig, count: u32) -> Result<(u32, usize)> {
    let pinging = std::thread::spawn(move || ping("a", "10.0.0.2", count, 20));
    let n = r.answer(|| pinging.is_finished())?;
    let got = pinging.join().map_err(|_| anyhow::anyhow!("ping"))??;
    Ok((got, n))
}

/// Misses, flows, packets executed, counters, recirculation, packets for a controller; TC above it.
pub fn the_kernels_datapath(s: &mut Switch) -> Result<String> {
    s.provider_off()?;
    for dev in ["va", "vb"] {
        let _ = sh(&format!("tc qdisc del dev {dev} clsact"));
    }
    let mut r = match Rig::make() {
        Ok(r) => r,
        Err(e) => bail!("{e:#}"),
    };
    let outcome = run(&mut r);
    r.dp.destroy()?;
    let left = sh("ip -o link show")?;
    ensure!(!left.contains(NAME), "{left}");
    outcome
}

fn run(r: &mut Rig) -> Result<String> {
    let names: Vec<String> = r.dp.ports()?.into_iter().map(|p| p.name).collect();
    ensure!(names.contains(&"va".to_owned()) && names.contains(&NAME.to_owned()), "{names:?}");
    let (got, misses) = ping_through(r, 10)?;
    ensure!(got == 10, "{got} of 10 answered");
    ensure!((1..20).contains(&misses), "{misses} packets came to us");
    let flows = r.dp.flows()?;
    let counted: u64 = flows.iter().map(|f| f.packets).sum();
    ensure!(flows.len() >= 3 && counted >= 20, "{flows:?}");
    let stats = r.dp.stats()?;
    ensure!(stats.hits >= 20 && stats.lost == 0 && stats.flows == flows.len() as u64, "{stats:?}");
    // A packet for a controller brings along what the flow said.
    let id = flows.iter().find_map(|f| f.id).context("flows without our name")?;
    let last = r.dp.remove(id)?;
    ensure!(last.id == Some(id), "{last:?}");
    r.dp.flush()?;
    ensure!(r.dp.flows()?.is_empty(), "flows are left");
    let mut m = PacketMatch::ANY;
    m.set(FieldId::DpPort, r.ports[0].0.into());
    m.set(FieldId::EthType, 0x88b5);
    m.set_masked(FieldId::VlanTci, 0, 0x1fff);
    let punt = Action::Controller(ControllerAction {
        reason: flow::PuntReason::Action,
        cookie: 1,
        in_port: 1,
        ..ControllerAction::default()
    });
    r.dp.put(FlowId(900), (&m, &[]), &[punt], &|_| b"for whom".to_vec())?;
    let send = "import socket; s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW); s.bind(('ea',0)); \
                s.send(bytes.fromhex('ffffffffffff02000000000188b5')+bytes(46))";
    python("a", send).output()?;
    let began = Instant::now();
    loop {
        let all = r.receive(Duration::from_millis(20))?;
        if let Some(u) = all.iter().find(|u| u.userdata.is_some()) {
            ensure!(u.userdata.as_deref() == Some(b"for whom"), "{u:?}");
            ensure!(u.key.get(FieldId::EthType) == 0x88b5 && u.packet.len() == 60, "{u:?}");
            break;
        }
        ensure!(began.elapsed() < PATIENCE, "no packet for a controller");
    }
    r.dp.flush()?;
    // TC above: what a filter forwards the datapath does not see.
    let config = TcConfig { policy: TcPolicy::SkipHw, ..TcConfig::new("above") };
    let mut s = Switch::with(config, &[("va", A), ("vb", B)])?;
    ping_through(r, 1)?;
    let [there, back] = s.connect(IP4, A, B)?;
    let before = r.dp.stats()?;
    let (got, _) = ping_through(r, 10)?;
    let after = r.dp.stats()?;
    ensure!(got == 10, "{got} of 10 answered with TC above");
    for h in [there, back] {
        ensure!(s.stats(h)?.packets == 10, "{:?}", s.stats(h)?);
    }
    let seen = (after.hits + after.misses) - (before.hits + before.misses);
    ensure!(seen < 10, "the datapath saw {seen} packets that TC forwards");
    s.provider.flush()?;
    let (got, _) = ping_through(r, 5)?;
    ensure!(got == 5, "{got} of 5 answered without TC");
    Ok(format!("{misses} packets came to us, {} hits", after.hits))
}
