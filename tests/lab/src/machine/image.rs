//! What the machine boots: a kernel of the distribution, and an image in memory with busybox and the modules for its root.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::done;
use crate::package::Source;

/// The package that names the newest kernel.
const META: &str = "linux-image-amd64";
const KERNEL_PREFIX: &str = "linux-image-";
const BUSYBOX: &str = "busybox-static";
/// The machine's first process.
const INIT: &str = include_str!("init.sh");
/// Modules without which it has neither root nor host.
const MODULES: &[&str] = &["virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_console"];
/// Folders of the image, each behind its parent.
const FOLDERS: &[&str] = &["bin", "dev", "proc", "sys", "host", "over", "new", "lib", "lib/modules"];

/// Which kernel is booted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Kernel {
    /// That of the distribution that this is.
    #[default]
    Distribution,
    /// That of another suite of Debian's.
    Suite(String),
    /// One that the caller has built, in a folder with `lib/modules/VERSION`, as `make modules_install INSTALL_MOD_PATH=FOLDER` makes
    /// it, and `boot/vmlinuz-VERSION` or `lib/modules/VERSION/vmlinuz`. What of [`MODULES`] is a module is loaded, the rest has to be
    /// built in.
    Built(PathBuf),
}

impl Kernel {
    /// Name of the folder for a machine that boots it.
    pub fn folder(&self) -> String {
        match self {
            Kernel::Distribution => "machine".into(),
            Kernel::Suite(s) => format!("machine-{s}"),
            Kernel::Built(_) => "machine-built".into(),
        }
    }
}

/// Kernel and image.
#[derive(Clone, Debug)]
pub(super) struct Boot {
    dir: PathBuf,
    version: String,
}

impl Boot {
    /// Has them under `dir`, unless they are there.
    pub(super) fn prepare(dir: &Path, kernel: &Kernel) -> Result<Boot> {
        let source = match kernel {
            Kernel::Built(folder) => return Boot::of_built(dir, folder),
            Kernel::Distribution => None,
            Kernel::Suite(s) => Some(s),
        };
        let ready = dir.join("ready");
        if let Ok(version) = std::fs::read_to_string(&ready) {
            let boot = Boot { dir: dir.to_path_buf(), version };
            if boot.kernel().is_file() {
                // Its first process may be another one by now.
                boot.write_image()?;
                return Ok(boot);
            }
        }
        let _ = std::fs::remove_dir_all(dir);
        let machine = Source::machine();
        let source = match source {
            None => Source::machine(),
            Some(s) => Source::suite(s, &dir.join("suite"))?,
        };
        let package = source.depended_on(META, KERNEL_PREFIX)?;
        let version = package.trim_start_matches(KERNEL_PREFIX).to_owned();
        source.unpack(&package, dir)?;
        // Newer ones are in several packages of the same version.
        for part in source.dependencies(&package)? {
            if part.starts_with("linux-") && part.ends_with(&version) {
                source.unpack(&part, dir)?;
            }
        }
        machine.unpack(BUSYBOX, dir)?;
        if !dir.join("lib").exists() {
            std::os::unix::fs::symlink("usr/lib", dir.join("lib"))?;
        }
        done(Command::new("depmod").arg("-b").arg(dir).arg(&version))?;
        let boot = Boot { dir: dir.to_path_buf(), version };
        boot.write_image()?;
        std::fs::write(&ready, &boot.version)?;
        Ok(boot)
    }

