//! TLS streams: who is believed, bootstrap, renewed files, and stock Open vSwitch at the other end.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use daemon::address::{Active, Passive};
use daemon::jsonrpc::{Connection, Limits, Message};
use daemon::{Listener, Stream, StreamError, Tls, TlsError, TlsFiles, Trust, connect_with};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SOON: Duration = Duration::from_secs(20);

/// A certificate authority with its file in a directory.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
}

fn authority(dir: &Path, name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("{name} authority"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let file = dir.join(format!("{name}-ca.pem"));
    std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
    Authority { issuer: Issuer::new(params, key), file }
}

/// Key and certificate files for `name`, signed by `by`.
fn identity(dir: &Path, name: &str, by: &Authority, trust: Trust) -> TlsFiles {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let (k, c) = (dir.join(format!("{name}-privkey.pem")), dir.join(format!("{name}-cert.pem")));
    std::fs::write(&k, key.serialize_pem()).unwrap();
    std::fs::write(&c, params.signed_by(&key, &by.issuer).unwrap().pem()).unwrap();
    TlsFiles { private_key: Some(k), certificate: Some(c), trust, peer_ca: None }
}

async fn listener(tls: &Tls) -> (Listener, Active) {
    let on: Passive = "pssl:0:127.0.0.1".parse().unwrap();
    let l = Listener::bind_with(&on, 0, Some(tls)).await.unwrap();
    let to = Active::Ssl { host: "127.0.0.1".into(), port: l.tcp_port() };
    (l, to)
}

async fn accept(l: &Listener) -> Stream {
    tokio::time::timeout(SOON, l.accept()).await.unwrap().unwrap().0
}

#[tokio::test]
async fn both_sides_know_each_other_by_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path(), "one");
    let trust = Trust::File(ca.file.clone());
    let server = Tls::new(identity(dir.path(), "the-server", &ca, trust.clone()));
    let client = Tls::new(identity(dir.path(), "the-client", &ca, trust));
    let (l, to) = listener(&server).await;
    let (c, s) = tokio::join!(connect_with(&to, 0, SOON, Some(&client)), accept(&l));
    let (mut c, mut s) = (c.unwrap(), s);
    assert_eq!(c.peer_common_name(), Some("the-server"));
    assert_eq!(s.peer_common_name(), Some("the-client"));
    // More than the socket and the TLS layer buffer, in both directions, without a flush.
    let sent: Vec<u8> = (0..4_000_000u32).map(|i| (i % 251) as u8).collect();
    let there = async {
        c.write_all(&sent).await.unwrap();
        let mut back = vec![0; sent.len()];
        c.read_exact(&mut back).await.unwrap();
        assert!(back == sent);
        drop(c);
    };
    let back = async {
        let mut got = vec![0; sent.len()];
        s.read_exact(&mut got).await.unwrap();
        s.write_all(&got).await.unwrap();
        assert_eq!(s.read(&mut got).await.unwrap(), 0, "the end comes without a closing alert");
    };
    tokio::time::timeout(SOON, async { tokio::join!(there, back) }).await.unwrap();
}

#[tokio::test]
async fn strangers_are_refused_on_either_side() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (authority(dir.path(), "ours"), authority(dir.path(), "theirs"));
    let server = Tls::new(identity(dir.path(), "server", &ours, Trust::File(ours.file.clone())));
    let (l, to) = listener(&server).await;
    // The client does not believe the server.
    let wary = Tls::new(identity(dir.path(), "wary", &ours, Trust::File(theirs.file.clone())));
    let e = connect_with(&to, 0, SOON, Some(&wary)).await.unwrap_err();
    assert!(matches!(&e, StreamError::Handshake { .. }) && e.to_string().contains("UnknownIssuer"), "{e}");
    // The server does not believe the client: with TLS 1.3 the client hears of it when it reads.
    let stranger = Tls::new(identity(dir.path(), "stranger", &theirs, Trust::File(ours.file.clone())));
    if let Ok(mut s) = connect_with(&to, 0, SOON, Some(&stranger)).await {
        let heard = tokio::time::timeout(SOON, s.read(&mut [0; 1])).await.unwrap();
        assert!(heard.is_err(), "{heard:?}");
    }
    // Neither reaches the caller of accept, and the next good one does.
    let good = Tls::new(identity(dir.path(), "good", &ours, Trust::File(ours.file.clone())));
    let (c, s) = tokio::join!(connect_with(&to, 0, SOON, Some(&good)), accept(&l));
    c.unwrap();
    assert_eq!(s.peer_common_name(), Some("good"));
}

#[tokio::test]
async fn a_peer_that_says_nothing_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path(), "one");
    let tls = Tls::new(identity(dir.path(), "both", &ca, Trust::File(ca.file.clone())));
    let (l, to) = listener(&tls).await;
    let _silent = tokio::net::TcpStream::connect(("127.0.0.1", l.tcp_port().unwrap())).await.unwrap();
    let (c, _s) = tokio::join!(connect_with(&to, 0, SOON, Some(&tls)), accept(&l));
    c.unwrap();
}

