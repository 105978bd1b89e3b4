//! `cargo xtask`: what a person repeats. See `cargo xtask --help`.
#![forbid(unsafe_code)]

mod setup;
mod step;
mod test;

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
    /// Installs the packages that tests and demo use, and says what it did.
    Setup,
}

fn main() -> ExitCode {
    let result = match Args::parse().task {
        Task::Test(o) => test::run(&o),
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
