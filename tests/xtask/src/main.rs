//! `cargo xtask`: what a person repeats. See `cargo xtask --help`.
#![forbid(unsafe_code)]

mod asan;
mod compat;
mod demo;
mod fuzz;
mod kernel_lab;
mod passed_on;
mod setup;
mod step;
mod test;
mod vfio_lab;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks of the Hoist workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Sets up what is needed and runs every check: format, clippy, unit, property, differential, end-to-end.
    Test(test::Options),
    /// Four hosts, a simulated NIC, real traffic: shows what is in hardware and why the rest is not, and checks it.
    Demo(demo::Options),
    /// Measures: cycles per packet of every stage, the simulator, rule insertion, memory per flow, the database server. `bench --help` says more.
    #[command(disable_help_flag = true)]
    Bench(passed_on::Arguments),
    /// Writes benchmark inputs: frames, flows, expected verdicts. `workload --help` lists them.
    #[command(disable_help_flag = true)]
    Workload(passed_on::Arguments),
    /// Simulates what was measured on hardware and prints how far the simulator is off. `validate pcie --help` says more.
    #[command(disable_help_flag = true)]
    Validate(passed_on::Arguments),
    /// Runs the differential test for as long as told. `differential --help` says more.
    #[command(disable_help_flag = true)]
    Differential(passed_on::Arguments),
    /// Runs our programs under somebody else's test suite, in a folder of the caller's. `compat ovs --help` says more.
    Compat(compat::Options),
    /// Boots a Linux kernel, as a process or in QEMU, and shows in it, with packets, what the host may not have: TC flower, devices over VFIO.
    Lab(kernel_lab::Options),
    /// Feeds what takes bytes from outside under libFuzzer, for as long as told.
    Fuzz(fuzz::Options),
    /// Runs the drivers on devices that misbehave, under the address sanitizer.
    Asan,
    /// Installs the packages that tests and demo use, and says what it did.
    Setup,
}

fn main() -> ExitCode {
    let result = match Args::parse().task {
        Task::Test(o) => test::run(&o),
        Task::Demo(o) => demo::run(&o),
        Task::Bench(a) => bench(&a),
        Task::Workload(a) => passed_on::run("bench", "workload", &a),
        Task::Validate(a) => passed_on::run("pcie", "validate", &a),
        Task::Differential(a) => passed_on::run("differential", "differential", &a),
        Task::Compat(o) => match compat::run(&o) {
            Ok(true) => Ok(()),
            // The table's last line says it.
            Ok(false) => return ExitCode::FAILURE,
            Err(e) => Err(e),
        },
        Task::Lab(o) => kernel_lab::run(&o),
        Task::Fuzz(o) => fuzz::run(&o),
        Task::Asan => asan::run(),
        Task::Setup => setup::everything(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures; what is measured runs other programs beside itself.
fn bench(a: &passed_on::Arguments) -> anyhow::Result<()> {
    if a.begin_with("peer") {
        setup::peer()?;
    } else if a.begin_with("tc") {
        passed_on::build("guest")?;
    } else if !["softpath", "rulesets", "updates", "churn"].iter().any(|w| a.begin_with(w)) {
        passed_on::build("ovsdb")?;
        passed_on::build("guest")?;
        passed_on::build("vswitchd")?;
    }
    passed_on::run("bench", "bench", a)
}
