//! `hoist sim serve`: the simulated SmartNIC as a process of its own, for a switch in another one.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use device::{BufferPool, PacketIo};
use netio::af_packet::AfPacketPort;
use netio::tap::TapPort;
use nic::{Config, SimHandle, SimNic};
use vfio_user::{Served, Server};

/// Vectors that a client can have.
const VECTORS: u16 = 64;
/// Buffers for frames between wires and device.
const CELLS: u32 = 8192;

/// What is served, and where.
#[derive(Args)]
pub struct Serve {
    /// Socket; one that a server left that was killed is taken over
    #[arg(long)]
    socket: PathBuf,
    /// Profile: a name (`hoist sim profiles`) or a file
    #[arg(long, default_value = "default")]
    profile: String,
    /// Seed of what differs between two devices of a kind
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What the wire of a port ends in: `PORT=af_packet:INTERFACE` or `PORT=tap:INTERFACE`; may be given again
    #[arg(long, value_name = "WIRE")]
    wire: Vec<String>,
}

fn wire(sim: &SimHandle, text: &str, pool: &BufferPool) -> Result<Box<dyn PacketIo>> {
    let parts = text.split_once('=').and_then(|(p, w)| Some((p.parse::<u8>().ok()?, w.split_once(':')?)));
    let Some((port, (kind, interface))) = parts.filter(|(p, _)| *p < sim.config().device.ports) else {
        bail!("--wire {text}: want PORT=af_packet:INTERFACE or PORT=tap:INTERFACE");
    };
    let mut io: Box<dyn PacketIo> = match kind {
        "af_packet" => {
            let p = AfPacketPort::open(interface, pool)?;
            p.netdev().set_up()?;
            Box::new(p)
        }
        "tap" => {
            let p = TapPort::create(interface, pool)?;
            p.netdev().set_up()?;
            Box::new(p)
        }
        other => bail!("--wire {text}: {other} is none of af_packet and tap"),
    };
    let (rx, tx) = netio::merged::take_all(&mut *io)?;
    sim.attach(port, rx, tx);
    sim.set_carrier(port, true);
    Ok(io)
}

impl Serve {
    /// Serves until the process ends.
    ///
    /// # Errors
    /// When the device, a wire or the socket cannot be had.
    pub fn run(&self) -> Result<()> {
        let sim = SimNic::new(Config::profile(&self.profile)?, self.seed)?;
        let _live = sim.start_live().context("a thread for the device")?;
        (0..sim.config().device.ports).for_each(|p| sim.set_carrier(p, false));
        let pool = BufferPool::new(CELLS)?;
        let ends = self.wire.iter().map(|w| wire(&sim, w, &pool)).collect::<Result<Vec<_>>>()?;
        let server =
            Server::bind(&self.socket).with_context(|| format!("socket {}", self.socket.display()))?;
        println!("serving at {}", self.socket.display());
        server.run(&mut || Served::new(sim.backing(), VECTORS), &|| false)?;
        drop(ends);
        Ok(())
    }
}
