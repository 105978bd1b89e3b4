//! Links in the documents lead somewhere, and functions they name exist.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Text and target of every inline link.
fn links(text: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for (at, _) in text.match_indices("](") {
        let (Some(open), Some(close)) = (text[..at].rfind('['), text[at..].find(')')) else { continue };
        out.push((text[open + 1..at].to_string(), text[at + 2..at + close].to_string()));
    }
    out
}

fn markdown(dir: &Path, out: &mut Vec<PathBuf>) {
    for e in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let p = e.path();
        let name = e.file_name();
        if p.is_dir() && name != "target" && name != ".git" {
            markdown(&p, out);
        } else if p.extension().is_some_and(|x| x == "md") {
            out.push(p);
        }
    }
}

#[test]
fn links_in_documents_lead_to_files() {
    let mut files = Vec::new();
    markdown(&root(), &mut files);
    let mut broken = Vec::new();
    for f in &files {
        let text = std::fs::read_to_string(f).unwrap();
        for (_, target) in links(&text) {
            let path = target.split('#').next().unwrap_or_default();
            if target.contains("://") || path.is_empty() {
                continue;
            }
            if !f.parent().unwrap().join(path).exists() {
                broken.push(format!("{}: {target}", f.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// A link text in code form, `name` or `Type::name`, must be defined in the file it leads to.
#[test]
fn functions_and_types_that_architecture_names_are_where_it_says() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut checked = 0;
    let mut wrong = Vec::new();
    for (label, target) in links(&text) {
        let Some(name) = label.strip_prefix('`').and_then(|l| l.strip_suffix('`')) else { continue };
        if !target.ends_with(".rs") || name.ends_with(".rs") {
            continue;
        }
        let name = name.rsplit("::").next().unwrap();
        let source = std::fs::read_to_string(root().join(&target)).unwrap_or_default();
        let defined = ["fn", "struct", "enum", "trait", "type"].iter().any(|k| {
            source
                .match_indices(&format!("{k} {name}"))
                .any(|(i, m)| !source[i + m.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        });
        if !defined {
            wrong.push(format!("{label} is not in {target}"));
        }
        checked += 1;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(checked > 30, "only {checked} names were checked");
}

/// What a number of the simulator is worth depends on it: each module of the simulated device, its link and their kernel says in its
/// own text which part is cycle-level and which behavioural, or that it is neither.
#[test]
fn every_module_of_the_simulated_device_says_what_of_it_is_cycle_level() {
    let (mut said, mut silent) = (0, Vec::new());
    for part in ["kernel", "pcie", "nic"] {
        for e in std::fs::read_dir(root().join("sim").join(part).join("src")).unwrap().map(Result::unwrap) {
            if e.path().extension().is_none_or(|x| x != "rs") {
                continue;
            }
            let text = std::fs::read_to_string(e.path()).unwrap();
            let about: String = text.lines().take_while(|l| l.starts_with("//!")).collect();
            let about = about.to_lowercase();
            if about.contains("cycle-level") || about.contains("behavioural") {
                said += 1;
            } else {
                silent.push(e.path());
            }
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
    assert!(said > 60, "only {said} modules were looked at");
}
