//! Lists the targets (`names`) and writes their seeds to a folder (`seeds TARGET FOLDER`), for `cargo xtask fuzz`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["names"] => println!("{}", fuzz::names().join("\n")),
        ["seeds", name, folder] => {
            let Some(t) = fuzz::target(name) else {
                eprintln!("there is no target {name}");
                return ExitCode::FAILURE;
            };
            for (i, s) in (t.seeds)().iter().enumerate() {
                if let Err(e) = std::fs::write(format!("{folder}/seed-{i}"), s) {
                    eprintln!("{folder}: {e}");
                    return ExitCode::FAILURE;
                }
            }
        }
        _ => {
            eprintln!("usage: targets names | seeds TARGET FOLDER");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