    /// That of a kernel in the caller's `folder`, which stays as it is.
    fn of_built(dir: &Path, folder: &Path) -> Result<Boot> {
        let folder = folder.canonicalize().with_context(|| folder.display().to_string())?;
        let modules = folder.join("lib/modules");
        let versions = std::fs::read_dir(&modules).with_context(|| modules.display().to_string())?;
        let mut versions: Vec<_> = versions.filter_map(|v| v.ok()?.file_name().into_string().ok()).collect();
        let version = versions.pop().filter(|_| versions.is_empty());
        let version = version.with_context(|| {
            format!("{} is to have one kernel's modules, a folder VERSION", modules.display())
        })?;
        let _ = std::fs::remove_dir_all(dir);
        Source::machine().unpack(BUSYBOX, dir)?;
        for part in ["lib", "boot"] {
            let at = dir.join(part);
            let _ = std::fs::remove_dir_all(&at);
            std::os::unix::fs::symlink(folder.join(part), &at)?;
        }
        let boot = Boot { dir: dir.to_path_buf(), version };
        let kernel = boot.kernel();
        anyhow::ensure!(kernel.is_file(), "there is no kernel {}", kernel.display());
        boot.write_image()?;
        Ok(boot)
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    pub(super) fn kernel(&self) -> PathBuf {
        let own = self.modules().join(&self.version).join("vmlinuz");
        if own.is_file() { own } else { self.dir.join("boot").join(format!("vmlinuz-{}", self.version)) }
    }

    pub(super) fn image(&self) -> PathBuf {
        self.dir.join("image")
    }

    /// What was unpacked.
    pub(super) fn root(&self) -> &Path {
        &self.dir
    }

    /// Where the modules are, by version.
    pub(super) fn modules(&self) -> PathBuf {
        self.dir.join("lib/modules")
    }

    /// Files of [`MODULES`] and of what they need.
    fn module_files(&self) -> Result<BTreeSet<PathBuf>> {
        let mut files = BTreeSet::new();
        for m in MODULES {
            let mut c = Command::new("modprobe");
            c.arg("-d").arg(&self.dir).args(["-S", &self.version, "--show-depends", m]);
            let o = done(&mut c)?;
            let text = String::from_utf8_lossy(&o.stdout).into_owned();
            files.extend(
                text.lines().filter_map(|l| l.strip_prefix("insmod ")).map(|f| PathBuf::from(f.trim())),
            );
        }
        Ok(files)
    }

    fn write_image(&self) -> Result<()> {
        let mut image = Archive::default();
        for f in FOLDERS {
            image.folder(f);
        }
        let busybox =
            ["bin/busybox", "usr/bin/busybox"].iter().map(|p| self.dir.join(p)).find(|p| p.is_file());
        let busybox = busybox.with_context(|| format!("{BUSYBOX} has no busybox"))?;
        image.file("bin/busybox", &read(&busybox)?);
        let names = done(Command::new(&busybox).arg("--list"))?;
        for name in String::from_utf8_lossy(&names.stdout).lines().filter(|n| *n != "busybox") {
            image.link(&format!("bin/{name}"), "busybox");
        }
        image.file("init", INIT.as_bytes());
        // All in one folder: the list of dependencies names them so.
        let folder = format!("lib/modules/{}", self.version);
        image.folder(&folder);
        let mut named = Vec::new();
        for f in self.module_files()? {
            let name = f.file_name().context("a module without a name")?.to_string_lossy().into_owned();
            let (name, bytes) = plain(&f, &name)?;
            image.file(&format!("{folder}/{name}"), &bytes);
            named.push((f, name));
        }
        image.file(&format!("{folder}/modules.dep"), self.dependencies(&named)?.as_bytes());
        let new = self.dir.join("image.new");
        std::fs::write(&new, image.end())?;
        std::fs::rename(&new, self.image()).context("cannot put the boot image in place")
    }

    /// `modules.dep` for the modules of the image: what each needs, as the kernel's own list has it.
    fn dependencies(&self, named: &[(PathBuf, String)]) -> Result<String> {
        let list = self.modules().join(&self.version).join("modules.dep");
        // A kernel with all of them built in has none.
        let all = if named.is_empty() { String::new() } else { read_text(&list)? };
        let short = |path: &str| {
            let file = Path::new(path).file_name()?;
            named.iter().find(|(f, _)| f.file_name() == Some(file)).map(|(_, n)| n.clone())
        };
        let mut out = String::new();
        for line in all.lines() {
            let Some((module, needs)) = line.split_once(':') else { continue };
            if let Some(m) = short(module) {
                let needs: Vec<_> = needs.split_whitespace().filter_map(short).collect();
                out += &format!("{m}: {}\n", needs.join(" "));
            }
        }
        Ok(out)
    }
}

fn read_text(p: &Path) -> Result<String> {
    std::fs::read_to_string(p).with_context(|| p.display().to_string())
}

fn read(p: &Path) -> Result<Vec<u8>> {
    std::fs::read(p).with_context(|| p.display().to_string())
}

/// A module's bytes, uncompressed, and its name then.
fn plain(file: &Path, name: &str) -> Result<(String, Vec<u8>)> {
    for (end, program) in [(".xz", "xz"), (".zst", "zstd"), (".gz", "gzip")] {
        if let Some(short) = name.strip_suffix(end) {
            return Ok((short.to_owned(), done(Command::new(program).arg("-dc").arg(file))?.stdout));
        }
    }
    Ok((name.to_owned(), read(file)?))
}

/// A cpio archive in the format that kernels unpack (`newc`): for each file a header of hexadecimal numbers, its name and its
/// bytes, each padded to four.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    files: u32,
}

impl Archive {
    fn entry(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.files += 1;
        let links = 1;
        // ino, mode, uid, gid, nlink, mtime, filesize, device and rdev (major, minor), namesize, check
        let fields =
            [self.files, mode, 0, 0, links, 0, data.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        self.bytes.extend(b"070701");
        for f in fields {
            self.bytes.extend(format!("{f:08x}").bytes());
        }
        self.bytes.extend(name.bytes().chain([0]));
        self.pad();
        self.bytes.extend(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn folder(&mut self, name: &str) {
        self.entry(name, 0o40755, &[]);
    }

    fn file(&mut self, name: &str, data: &[u8]) {
        self.entry(name, 0o100_755, data);
    }

    fn link(&mut self, name: &str, to: &str) {
        self.entry(name, 0o120_777, to.as_bytes());
    }

    fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_headers_and_padding_where_the_kernel_looks() {
        let mut a = Archive::default();
        a.file("init", b"hello");
        let b = a.end();
        assert_eq!(&b[..14], b"07070100000001");
        assert_eq!(&b[14..22], b"000081ed", "a regular file that may be executed");
        assert_eq!(&b[54..62], b"00000005", "its bytes");
        assert_eq!(&b[94..102], b"00000005", "its name and a zero");
        assert_eq!(&b[110..115], b"init\0");
        assert_eq!(&b[116..121], b"hello");
        assert_eq!(&b[124..130], b"070701");
        assert!(b.len().is_multiple_of(4));
    }
}
