//! The dependency table, the async-runtime ban and the list of crates that may contain `unsafe`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Crate, then the crates of ours it may use outside tests. `*` allows all.
const TABLE: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("flow", &[]),
    ("device", &["clock"]),
    ("offload", &["flow", "clock"]),
    ("offload-tc", &["flow", "offload", "clock", "datapath-api"]),
    ("simnic-defs", &[]),
    ("simnic", &["device", "flow", "offload", "clock", "simnic-defs"]),
    ("pci", &["device", "clock"]),
    ("rocker-defs", &[]),
    ("rocker", &["device", "flow", "offload", "clock", "rocker-defs"]),
    ("virtio-net-defs", &[]),
    ("virtio-net", &["device", "flow", "offload", "clock", "virtio-net-defs"]),
    ("vfio-user", &["device", "clock"]),
    ("ixgbe-defs", &[]),
    ("ixgbe", &["device", "flow", "offload", "clock", "ixgbe-defs"]),
    ("datapath-api", &["flow", "clock"]),
    ("classifier", &["flow"]),
    ("netio", &["device", "clock"]),
    ("conntrack", &["flow", "clock"]),
    ("datapath", &["flow", "classifier", "conntrack", "device", "clock", "datapath-api"]),
    ("openflow", &["flow"]),
    ("ovsdb", &["clock", "daemon"]),
    ("daemon", &["clock"]),
    ("bonds", &["clock"]),
    ("links", &["clock"]),
    ("spanning", &[]),
    ("exporters", &["clock"]),
    (
        "ofproto",
        &[
            "flow",
            "openflow",
            "classifier",
            "datapath-api",
            "offload",
            "bonds",
            "links",
            "spanning",
            "exporters",
            "clock",
        ],
    ),
    ("vswitchd", &["*"]),
    (
        "hoist",
        &["ovsdb", "openflow", "flow", "daemon", "pci", "nic", "tester", "vfio-user", "netio", "device"],
    ),
    ("kernel", &["clock"]),
    ("pcie", &["kernel", "device", "clock"]),
    ("nic", &["kernel", "pcie", "device", "simnic-defs", "clock"]),
    ("model-bus", &["device", "clock"]),
    ("ixgbe-model", &["model-bus", "device", "clock", "ixgbe-defs"]),
    ("tester", &["nic", "kernel"]),
    ("lab", &[]),
    ("xtask", &["lab"]),
    ("layering", &["*"]),
    ("e2e", &["*"]),
    ("guest", &["*"]),
    ("models", &["model-bus", "device", "clock", "offload", "rocker-defs", "virtio-net-defs"]),
    ("differential", &["*"]),
    ("fuzz", &["*"]),
    ("bench", &["*"]),
];

/// Crates that must not use an async runtime: time is an argument there, and forwarding cores run no executor.
const NO_ASYNC: &[&str] = &[
    "clock",
    "flow",
    "classifier",
    "conntrack",
    "datapath",
    "datapath-api",
    "device",
    "offload",
    "kernel",
    "pcie",
    "nic",
    "tester",
    "netio",
    "simnic",
    "simnic-defs",
    "rocker",
    "rocker-defs",
    "virtio-net",
    "virtio-net-defs",
    "ixgbe",
    "ixgbe-defs",
    "model-bus",
    "ixgbe-model",
];

