//! A suite in a folder of the caller's: one that has been generated, or .at files from which one is generated.
//!
//! Autotest's script reads two files from the folder that it runs in: `atconfig`, which says where sources and builds are,
//! and `atlocal`, which is shell and probes for tools. Of a generated suite they are taken as they are; for a checkout they
//! are made from its `tests/atlocal.in`. Nothing is written to the caller's folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::groups::{Groups, parse_list};
use crate::setup::has;

/// A suite that can be run.
pub struct Suite {
    /// The shell script.
    pub script: PathBuf,
    /// Contents of its `atconfig`.
    pub atconfig: String,
    /// Contents of its `atlocal`.
    pub atlocal: String,
    /// Folders with the suite's own helper programs.
    pub helpers: Vec<PathBuf>,
    /// What is in it.
    pub groups: Groups,
    /// What is not there, and what follows from that.
    pub missing: Vec<String>,
}

/// Programs that the suite's own build makes, and the groups that ask for them.
const BUILT_HELPERS: &[(&str, &str)] =
    &[("ovstest", "groups that print or parse in C"), ("test-ovsdb", "ovsdb-idl.at's groups in C")];

/// Scripts of the suite that are run by their bare names.
const SCRIPTS: &[&str] = &["test-dpparse.py", "test-ofparse.py", "appctl.py"];

impl Suite {
    /// The suite in `dir`; what is generated goes to `scratch`. `helpers` has programs that the suite's own build makes.
    ///
    /// # Errors
    /// When there is neither a generated suite nor .at files, or generating fails.
    pub fn find(dir: &Path, helpers: Option<&Path>, scratch: &Path) -> Result<Suite> {
        let dir = dir.canonicalize().with_context(|| format!("{}: no such folder", dir.display()))?;
        let mut suite = [dir.clone(), dir.join("tests")]
            .iter()
            .find(|d| d.join("testsuite").is_file() && d.join("atconfig").is_file())
            .map_or_else(|| Suite::generate(&dir, scratch), |d| Suite::generated(d))?;
        if let Some(h) = helpers {
            suite
                .helpers
                .insert(0, h.canonicalize().with_context(|| format!("{}: no such folder", h.display()))?);
        }
        for (program, who) in BUILT_HELPERS {
            if !has(program) && !suite.helpers.iter().any(|d| d.join(program).is_file()) {
                suite.missing.push(format!(
                    "{program} (the suite's own build makes it; name its folder with --helpers): {who} will fail"
                ));
            }
        }
        Ok(suite)
    }

    fn generated(dir: &Path) -> Result<Suite> {
        let read = |name: &str| {
            fs::read_to_string(dir.join(name)).with_context(|| format!("{}/{name}", dir.display()))
        };
        // The run has a folder of its own, so that what is relative to the script's folder would lead elsewhere.
        let absolute = "at_srcdir=$abs_srcdir\nat_top_srcdir=$abs_top_srcdir\n\
                        at_top_build_prefix=$abs_top_builddir/\nat_top_builddir=$at_top_build_prefix\n";
        let atconfig = format!("{}\n{absolute}", read("atconfig")?);
        let atlocal = read("atlocal")?;
        let script = dir.join("testsuite");
        let groups = list(&script, dir)?;
        Ok(Suite { script, atconfig, atlocal, helpers: vec![dir.to_owned()], groups, missing: Vec::new() })
    }

    fn generate(dir: &Path, scratch: &Path) -> Result<Suite> {
        let tests =
            [dir.join("tests"), dir.to_owned()].into_iter().find(|d| d.join("testsuite.at").is_file());
        let Some(tests) = tests else {
            bail!(
                "{}: neither a generated suite (testsuite with atconfig and atlocal) nor .at files (testsuite.at)",
                dir.display()
            );
        };
        let root = match tests.parent() {
            Some(p) if tests.ends_with("tests") => p.to_owned(),
            _ => bail!(
                "{}: its files include each other as tests/NAME.at: the folder must be named tests",
                tests.display()
            ),
        };
        for (program, package) in [("autom4te", "autoconf"), ("m4", "m4")] {
            if !has(program) {
                bail!("{program} is missing, which makes the suite's script: apt-get install {package}");
            }
        }
        let mut missing = Vec::new();
        let build = scratch.join("build");
        let _ = fs::remove_dir_all(&build);
        let build_tests = build.join("tests");
        fs::create_dir_all(&build_tests)?;
        fs::write(build_tests.join("package.m4"), package(&root))?;
        let script = build_tests.join("testsuite");
        eprintln!("generating {} from {}", script.display(), tests.display());
        let out = Command::new("autom4te")
            .args(["--language=autotest", "-I"])
            .arg(&build_tests)
            .arg("-I")
            .arg(&root)
            .arg("-o")
            .arg(&script)
            .arg(tests.join("testsuite.at"))
            .current_dir(&build)
            .stdin(Stdio::null())
            .output()
            .context("cannot start autom4te")?;
        if !out.status.success() {
            bail!("autom4te failed: {}", String::from_utf8_lossy(&out.stderr).trim());
        }
        for file in ["vswitchd/vswitch.ovsschema", "utilities/ovs-pki.in", "python/ovs"] {
            if !root.join(file).exists() {
                missing.push(format!("{}: groups that read it will fail", root.join(file).display()));
            }
        }
        certificates(&root, &build_tests, &mut missing);
        let helpers = scripts(&tests, &build)?;
        let groups = list(&script, &build_tests)?;
        Ok(Suite {
            script,
            atconfig: atconfig(&root, &build),
            atlocal: atlocal(&tests, &mut missing)?,
            // Completion for shells is tested where its sources are.
            helpers: vec![helpers, build_tests, tests, root.join("utilities")],
            groups,
            missing,
        })
    }
}

