//! Packages of the distribution, downloaded and unpacked into a folder instead of installed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::done;

/// Where packages are had from.
#[derive(Debug, Default)]
pub struct Source {
    /// Options of apt's programs.
    options: Vec<String>,
}

impl Source {
    /// What apt of this machine is set up with.
    pub fn machine() -> Source {
        Source::default()
    }

    /// Another suite of Debian's, with lists of its own under `dir`: what apt of this machine is set up with stays as it is.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn suite(name: &str, dir: &Path) -> Result<Source> {
        let write = || -> std::io::Result<()> {
            for d in ["sources", "lists/partial", "cache/archives/partial"] {
                std::fs::create_dir_all(dir.join(d))?;
            }
            let text = format!(
                "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: {name}\nComponents: main\n\
                 Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
            );
            std::fs::write(dir.join("sources/suite.sources"), text)
        };
        write().with_context(|| dir.display().to_string())?;
        let dir = dir.canonicalize()?;
        let at = |option: &str, d: &str| format!("{option}={}", dir.join(d).display());
        let options = vec![
            "Dir::Etc::sourcelist=/dev/null".to_owned(),
            at("Dir::Etc::sourceparts", "sources"),
            at("Dir::State::lists", "lists"),
            at("Dir::Cache", "cache"),
            "Acquire::Languages=none".to_owned(),
        ];
        Ok(Source { options })
    }

    fn apt(&self, program: &str) -> Command {
        let mut c = Command::new(program);
        c.args(self.options.iter().flat_map(|o| ["-o", o]));
        // As this user, into folders that the sandbox of apt could not write to.
        c.args(["-o", &format!("APT::Sandbox::User={}", user())]);
        c
    }

    fn update(&self) -> Result<()> {
        done(self.apt("apt-get").args(["update", "-q"])).map(drop)
    }

    /// Unpacks package `name` into `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// When it cannot be had or unpacked.
    pub fn unpack(&self, name: &str, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let into = dir.join("download");
        let _ = std::fs::remove_dir_all(&into);
        std::fs::create_dir(&into).with_context(|| into.display().to_string())?;
        let download = || done(self.apt("apt-get").current_dir(&into).args(["download", "-qq", name]));
        if download().is_err() {
            // The lists may name a version that is gone.
            self.update()?;
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

    /// The packages that `package` depends on, as far as apt's lists go.
    ///
    /// # Errors
    /// When apt does not know it.
    pub fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let args = ["depends", "--no-recommends", "--no-suggests", package];
        let o = done(self.apt("apt-cache").args(args))?;
        let text = String::from_utf8_lossy(&o.stdout).into_owned();
        Ok(text.lines().filter_map(|l| l.trim().strip_prefix("Depends: ")).map(str::to_owned).collect())
    }

    /// The package that metapackage `meta` depends on and whose name begins with `prefix`.
    ///
    /// # Errors
    /// When apt knows of none.
    pub fn depended_on(&self, meta: &str, prefix: &str) -> Result<String> {
        let find = || -> Result<Option<String>> {
            Ok(self.dependencies(meta)?.into_iter().find(|n| n.starts_with(prefix)))
        };
        if let Ok(Some(name)) = find() {
            return Ok(name);
        }
        self.update()?;
        find()?.with_context(|| format!("{meta} depends on nothing that begins with {prefix}"))
    }
}

fn user() -> String {
    let o = Command::new("id").arg("-un").output();
    o.map_or_else(|_| "root".into(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
}