/// Crates that may contain `unsafe`, and why.
const MAY_BE_UNSAFE: &[(&str, &str)] = &[
    ("device", "DMA memory, packet buffers, eventfd"),
    ("flow", "sums by vectors of a processor that was found to have them"),
    ("netio", "packet and XDP sockets, their mapped rings, the ring of a memory queue"),
    ("datapath", "the prefetch hint, the time-stamp counter"),
    ("vfio-user", "descriptors that come with a message"),
    ("daemon", "sockets of its own that the runtime is to watch in one direction"),
    ("pci", "mapped registers, VFIO's ioctls, memory given to an IOMMU"),
    ("bench", "time-stamp counter, counting allocator"),
    ("fuzz", "the entry that libFuzzer calls"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn metadata() -> Value {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// Package name to its dependencies of a kind (`None` is an ordinary one).
fn dependencies(meta: &Value, kinds: &[Option<&str>]) -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::new();
    for p in meta["packages"].as_array().unwrap() {
        let deps = p["dependencies"].as_array().unwrap();
        let deps = deps.iter().filter(|d| kinds.contains(&d["kind"].as_str()));
        let deps = deps.map(|d| d["name"].as_str().unwrap().to_string()).collect();
        all.insert(p["name"].as_str().unwrap().to_string(), deps);
    }
    all
}

#[test]
fn dependencies_point_down_the_table() {
    let deps = dependencies(&metadata(), &[None, Some("build")]);
    let ours: BTreeSet<_> = deps.keys().cloned().collect();
    let mut wrong = Vec::new();
    for (name, uses) in &deps {
        let Some((_, may)) = TABLE.iter().find(|(n, _)| n == name) else {
            wrong.push(format!("{name} is not in the table"));
            continue;
        };
        if may.contains(&"*") {
            continue;
        }
        for u in uses.intersection(&ours) {
            if !may.contains(&u.as_str()) {
                wrong.push(format!("{name} must not use {u}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_simulator_never_imports_a_driver() {
    let deps = dependencies(&metadata(), &[None, Some("build"), Some("dev")]);
    for sim in ["kernel", "pcie", "nic", "tester", "model-bus", "ixgbe-model"] {
        let drivers = ["simnic", "ixgbe", "rocker", "virtio-net"];
        assert!(!drivers.iter().any(|d| deps[sim].contains(*d)), "{sim} imports a driver");
        assert!(!deps[sim].contains("offload"), "{sim} imports the offload layer");
    }
}

#[test]
fn no_async_runtime_on_or_below_the_forwarding_path() {
    let deps = dependencies(&metadata(), &[None, Some("build")]);
    for name in NO_ASYNC {
        let bad: Vec<_> =
            deps[*name].iter().filter(|d| d.contains("tokio") || d.contains("async-std")).collect();
        assert!(bad.is_empty(), "{name} uses {bad:?}");
    }
}

fn rust_files(dir: &Path, out: &mut Vec<PathBuf>) {
    for e in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let p = e.path();
        if p.is_dir() {
            if p.file_name().is_none_or(|n| n != "target") {
                rust_files(&p, out);
            }
        } else if p.extension().is_some_and(|x| x == "rs") {
            out.push(p);
        }
    }
}

#[test]
fn unsafe_code_is_allowed_only_where_the_list_says() {
    let meta = metadata();
    let mut wrong = Vec::new();
    for p in meta["packages"].as_array().unwrap() {
        let name = p["name"].as_str().unwrap();
        if MAY_BE_UNSAFE.iter().any(|(n, _)| *n == name) {
            continue;
        }
        let dir = Path::new(p["manifest_path"].as_str().unwrap()).parent().unwrap().join("src");
        let mut files = Vec::new();
        rust_files(&dir, &mut files);
        for f in files {
            let text = std::fs::read_to_string(&f).unwrap();
            if text.contains("allow(unsafe_code)") {
                wrong.push(format!("{} allows unsafe code", f.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_top_folder_has_a_readme_and_nothing_else_stands_there() {
    let root = root();
    for d in ["hal", "offload-tc", "nic-drivers", "softpath", "vswitchd", "sim", "tests"] {
        assert!(root.join(d).join("README.md").is_file(), "{d}/README.md is missing");
    }
    let allowed: BTreeSet<&str> = [
        "hal",
        "offload-tc",
        "nic-drivers",
        "softpath",
        "vswitchd",
        "sim",
        "tests",
        "docs",
        ".cargo",
        ".ci",
        ".git",
        "target",
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        ".gitignore",
        ".rustfmt.toml",
        ".clippy.toml",
    ]
    .into();
    for e in std::fs::read_dir(&root).unwrap().map(Result::unwrap) {
        let n = e.file_name().into_string().unwrap();
        assert!(allowed.contains(n.as_str()), "{n} does not belong at the top");
    }
}

#[test]
fn no_source_file_is_two_things() {
    let mut files = Vec::new();
    rust_files(&root(), &mut files);
    let long: Vec<_> = files
        .iter()
        .map(|f| (f, std::fs::read_to_string(f).unwrap().lines().count()))
        .filter(|(_, n)| *n > 800)
        .collect();
    assert!(long.is_empty(), "split these: {long:#?}");
}