/// The groups that `script` says it has.
fn list(script: &Path, dir: &Path) -> Result<Groups> {
    let out = Command::new("sh")
        .arg(script)
        .arg("--list")
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .context("cannot start sh")?;
    let groups = parse_list(&String::from_utf8_lossy(&out.stdout));
    if groups.is_empty() {
        bail!("{} --list names no groups: {}", script.display(), String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(groups)
}

/// What autotest wants to know of the package.
fn package(root: &Path) -> String {
    let configure = fs::read_to_string(root.join("configure.ac")).unwrap_or_default();
    let version = configure
        .lines()
        .find_map(|l| l.strip_prefix("AC_INIT(")?.split(',').nth(1))
        .map_or("unknown", |v| v.trim().trim_matches(['[', ']']));
    [
        ("NAME", "the suite's package"),
        ("TARNAME", "suite"),
        ("VERSION", version),
        ("STRING", version),
        ("URL", ""),
        ("BUGREPORT", "whoever wrote the suite"),
    ]
    .map(|(k, v)| format!("m4_define([AT_PACKAGE_{k}], [{v}])\n"))
    .concat()
}

fn atconfig(root: &Path, build: &Path) -> String {
    let (root, build) = (root.display(), build.display());
    format!(
        "at_testdir='tests'\nabs_builddir='{build}/tests'\nat_srcdir='{root}/tests'\nabs_srcdir='{root}/tests'\n\
         at_top_srcdir='{root}'\nabs_top_srcdir='{root}'\nat_top_build_prefix='{build}/'\nabs_top_builddir='{build}'\n\
         at_top_builddir=$at_top_build_prefix\nEXEEXT=''\n"
    )
}

/// `atlocal` from the checkout's `atlocal.in`, with what a configure script would have found out.
fn atlocal(tests: &Path, missing: &mut Vec<String>) -> Result<String> {
    let file = tests.join("atlocal.in");
    let mut text = fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
    let python = python_with_ovs();
    if python.is_none() {
        missing.push(
            "the Python package ovs (apt-get install python3-openvswitch): groups in Python will fail".into(),
        );
    }
    let (python, package) = python.unwrap_or_else(|| ("python3".into(), String::new()));
    let yes_no = |b: bool| if b { "yes" } else { "no" }.to_owned();
    let values = [
        ("HAVE_OPENSSL", yes_no(has("openssl"))),
        ("OPENSSL_SUPPORTS_SNI", yes_no(has("openssl"))),
        ("HAVE_UNBOUND", "yes".into()),
        ("EGREP", "grep -E".into()),
        ("PYTHON3", python),
        ("CFLAGS", String::new()),
    ];
    for (name, value) in values {
        text = text.replace(&format!("@{name}@"), &value);
    }
    // The checkout's own package lacks the modules that its build would make: the installed one is used.
    Ok(format!("{text}\nPYTHONPATH={package}\nexport PYTHONPATH\n"))
}

/// A Python that has the package `ovs`, and the folder that the package is in.
fn python_with_ovs() -> Option<(String, String)> {
    let ask = "import os, ovs.dirs; print(os.path.dirname(os.path.dirname(ovs.dirs.__file__)))";
    ["python3", "/usr/bin/python3"].into_iter().find_map(|p| {
        let out = Command::new(p).args(["-c", ask]).stdin(Stdio::null()).output().ok()?;
        let dir = String::from_utf8(out.stdout).ok()?.trim().to_owned();
        (out.status.success() && !dir.is_empty()).then(|| (p.to_owned(), dir))
    })
}

/// The certificates that a build makes for groups with TLS, by the checkout's own script.
fn certificates(root: &Path, build_tests: &Path, missing: &mut Vec<String>) {
    let pki = |args: &[&str]| {
        Command::new("sh")
            .arg(root.join("utilities/ovs-pki.in"))
            .args(["--dir=pki", "--log=ovs-pki.log"])
            .args(args)
            .current_dir(build_tests)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    let made =
        has("openssl") && pki(&["init"]) && pki(&["req+sign", "pki/test"]) && pki(&["req+sign", "pki/test2"]);
    let dir = build_tests.join("pki");
    let copies = [
        ("switchca/cacert.pem", "cacert.pem"),
        ("test-cert.pem", "cert.pem"),
        ("test-req.pem", "req.pem"),
        ("test-privkey.pem", "privkey.pem"),
        ("test2-cert.pem", "cert2.pem"),
        ("test2-req.pem", "req2.pem"),
        ("test2-privkey.pem", "privkey2.pem"),
    ];
    let copied = copies
        .iter()
        .all(|(from, to)| fs::copy(dir.join(from), build_tests.join(format!("testpki-{to}"))).is_ok());
    if !(made && copied) {
        missing.push(
            "certificates (openssl, and utilities/ovs-pki.in of the checkout): groups with TLS will fail"
                .into(),
        );
    }
}

/// Copies of the scripts that are run by name: a checkout has them without the right to be executed.
fn scripts(tests: &Path, build: &Path) -> Result<PathBuf> {
    let dir = build.join("scripts");
    fs::create_dir_all(&dir)?;
    for name in SCRIPTS.iter().filter(|n| tests.join(n).is_file()) {
        let to = dir.join(name);
        fs::copy(tests.join(name), &to)?;
        fs::set_permissions(&to, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    Ok(dir)
}
