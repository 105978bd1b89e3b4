//! Prints how fast the simulator is on this machine: `cargo run --release -p nic --example speed [FRAMES]`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let frames = match std::env::args().nth(1) {
        Some(n) => n.parse()?,
        None => 1_000_000,
    };
    for flows in [4, 1000, 10_000] {
        let f = nic::bench::forwarding(frames, flows)?;
        println!(
            "forwarding {} frames of {} flows: {:.0} frames/s, {:.2} M cycles/s of host time; {:.1} M frames/s simulated",
            f.frames,
            f.flows,
            f.host_pps,
            f.host_cycles_per_second / 1e6,
            f.simulated_pps / 1e6
        );
    }
    let i = nic::bench::insertion(10_000)?;
    println!(
        "insertion: {:.0} rules/s of host time, {:.0} rules/s simulated",
        i.host_rules_per_second, i.simulated_rules_per_second
    );
    Ok(())
}
