//! TLS for `ssl:` and `pssl:` streams, as Open vSwitch uses it (ovs-vswitchd(8), "SSL/TLS Options").
//!
//! Both sides show a certificate and both check that the other's was signed by the authority they trust; names do not
//! matter. TLS 1.2 and 1.3, nothing older.
//!
//! ```text
//!   TlsFiles (paths) --read, and again when a file changed--> Material (configurations of rustls) --> handshake
//! ```
//!
//! A [`Tls`] is shared by everything that opens streams. Files are looked at for each new connection, so that a renewed
//! certificate is used without a restart; files that do not fit together (one is being replaced) leave the last good ones in
//! force, with a warning. Connections that are up stay as they are.
//!
//! **Bootstrap.** With [`Trust::Bootstrap`] and no file yet, the first peer is believed: the last certificate it sends, if
//! self-signed, becomes the file. From then on it is what must have signed. The first connection is open to an
//! attacker in the middle; that is the trade that ovs-vswitchd(8) offers too.
//!
//! Not here: revocation lists, and RSA keys below 2048 bits, which the TLS library refuses.

mod load;
mod pem;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;

use load::Material;

use crate::cli::{Opt, Takes};

/// Whose certificates are accepted.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum Trust {
    /// Not configured: no TLS.
    #[default]
    Unset,
    /// Any, or none: `--ca-cert=none`. Encrypts, and authenticates nobody.
    Anyone,
    /// Those signed by one of the certificates in this file: `--ca-cert`.
    File(PathBuf),
    /// The same, but the file is made from what the first peer sends: `--bootstrap-ca-cert`.
    Bootstrap(PathBuf),
}

/// Where the keys and certificates are: PEM files.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TlsFiles {
    /// Our private key: `--private-key`.
    pub private_key: Option<PathBuf>,
    /// Our certificate, and any between it and the authority: `--certificate`.
    pub certificate: Option<PathBuf>,
    /// Whom we believe.
    pub trust: Trust,
    /// Sent to peers behind our certificate, for those that bootstrap: `--peer-ca-cert`.
    pub peer_ca: Option<PathBuf>,
}

/// The options of the command line that [`TlsFiles::set_option`] takes.
pub const OPTIONS: [Opt; 5] = [
    Opt::short('p', "private-key", Takes::Value),
    Opt::short('c', "certificate", Takes::Value),
    Opt::short('C', "ca-cert", Takes::Value),
    Opt::long("bootstrap-ca-cert", Takes::Value),
    Opt::long("peer-ca-cert", Takes::Value),
];

/// The options of the command line about what TLS is spoken. There is nothing to choose: it is 1.2 and 1.3 with the strong
/// ciphers of each.
pub const CHOICES: [Opt; 3] = [
    Opt::long("ssl-protocols", Takes::Value),
    Opt::long("ssl-ciphers", Takes::Value),
    Opt::long("ssl-ciphersuites", Takes::Value),
];

/// Looks at an option of the command line by its long name: `None` when it is not one of [`CHOICES`], otherwise how it was
/// given, to be told of with [`warn_of_choices`].
///
/// # Errors
/// What to say when it asks for protocols none of which is spoken.
pub fn choice(name: &str, value: &str) -> Result<Option<String>, String> {
    if !CHOICES.iter().any(|o| o.long == name) {
        return Ok(None);
    }
    // What a `db:` name leads to is not known here.
    let spoken = |p: &str| matches!(p.trim(), "TLSv1.2" | "TLSv1.3");
    if name == "ssl-protocols" && !value.starts_with("db:") && !value.split([',', ' ', ':']).any(spoken) {
        return Err(format!("--{name}={value}: TLSv1.2 and TLSv1.3 are spoken, nothing older"));
    }
    Ok(Some(format!("--{name}={value}")))
}

/// Says in the log that these have no effect.
pub fn warn_of_choices(given: &[String]) {
    for option in given {
        tracing::warn!(target: "stream_ssl", "{option} has no effect: TLS 1.2 and 1.3 with their strong ciphers are spoken, and nothing else");
    }
}

