//! A Linux kernel of its own to run a program in: User Mode Linux of the distribution, a kernel as a process.
//!
//! For what the host's kernel may not have (TC flower, say) or what should not happen to it. The guest's root is the host's, read
//! only: a program built here runs there. Results go to a folder that both see. Needs neither KVM nor root for running, root or
//! the package for installing nothing: the packages are unpacked, not installed.
//!
//! *Not there*: PCI, switchdev, conntrack zones.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::done;
use crate::package::Source;

/// The package with the kernel.
const PACKAGE: &str = "user-mode-linux";
/// The guest's first process.
const INIT: &str = include_str!("init.sh");
/// The guest's memory in MiB unless it is to have more. What is not used is not taken from the host.
const MEMORY_MIB: u32 = 1024;
/// How many pieces of memory a process of the host may map.
const MAP_LIMIT: &str = "/proc/sys/vm/max_map_count";
/// How often it is looked whether the guest has ended.
const LOOK: Duration = Duration::from_millis(50);

/// An unpacked kernel.
pub struct KernelLab {
    dir: PathBuf,
    memory_mib: u32,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// The program's exit status; `None` when the guest ended without leaving one, as after a panic.
    pub status: Option<i32>,
    /// The guest's console: what the program printed, and the kernel.
    pub console: String,
    /// From start to end.
    pub took: Duration,
}

impl KernelLab {
    /// Unpacks the kernel under `dir`, unless it is there.
    ///
    /// # Errors
    /// When the package cannot be had or unpacked.
    pub fn prepare(dir: &Path) -> Result<KernelLab> {
        let lab = KernelLab { dir: dir.to_path_buf(), memory_mib: MEMORY_MIB };
        if lab.linux().is_file() && dir.join("ready").is_file() {
            return Ok(lab);
        }
        let _ = std::fs::remove_dir_all(dir);
        Source::machine().unpack(PACKAGE, dir)?;
        // Where modprobe looks for modules.
        std::fs::create_dir_all(dir.join("lib"))?;
        std::os::unix::fs::symlink("../usr/lib/uml/modules", dir.join("lib/modules"))?;
        let version = lab.version()?;
        done(Command::new("depmod").arg("-b").arg(dir).arg(&version))?;
        std::fs::write(dir.join("ready"), version)?;
        Ok(lab)
    }

    /// The same with so much memory for its guests.
    #[must_use]
    pub fn with_memory(self, memory_mib: u32) -> KernelLab {
        KernelLab { memory_mib, ..self }
    }

    fn linux(&self) -> PathBuf {
        self.dir.join("usr/bin/linux.uml")
    }

    /// The kernel's version.
    ///
    /// # Errors
    /// When it is not as the package has it.
    pub fn version(&self) -> Result<String> {
        let mut all = std::fs::read_dir(self.dir.join("usr/lib/uml/modules"))?;
        let first = all.next().context("no modules")??;
        Ok(first.file_name().to_string_lossy().into_owned())
    }

    /// Runs `program` with `args` in a guest, whose folder for results is `results`, and waits for its end. Lines of the
    /// console go to `seen` as they come.
    ///
    /// # Errors
    /// When the kernel cannot be started, or the program does not end within `limit`; the guest has been ended then.
    pub fn run(
        &self,
        program: &Path,
        args: &[&str],
        results: &Path,
        limit: Duration,
        seen: &mut dyn FnMut(&str),
    ) -> Result<Ended> {
        std::fs::create_dir_all(results)?;
        let results = results.canonicalize()?;
        let status = results.join("status");
        let _ = std::fs::remove_file(&status);
        let init = results.join("init.sh");
        std::fs::write(&init, INIT)?;
        std::fs::set_permissions(&init, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let words =
            std::iter::once(program.display().to_string()).chain(args.iter().map(|a| (*a).to_owned()));
        std::fs::write(results.join("job"), words.map(|w| w + "\n").collect::<String>())?;
        let console = results.join("console");
        let file = std::fs::File::create(&console)?;
        // Its memory is a file that it maps executable.
        let memory = if Path::new("/dev/shm").is_dir() { Path::new("/dev/shm") } else { &results };
        let began = Instant::now();
        let child = Command::new(self.linux())
            .arg(format!("mem={}M", self.memory_mib))
            .args(["rootfstype=hostfs", "rootflags=/", "ro", "con=null", "con0=null,fd:1", "quiet"])
            .arg(format!("init={}", init.display()))
            .arg(format!("HOIST_RESULTS={}", results.display()))
            .arg(format!("HOIST_MODULES={}", self.dir.canonicalize()?.display()))
            .arg(format!("uml_dir={}/uml", results.display()))
            .current_dir(&results)
            .env("TMPDIR", memory)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start the kernel")?;
        let mut guest = Guest(child);
        let mut shown = 0;
        let ended = loop {
            let over = guest.0.try_wait()?.is_some();
            shown = show(&console, shown, seen);
            if over {
                break true;
            }
            if began.elapsed() > limit {
                break false;
            }
            std::thread::sleep(LOOK);
        };
        drop(guest);
        let text = String::from_utf8_lossy(&std::fs::read(&console)?).into_owned();
        if !ended {
            bail!("no end within {} s; the console is in {}", limit.as_secs(), console.display());
        }
        let status = std::fs::read_to_string(&status).ok().and_then(|s| s.trim().parse().ok());
        Ok(Ended { status, console: text, took: began.elapsed() })
    }
}

/// Hands whole lines of `file` from byte `from` on to `seen`; where the rest begins.
fn show(file: &Path, from: usize, seen: &mut dyn FnMut(&str)) -> usize {
    let mut text = Vec::new();
    if std::fs::File::open(file).and_then(|mut f| f.read_to_end(&mut text)).is_err() {
        return from;
    }
    let new = text.get(from..).unwrap_or_default();
    let whole = new.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    String::from_utf8_lossy(&new[..whole]).lines().for_each(|l| seen(l.trim_end()));
    from + whole
}

/// The host's limit on pieces of memory, raised. The guest's processes are processes of the host that map the guest's memory page by
/// page, so that one of more than 65,530 pages, 256 MiB, does not fit into the usual limit. Dropping this puts the old one back.
pub struct MapLimit(Option<String>);

impl MapLimit {
    /// Raises it to what a process of `memory_mib` may need, where this process may; what came of that, for people.
    pub fn raise(memory_mib: u32) -> (MapLimit, String) {
        let wanted = u64::from(memory_mib) * 256 + 65_536;
        let old = std::fs::read_to_string(MAP_LIMIT).unwrap_or_default().trim().to_owned();
        match old.parse::<u64>() {
            Ok(n) if n >= wanted => (MapLimit(None), format!("vm.max_map_count is {n}")),
            _ => match std::fs::write(MAP_LIMIT, wanted.to_string()) {
                Ok(()) => {
                    let said = format!("vm.max_map_count is {wanted} for the run, {old} before and after");
                    (MapLimit(Some(old)), said)
                }
                Err(e) => (MapLimit(None), format!("vm.max_map_count stays {old}: {e}")),
            },
        }
    }
}

impl Drop for MapLimit {
    fn drop(&mut self) {
        if let Some(old) = self.0.take() {
            let _ = std::fs::write(MAP_LIMIT, old);
        }
    }
}

/// A running guest. It has helper processes in its process group, which would outlive it.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        for signal in ["-TERM", "-KILL"] {
            let _ = Command::new("kill").args([signal, "--", &group]).stderr(Stdio::null()).status();
            if signal == "-TERM" {
                std::thread::sleep(LOOK);
            }
        }
        let _ = self.0.wait();
    }
}
