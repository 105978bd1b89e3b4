//! Packages of the distribution, downloaded and unpacked into a folder instead of installed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::done;

/// Unpacks package `name` into `dir`, which is made if it is not there.
///
/// # Errors
/// When it cannot be had or unpacked.
pub fn unpack(name: &str, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let into = dir.join("download");
    let _ = std::fs::remove_dir_all(&into);
    std::fs::create_dir(&into).with_context(|| into.display().to_string())?;
    // As this user, into a folder that the sandbox of apt could not write to.
    let user = format!("APT::Sandbox::User={}", user());
    let download =
        || done(Command::new("apt-get").current_dir(&into).args(["download", "-qq", "-o", &user, name]));
    if download().is_err() {
        // The lists may name a version that is gone.
        done(Command::new("apt-get").args(["update", "-q"]))?;
        download()?;
    }
    let deb = std::fs::read_dir(&into)?
        .filter_map(|e| Some(e.ok()?.path()))
        .find(|p| p.extension().is_some_and(|x| x == "deb"))
        .with_context(|| format!("apt-get downloaded no {name}"))?;
    done(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(dir))?;
    std::fs::remove_dir_all(&into)?;
    Ok(())
}

/// The package that metapackage `meta` depends on and whose name begins with `prefix`.
///
/// # Errors
/// When apt knows of none.
pub fn depended_on(meta: &str, prefix: &str) -> Result<String> {
    let find = || -> Result<Option<String>> {
        let o = done(Command::new("apt-cache").args(["depends", "--no-recommends", "--no-suggests", meta]))?;
        let text = String::from_utf8_lossy(&o.stdout).into_owned();
        let names = text.lines().filter_map(|l| l.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).find(|n| n.starts_with(prefix)))
    };
    if let Ok(Some(name)) = find() {
        return Ok(name);
    }
    done(Command::new("apt-get").args(["update", "-q"]))?;
    find()?.with_context(|| format!("{meta} depends on nothing that begins with {prefix}"))
}

fn user() -> String {
    let o = Command::new("id").arg("-un").output();
    o.map_or_else(|_| "root".into(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
}
