//! Writes workloads: `cargo run --release -p bench --example workload -- NAME DIR [SEED]`; NAME may be `all`.

use std::path::Path;

fn main() -> Result<(), bench::workload::WorkloadError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [name, dir, seed @ ..] = &args[..] else {
        for (name, about) in bench::workload::list() {
            println!("{name:<14} {about}");
        }
        return Ok(());
    };
    let seed = seed.first().and_then(|s| s.parse().ok()).unwrap_or(bench::workload::DEFAULT_SEED);
    for (n, _) in bench::workload::list().filter(|(n, _)| n == name || name == "all") {
        bench::workload::generate(n, Path::new(dir), seed)?;
    }
    Ok(())
}