#[tokio::test]
async fn the_first_peer_bootstraps_and_the_next_must_match() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (authority(dir.path(), "ours"), authority(dir.path(), "theirs"));
    let server = Tls::new(identity(dir.path(), "server", &ours, Trust::File(ours.file.clone())));
    let file = dir.path().join("learned.pem");
    let client = Tls::new(identity(dir.path(), "client", &ours, Trust::Bootstrap(file.clone())));
    let (l, to) = listener(&server).await;
    let (c, s) = tokio::join!(connect_with(&to, 0, SOON, Some(&client)), async {
        // The first connection is only for the certificate.
        let _first = accept(&l).await;
        accept(&l).await
    });
    c.unwrap();
    assert_eq!(s.peer_common_name(), Some("client"));
    let read = |p: &Path| std::fs::read_to_string(p).unwrap().replace("\r\n", "\n");
    assert_eq!(read(&file), read(&ours.file), "the authority's certificate");
    let other = Tls::new(identity(dir.path(), "other", &theirs, Trust::File(theirs.file.clone())));
    let (_l, to) = listener(&other).await;
    let e = connect_with(&to, 0, SOON, Some(&client)).await.unwrap_err();
    assert!(matches!(e, StreamError::Handshake { .. }), "{e}");
}

#[tokio::test]
async fn renewed_files_are_used_and_broken_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path(), "one");
    let trust = Trust::File(ca.file.clone());
    let files = identity(dir.path(), "server", &ca, trust.clone());
    let server = Tls::new(files.clone());
    let client = Tls::new(identity(dir.path(), "client", &ca, trust.clone()));
    let (l, to) = listener(&server).await;
    let name = async || {
        let (c, _s) = tokio::join!(connect_with(&to, 0, SOON, Some(&client)), accept(&l));
        c.unwrap().peer_common_name().unwrap().to_owned()
    };
    assert_eq!(name().await, "server");
    // The certificate of another key: the old pair stays in force.
    let renewed = identity(dir.path(), "renewed", &ca, trust);
    std::fs::copy(renewed.certificate.unwrap(), files.certificate.as_ref().unwrap()).unwrap();
    assert_eq!(name().await, "server");
    std::fs::copy(renewed.private_key.unwrap(), files.private_key.as_ref().unwrap()).unwrap();
    assert_eq!(name().await, "renewed");
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path(), "one");
    let good = identity(dir.path(), "a", &ca, Trust::File(ca.file.clone()));
    let other = identity(dir.path(), "b", &ca, Trust::Unset);
    let words = |f: TlsFiles| Tls::new(f).check().unwrap_err();
    Tls::new(good.clone()).check().unwrap();
    let e = words(TlsFiles { private_key: None, ..good.clone() });
    assert_eq!(e.to_string(), "a private key must be configured to use TLS (--private-key)");
    let e = words(TlsFiles { trust: Trust::Unset, ..good.clone() });
    assert!(matches!(e, TlsError::Unset { .. }), "{e}");
    let e = words(TlsFiles { certificate: Some("/no/such/file".into()), ..good.clone() });
    assert!(e.to_string().starts_with("/no/such/file: No such file"), "{e}");
    let e = words(TlsFiles { private_key: good.certificate.clone(), ..good.clone() });
    assert!(matches!(&e, TlsError::Pem { what: "private key", .. }), "{e}");
    let e = words(TlsFiles { certificate: good.private_key.clone(), ..good.clone() });
    assert!(matches!(&e, TlsError::Pem { what: "certificate", .. }), "{e}");
    let e = words(TlsFiles { private_key: other.private_key, ..good });
    assert!(matches!(&e, TlsError::Mismatch { .. }), "{e}");
}

/// A program that is ended when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ran(program: &str, args: &[&str], dir: &Path) -> String {
    let out = Command::new(program)
        .args(args)
        .current_dir(dir)
        .env("OVS_RUNDIR", dir)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e} (cargo xtask setup installs it)"));
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {args:?}: {err}");
    String::from_utf8(out.stdout).unwrap()
}

/// Certificates as stock ovs-pki makes them: `server` by the controllers' authority, `client` by the switches'.
fn stock_pki(dir: &Path) {
    ran("ovs-pki", &["-l", "pki.log", "-d", "pki", "init"], dir);
    ran("ovs-pki", &["-l", "pki.log", "-d", "pki", "-u", "req+sign", "server", "controller"], dir);
    ran("ovs-pki", &["-l", "pki.log", "-d", "pki", "-u", "req+sign", "client", "switch"], dir);
}