impl TlsFiles {
    /// Takes an option of the command line by its long name; whether it is one of [`OPTIONS`]. Relative paths are meant from
    /// where the process is now.
    pub fn set_option(&mut self, name: &str, value: &str) -> bool {
        let path = || std::path::absolute(value).unwrap_or_else(|_| PathBuf::from(value));
        match name {
            "private-key" => self.private_key = Some(path()),
            "certificate" => self.certificate = Some(path()),
            "ca-cert" if value == "none" => self.trust = Trust::Anyone,
            "ca-cert" => self.trust = Trust::File(path()),
            "bootstrap-ca-cert" => self.trust = Trust::Bootstrap(path()),
            "peer-ca-cert" => self.peer_ca = Some(path()),
            _ => return false,
        }
        true
    }
}

/// Why there is no TLS.
#[derive(thiserror::Error, Debug)]
pub enum TlsError {
    /// Something is not configured.
    #[error("{what} must be configured to use TLS ({option})")]
    Unset {
        /// What is missing.
        what: &'static str,
        /// The option that gives it.
        option: &'static str,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: no {what} in PEM form: {why}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// From the reader.
        why: String,
    },
    /// What a file holds is of no use.
    #[error("{}: {source}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The TLS library's words.
        source: rustls::Error,
    },
    /// The key is not that of the certificate.
    #[error("{}: not the key of the certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The file with the key.
        key: PathBuf,
        /// The file with the certificate.
        certificate: PathBuf,
    },
    /// The peer sent nothing that could be its authority's certificate.
    #[error("{}: cannot bootstrap: {why}", path.display())]
    Bootstrap {
        /// The file that was to be made.
        path: PathBuf,
        /// What the peer sent instead.
        why: &'static str,
    },
}

#[derive(Default, Debug)]
struct State {
    files: TlsFiles,
    /// What was read last, and what the files looked like then.
    loaded: Option<(load::Stamps, Arc<Material>)>,
    /// The last complaint about files that do not fit together, to say it once.
    said: String,
}

/// The TLS configuration of a process. Clones are the same one.
#[derive(Clone, Default, Debug)]
pub struct Tls(Arc<Mutex<State>>);

impl Tls {
    /// A configuration from files, which are read when the first stream is opened.
    pub fn new(files: TlsFiles) -> Self {
        Tls(Arc::new(Mutex::new(State { files, ..State::default() })))
    }

    /// Uses other files from now on.
    pub fn set(&self, files: TlsFiles) {
        let mut s = self.0.lock();
        if s.files != files {
            *s = State { files, ..State::default() };
        }
    }

    /// The files in use.
    pub fn files(&self) -> TlsFiles {
        self.0.lock().files.clone()
    }

    /// Reads the files if they have changed, to find out whether they are good.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn check(&self) -> Result<(), TlsError> {
        self.material().map(drop)
    }

    /// What handshakes need now.
    pub(crate) fn material(&self) -> Result<Arc<Material>, TlsError> {
        let mut s = self.0.lock();
        let stamps = load::stamps(&s.files);
        if let Some((seen, m)) = &s.loaded
            && *seen == stamps
        {
            return Ok(Arc::clone(m));
        }
        match Material::load(&s.files) {
            Ok(m) => {
                let m = Arc::new(m);
                s.loaded = Some((stamps, Arc::clone(&m)));
                s.said.clear();
                Ok(m)
            }
            Err(e) => match &s.loaded {
                Some((_, m)) => {
                    let m = Arc::clone(m);
                    let words = e.to_string();
                    if s.said != words {
                        tracing::warn!(target: "stream_ssl", "{words}; going on with what was read before");
                        s.said = words;
                    }
                    Ok(m)
                }
                None => Err(e),
            },
        }
    }

    /// After a handshake that believed anybody in order to bootstrap: makes the file from what the peer sent.
    pub(crate) fn bootstrap(&self, path: &Path, chain: &[CertificateDer<'_>]) -> Result<(), TlsError> {
        verify::store_authority(path, chain)?;
        tracing::info!(target: "stream_ssl", "successfully bootstrapped CA cert to {}", path.display());
        Ok(())
    }
}

pub(crate) use verify::common_name;
