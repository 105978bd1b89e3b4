//! `cargo xtask bench sim --peer CMD`: the simulator and another one in turn on the same task.

use std::io::{self, Write};

use bench::machine::Machine;
use clap::Parser;

/// Runs the simulator and another one in turn on the same task, and prints the ratio.
#[derive(Parser)]
#[command(name = "cargo xtask bench sim")]
pub struct Args {
    /// The other simulator: a shell command, to which the names of the pcap file to read and of that to write are added
    #[arg(long, value_name = "CMD")]
    peer: String,
    /// Frames in the file
    #[arg(long, default_value_t = 100_000)]
    packets: u32,
    /// Prints one JSON document instead of text.
    #[arg(long)]
    json: bool,
}

/// Does what `args` says; whether the peer did what the task asks for.
pub fn main(args: &Args, out: &mut dyn Write) -> io::Result<bool> {
    match bench::sim_peer::run(&args.peer, args.packets) {
        Ok(figures) if args.json => writeln!(out, "{}", serde_json::to_string_pretty(&figures)?)?,
        Ok(figures) => {
            write!(out, "{}", Machine::here())?;
            figures.iter().try_for_each(|f| writeln!(out, "  {f}"))?;
        }
        Err(e) => {
            eprintln!("bench: sim --peer: {e}");
            return Ok(false);
        }
    }
    Ok(true)
}
