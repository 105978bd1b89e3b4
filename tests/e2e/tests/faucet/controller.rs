//! A process of Faucet, with its configuration file.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lab::command::{Running, done, inside};

/// Where it listens, in the switch's namespace.
pub const PORT: u16 = 6653;

/// A running Faucet. Killed when dropped.
pub struct Faucet {
    process: Running,
    folder: PathBuf,
}

impl Faucet {
    /// Starts it in namespace `ns` with `configuration` (YAML); its files are in `folder`.
    pub fn start(program: &Path, ns: &str, folder: &Path, configuration: &str) -> Faucet {
        let file = |name: &str| folder.join(name);
        std::fs::write(file("faucet.yaml"), configuration).unwrap();
        // It becomes the osken-manager that it finds on PATH: the one installed beside it.
        let beside = program.parent().unwrap().to_str().unwrap();
        let path = format!("{beside}:{}", std::env::var("PATH").unwrap_or_default());
        let child = inside(ns, program.to_str().unwrap())
            .args(["--ryu-ofp-listen-host", "127.0.0.1", "--ryu-ofp-tcp-listen-port", &PORT.to_string()])
            .env("PATH", path)
            .env("FAUCET_CONFIG", file("faucet.yaml"))
            .env("FAUCET_LOG", file("faucet.log"))
            .env("FAUCET_EXCEPTION_LOG", file("faucet-exception.log"))
            .env("FAUCET_PROMETHEUS_ADDR", "127.0.0.1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONWARNINGS", "ignore")
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(file("faucet-stderr.log")).unwrap())
            .spawn()
            .unwrap();
        Faucet { process: Running(child), folder: folder.to_owned() }
    }

    /// Gives it another configuration, as an operator does: the file, then SIGHUP.
    pub fn reload(&self, configuration: &str) {
        std::fs::write(self.folder.join("faucet.yaml"), configuration).unwrap();
        done(Command::new("kill").args(["-HUP", &self.process.0.id().to_string()])).unwrap();
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        let read = |name| std::fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        format!("{}{}{}", read("faucet.log"), read("faucet-exception.log"), read("faucet-stderr.log"))
    }
}