fn files(dir: &Path, name: &str, ca: &str) -> TlsFiles {
    TlsFiles {
        private_key: Some(dir.join(format!("{name}-privkey.pem"))),
        certificate: Some(dir.join(format!("{name}-cert.pem"))),
        trust: Trust::File(dir.join(ca)),
        peer_ca: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_clients_and_servers_speak_with_us_under_stock_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    stock_pki(d);
    let ours = Tls::new(files(d, "server", "pki/switchca/cacert.pem"));

    // Their client, our server: one question answered.
    let (l, _) = listener(&ours).await;
    let port = l.tcp_port().unwrap();
    let serve = async {
        let mut c = Connection::new(accept(&l).await, Limits::OVSDB);
        assert_eq!(c.stream().peer_common_name(), Some("client"));
        while let Some(m) = c.receive().await.unwrap() {
            let Message::Request { method, id, .. } = m else { continue };
            assert_eq!(method, "list_dbs");
            c.send(&Message::Reply { result: serde_json::json!(["Greeting"]), id }).unwrap();
        }
    };
    let at = d.to_owned();
    let asks = tokio::task::spawn_blocking(move || {
        let to = format!("ssl:127.0.0.1:{port}");
        let args = [
            "-t",
            "10",
            "-p",
            "client-privkey.pem",
            "-c",
            "client-cert.pem",
            "-C",
            "pki/controllerca/cacert.pem",
        ];
        ran("ovsdb-client", &[&args[..], &["list-dbs", &to]].concat(), &at)
    });
    let (said, ()) = tokio::join!(asks, serve);
    assert_eq!(said.unwrap(), "Greeting\n");

    // The same, but their client bootstraps: it needs our authority's certificate, and ends the connection that taught it.
    ours.set(TlsFiles {
        peer_ca: Some(d.join("pki/controllerca/cacert.pem")),
        ..files(d, "server", "pki/switchca/cacert.pem")
    });
    let serve = async {
        loop {
            let mut c = Connection::new(accept(&l).await, Limits::OVSDB);
            while let Ok(Some(m)) = c.receive().await {
                let Message::Request { id, .. } = m else { continue };
                c.send(&Message::Reply { result: serde_json::json!(["Again"]), id }).unwrap();
            }
        }
    };
    let at = d.to_owned();
    let asks = tokio::task::spawn_blocking(move || {
        let to = format!("ssl:127.0.0.1:{port}");
        let args =
            ["-t", "10", "-p", "client-privkey.pem", "-c", "client-cert.pem", "--bootstrap-ca-cert=boot.pem"];
        let args = [&args[..], &["list-dbs", &to]].concat();
        let first = Command::new("ovsdb-client").args(&args).current_dir(&at).output().unwrap();
        let said = String::from_utf8_lossy(&first.stderr).into_owned();
        assert!(said.contains("successfully bootstrapped CA cert"), "{said}");
        ran("ovsdb-client", &args, &at)
    });
    tokio::select! {
        said = asks => assert_eq!(said.unwrap(), "Again\n"),
        () = serve => {}
    }
    // Their server, our client, which bootstraps: the server sends its authority's certificate when told to.
    std::fs::write(
        d.join("s.ovsschema"),
        r#"{"name":"S","version":"1.0.0","tables":{"T":{"columns":{"c":{"type":"integer"}}}}}"#,
    )
    .unwrap();
    ran("ovsdb-tool", &["create", "s.db", "s.ovsschema"], d);
    let log = d.join("server.log");
    let server = Command::new("ovsdb-server")
        .args(["--remote=pssl:0:127.0.0.1", "--unixctl=none", "-vconsole:off", "-vfile:info"])
        .arg(format!("--log-file={}", log.display()))
        .args(["-p", "server-privkey.pem", "-c", "server-cert.pem", "-C", "pki/switchca/cacert.pem"])
        .args(["--peer-ca-cert=pki/controllerca/cacert.pem", "s.db"])
        .current_dir(d)
        .env("OVS_RUNDIR", d)
        .spawn()
        .unwrap();
    let _server = Running(server);
    let mut port = None;
    for _ in 0..200 {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        port = text.split("listening on port ").nth(1).and_then(|t| t.lines().next()?.parse().ok());
        if port.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let to =
        Active::Ssl { host: "127.0.0.1".into(), port: Some(port.expect("the server's port in its log")) };
    let learned = d.join("learned.pem");
    let ours =
        Tls::new(TlsFiles { trust: Trust::Bootstrap(learned.clone()), ..files(d, "client", "unused") });
    for round in 0..2 {
        let s = connect_with(&to, 6640, SOON, Some(&ours)).await.unwrap();
        assert_eq!(s.peer_common_name(), Some("server"));
        let mut c = Connection::new(s, Limits::OVSDB);
        c.send(&Message::Request { method: "list_dbs".into(), params: vec![], id: round.into() }).unwrap();
        let reply = tokio::time::timeout(SOON, c.receive()).await.unwrap().unwrap();
        assert_eq!(
            reply,
            Some(Message::Reply { result: serde_json::json!(["S", "_Server"]), id: round.into() })
        );
    }
    assert!(learned.exists());
}
