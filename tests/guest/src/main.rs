//! What `cargo xtask lab tc` runs inside the kernel lab's guest: filters that the provider installs on a real kernel, with packets
//! through them. Changes interfaces and filters of the machine it runs on, so it wants to be told that that is meant.
#![forbid(unsafe_code)]

mod chains;
mod checks;
mod daemon;
mod datapath;
mod faults;
mod measure;
mod meters;
mod net;
mod options;
mod stock;
mod switch;
mod system;
mod tunnel;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if std::env::var_os("HOIST_GUEST").is_none() {
        bail!("this is for the inside of the kernel lab: cargo xtask lab tc");
    }
    net::modules()?;
    match args.first().map(String::as_str) {
        Some("measure") => {
            let n = args.get(1).and_then(|n| n.parse().ok()).unwrap_or(10_000);
            measure::run_all(n)
        }
        Some("only") => checks::run(args.get(1).map_or("", String::as_str)),
        None => checks::run(""),
        Some(what) => bail!("{what}: nothing of that name"),
    }
}
