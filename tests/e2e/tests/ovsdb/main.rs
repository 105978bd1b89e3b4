//! The database server as its users meet it: stock tools and the Python client against it, files that go back and forth
//! between it and `ovsdb-tool`, and what is left after it was killed or the disk was full.
//!
//! What is asked of our server is asked of Debian's first: where an expectation is wrong, both fail.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(missing_docs)]

mod disk;
mod files;
mod idl;
mod killed;
mod tour;

use std::path::{Path, PathBuf};
use std::process::Command;

use lab::OvsdbServer;
use lab::command::done;
use lab::ovsdb::STOCK_SERVER;
use ovsdb::vswitch::SCHEMA_TEXT;
use tempfile::TempDir;

/// A server's program.
pub struct Kind {
    /// For messages.
    pub name: &'static str,
    pub program: PathBuf,
}

impl Kind {
    pub fn is_ours(&self) -> bool {
        self.name == "ours"
    }
}

/// Debian's server, if it is there, and ours.
pub fn kinds() -> Vec<Kind> {
    let mut all = Vec::new();
    if Path::new(STOCK_SERVER).is_file() {
        all.push(Kind { name: "stock", program: STOCK_SERVER.into() });
    } else {
        println!("skip: {STOCK_SERVER} is not there (openvswitch-switch): ours is not held against it");
    }
    let own = std::env::current_exe().unwrap();
    let program = own.ancestors().nth(2).unwrap().join("ovsdb-server");
    assert!(program.is_file(), "{} is not built: cargo build -p ovsdb", program.display());
    all.push(Kind { name: "ours", program });
    all
}

/// Whether the stock tools are there; says that the test is skipped if not.
pub fn have_tools() -> bool {
    let there = ["ovsdb-client", "ovsdb-tool", "ovs-vsctl", "ovs-appctl"]
        .iter()
        .all(|t| Command::new(t).arg("--version").output().is_ok_and(|o| o.status.success()));
    if !there {
        println!(
            "skip: no ovsdb-client, ovsdb-tool, ovs-vsctl, ovs-appctl (openvswitch-common, openvswitch-switch)"
        );
    }
    there
}

/// A folder with a new database of a switch, made by the stock `ovsdb-tool`.
pub struct Place {
    dir: TempDir,
}

impl Place {
    pub fn with_database() -> Place {
        let p = Place { dir: tempfile::Builder::new().prefix("hoist-db").tempdir().unwrap() };
        std::fs::write(p.path("vswitch.ovsschema"), SCHEMA_TEXT).unwrap();
        p.tool(&["create", &p.text("conf.db"), &p.text("vswitch.ovsschema")]);
        p
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `ovsdb-tool ...`
    pub fn tool(&self, args: &[&str]) -> String {
        let o = done(Command::new("ovsdb-tool").args(args).env("OVS_SYSLOG_METHOD", "null")).unwrap();
        String::from_utf8(o.stdout).unwrap()
    }

    /// A server of `conf.db`.
    pub fn serve(&self, kind: &Kind) -> OvsdbServer {
        OvsdbServer::start(&kind.program, self.dir(), &[&self.path("conf.db")], &[]).unwrap()
    }
}
