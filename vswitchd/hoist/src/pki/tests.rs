//! The files, by stock openssl and stock ovs-pki.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    pki: Pki,
}

/// Runs `hoist pki` with files under `dir`.
fn pki(dir: &Path, args: &[&str]) -> anyhow::Result<String> {
    let at = dir.join("pki");
    let line = ["pki", "--dir", at.to_str().unwrap()].into_iter().chain(args.iter().copied());
    Line::try_parse_from(line)?.pki.run()
}

fn program(dir: &Path, name: &str, args: &[&str]) -> Output {
    Command::new(name)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{name}: {e} (cargo xtask setup installs it)"))
}

fn succeeds(dir: &Path, name: &str, args: &[&str]) -> String {
    let out = program(dir, name, args);
    assert!(out.status.success(), "{name} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// The path of `name` under `dir` as an argument.
fn under(dir: &Path, name: &str) -> String {
    dir.join(name).to_str().unwrap().to_owned()
}

#[test]
fn stock_openssl_believes_what_we_sign() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    pki(d, &["init"]).unwrap();
    let said = pki(d, &["req+sign", &under(d, "sw")]).unwrap();
    pki(d, &["-u", "-k", "p384", "req+sign", &under(d, "ctl"), "controller"]).unwrap();

    succeeds(d, "openssl", &["verify", "-x509_strict", "-CAfile", "pki/switchca/cacert.pem", "sw-cert.pem"]);
    succeeds(d, "openssl", &["verify", "-CAfile", "pki/controllerca/cacert.pem", "ctl-cert.pem"]);
    assert!(
        !program(d, "openssl", &["verify", "-CAfile", "pki/controllerca/cacert.pem", "sw-cert.pem"])
            .status
            .success()
    );
    assert_eq!(pki(d, &["verify", &under(d, "sw")]).unwrap(), format!("{}: OK\n", under(d, "sw-cert.pem")));
    let e = pki(d, &["verify", &under(d, "sw"), "controller"]).unwrap_err().to_string();
    assert!(e.contains("issued by"), "{e}");

    let text = succeeds(d, "openssl", &["x509", "-in", "ctl-cert.pem", "-noout", "-text"]);
    assert!(text.contains("CN = ctl\n") && text.contains("CA:FALSE") && text.contains("DNS:ctl"), "{text}");
    let subject = succeeds(d, "openssl", &["x509", "-in", "sw-cert.pem", "-noout", "-subject"]);
    assert!(subject.contains("CN = sw id:"), "{subject}");
    for key in ["sw-privkey.pem", "pki/switchca/private/cakey.pem"] {
        assert_eq!(std::fs::metadata(d.join(key)).unwrap().permissions().mode() & 0o777, 0o600, "{key}");
    }
    // The fingerprints are those of ovs-pki.
    let sum = succeeds(d, "sha1sum", &["sw-req.pem"]);
    assert!(said.contains(sum.split_whitespace().next().unwrap()), "{said}");
    let theirs = succeeds(d, "ovs-pki", &["-l", "log", "fingerprint", "sw-cert.pem"]);
    let ours = pki(d, &["fingerprint", &under(d, "sw-cert.pem")]).unwrap();
    assert_eq!(ours.lines().nth(1), theirs.lines().nth(1));
}

#[test]
fn directories_and_requests_of_ovs_pki_are_ours_too_and_the_other_way_round() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    succeeds(d, "ovs-pki", &["-l", "log", "-d", "pki", "init"]);
    succeeds(d, "ovs-pki", &["-l", "log", "-d", "pki", "req", "theirs"]);
    // Their authority and request, our signature.
    pki(d, &["-b", "sign", &under(d, "theirs")]).unwrap();
    succeeds(d, "openssl", &["verify", "-CAfile", "pki/switchca/cacert.pem", "theirs-cert.pem"]);
    pki(d, &["verify", &under(d, "theirs")]).unwrap();
    // Our request, their signature, after ours: the serial numbers go on.
    pki(d, &["req", &under(d, "ours")]).unwrap();
    succeeds(d, "ovs-pki", &["-l", "log", "-d", "pki", "-b", "sign", "ours"]);
    pki(d, &["verify", &under(d, "ours")]).unwrap();
    let serial = |f: &str| succeeds(d, "openssl", &["x509", "-in", f, "-noout", "-serial"]);
    assert_ne!(serial("ours-cert.pem"), serial("theirs-cert.pem"));
}

#[test]
fn self_signed_certificates_are_their_own_authority() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let name = under(d, "alone");
    pki(d, &["req", &name]).unwrap();
    pki(d, &["self-sign", &name]).unwrap();
    succeeds(d, "openssl", &["verify", "-CAfile", "alone-cert.pem", "alone-cert.pem"]);
}

#[test]
fn nothing_is_overwritten_unless_forced() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let e = pki(d, &["req+sign", &under(d, "a")]).unwrap_err().to_string();
    assert!(e.ends_with("pki does not exist (need to run 'init' or use '--dir'?)"), "{e}");
    assert!(!d.join("a-privkey.pem").exists());
    pki(d, &["init"]).unwrap();
    let e = pki(d, &["init"]).unwrap_err().to_string();
    assert!(e.ends_with("pki already exists and --force not specified"), "{e}");
    pki(d, &["req+sign", &under(d, "a")]).unwrap();
    let key = std::fs::read(d.join("a-privkey.pem")).unwrap();
    for command in [&["req+sign"][..], &["req"], &["-b", "sign"], &["self-sign"]] {
        let e = pki(d, &[command, &[&under(d, "a")]].concat()).unwrap_err().to_string();
        assert!(e.ends_with("already exists and --force not specified"), "{command:?}: {e}");
    }
    assert_eq!(std::fs::read(d.join("a-privkey.pem")).unwrap(), key);
    pki(d, &["-f", "req+sign", &under(d, "a")]).unwrap();
    assert_ne!(std::fs::read(d.join("a-privkey.pem")).unwrap(), key);
    let e = pki(d, &["-b", "sign", &under(d, "nobody")]).unwrap_err().to_string();
    assert!(e.ends_with("nobody-req.pem does not exist"), "{e}");
    std::fs::write(d.join("junk-req.pem"), "junk").unwrap();
    let e = pki(d, &["-b", "sign", &under(d, "junk")]).unwrap_err().to_string();
    assert!(e.ends_with("junk-req.pem: not a certificate request that can be signed"), "{e}");
}
