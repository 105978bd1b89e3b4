//! Recorded messages and the stock tool that reads ours.
#![allow(dead_code, clippy::unwrap_used)]

use std::process::Command;

/// The recorded messages, each with the command that made it.
pub fn recorded() -> Vec<(String, Vec<u8>)> {
    let mut command = String::new();
    let mut all = Vec::new();
    for line in include_str!("../golden/ovs-ofctl-3.1.0.txt").lines() {
        if let Some(c) = line.strip_prefix("> ") {
            command = c.to_owned();
        } else if !line.starts_with('#') {
            let bytes = (0..line.len())
                .step_by(2)
                .map(|i| u8::from_str_radix(&line[i..i + 2], 16).unwrap())
                .collect();
            all.push((command.clone(), bytes));
        }
    }
    all
}

/// What stock `ovs-ofctl ofp-print` makes of a message; `None`, said on stderr, when it is not installed.
pub fn ofp_print(message: &[u8]) -> Option<String> {
    let hex: String = message.iter().map(|b| format!("{b:02x}")).collect();
    match Command::new("ovs-ofctl").args(["ofp-print", &hex]).output() {
        Ok(out) => {
            assert!(out.status.success(), "ofp-print {hex}: {}", String::from_utf8_lossy(&out.stderr));
            Some(String::from_utf8_lossy(&out.stdout).trim_end().to_owned())
        }
        Err(e) => {
            eprintln!("SKIPPED: stock ovs-ofctl cannot be run: {e}");
            None
        }
    }
}
