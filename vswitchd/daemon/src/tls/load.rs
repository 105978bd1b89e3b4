//! Reads key and certificate files and makes the configurations of the TLS library from them.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig};

use super::verify::{PeerVerifier, issued};
use super::{TlsError, TlsFiles, Trust};

/// Longest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// What tells whether a file was changed or replaced: its inode, length and time of change.
type Stamp = Option<(u64, u64, i64, i64)>;

/// Stamps of the four files.
pub(super) type Stamps = [Stamp; 4];

/// Looks at the files without reading them.
pub(super) fn stamps(files: &TlsFiles) -> Stamps {
    let stamp = |path: Option<&PathBuf>| {
        let m = std::fs::metadata(path?).ok()?;
        Some((m.ino(), m.len(), m.mtime(), m.mtime_nsec()))
    };
    let ca = match &files.trust {
        Trust::File(p) | Trust::Bootstrap(p) => Some(p),
        Trust::Unset | Trust::Anyone => None,
    };
    [
        stamp(files.private_key.as_ref()),
        stamp(files.certificate.as_ref()),
        stamp(ca),
        stamp(files.peer_ca.as_ref()),
    ]
}

/// What handshakes need.
#[derive(Debug)]
pub(crate) struct Material {
    /// For connections we open.
    pub client: Arc<ClientConfig>,
    /// For connections we accept.
    pub server: Arc<ServerConfig>,
    /// Peers are believed once, and this file is made of what the first one sends.
    pub bootstrap: Option<PathBuf>,
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Io { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > MAX_FILE_BYTES {
        return Err(failed(std::io::Error::other(format!("longer than {MAX_FILE_BYTES} bytes"))));
    }
    std::fs::read(path).map_err(failed)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |why: String| TlsError::Pem { path: path.to_owned(), what: "certificate", why };
    let bytes = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let all = all.map_err(|e| bad(e.to_string()))?;
    if all.is_empty() { Err(bad("there is none".to_owned())) } else { Ok(all) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|e| TlsError::Pem {
        path: path.to_owned(),
        what: "private key",
        why: e.to_string(),
    })
}

impl Material {
    pub(super) fn load(files: &TlsFiles) -> Result<Material, TlsError> {
        let unset = |what, option| TlsError::Unset { what, option };
        let key_file = files.private_key.as_ref().ok_or(unset("a private key", "--private-key"))?;
        let cert_file = files.certificate.as_ref().ok_or(unset("a certificate", "--certificate"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut bootstrap = None;
        let authorities = match &files.trust {
            Trust::Unset => return Err(unset("a CA certificate", "--ca-cert or --bootstrap-ca-cert")),
            Trust::Anyone => None,
            Trust::Bootstrap(p) if !p.exists() => {
                bootstrap = Some(p.clone());
                None
            }
            Trust::File(p) | Trust::Bootstrap(p) => Some((p, certificates(p)?)),
        };

        let mut chain = certificates(cert_file)?;
        // A peer that bootstraps wants the authority's certificate too.
        let mut more = match &files.peer_ca {
            Some(p) => certificates(p)?,
            None => Vec::new(),
        };
        more.extend(authorities.iter().flat_map(|(_, a)| a.iter().cloned()));
        for c in more {
            if chain.last().is_some_and(|last| issued(&c, last)) && !chain.contains(&c) {
                chain.push(c);
            }
        }
        let key = certified(chain, private_key(key_file)?, &provider, key_file, cert_file)?;

        let verifier = match authorities {
            Some((p, a)) => PeerVerifier::signed_by(a, &provider)
                .map_err(|source| TlsError::Unusable { path: p.clone(), source })?,
            // The peer must show a certificate if we are to make a file of it.
            None => PeerVerifier::anyone(bootstrap.is_some(), &provider),
        };
        let verifier = Arc::new(verifier);
        let resolver = Arc::new(SingleCertAndKey::from(key));
        let unusable = |source| TlsError::Unusable { path: cert_file.clone(), source };
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
            .with_client_cert_resolver(Arc::clone(&resolver) as _);
        // Each connection is checked anew.
        client.resumption = rustls::client::Resumption::disabled();
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(resolver);
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Material { client: Arc::new(client), server: Arc::new(server), bootstrap })
    }
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
    key_file: &Path,
    cert_file: &Path,
) -> Result<CertifiedKey, TlsError> {
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|source| TlsError::Unusable { path: key_file.to_owned(), source })?;
    let key = CertifiedKey::new(chain, key);
    match key.keys_match() {
        // A kind of key that cannot be compared shows in the handshake.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(key),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(TlsError::Mismatch { key: key_file.to_owned(), certificate: cert_file.to_owned() })
        }
        Err(source) => Err(TlsError::Unusable { path: cert_file.to_owned(), source }),
    }
}
