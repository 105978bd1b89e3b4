//! Who is believed: a certificate that one of the authorities signed, whatever name is in it.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{TlsError, pem};

/// Checks the certificates of peers, on both sides of a connection.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    algorithms: WebPkiSupportedAlgorithms,
    /// `None`: anyone.
    trusted: Option<Trusted>,
    /// As a server, insist on a certificate.
    insist: bool,
}

#[derive(Debug)]
struct Trusted {
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    /// A peer may show one of these itself: a self-signed certificate that is its own authority.
    exact: Vec<CertificateDer<'static>>,
}

impl PeerVerifier {
    /// Believes whom one of `authorities` signed.
    pub fn signed_by(
        authorities: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for a in &authorities {
            roots.add(a.clone())?;
        }
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider))
            .build()
            .map_err(|e| Error::General(e.to_string()))?;
        Ok(PeerVerifier {
            algorithms: provider.signature_verification_algorithms,
            trusted: Some(Trusted { roots, clients, exact: authorities }),
            insist: true,
        })
    }

    /// Believes anyone; `insist`s on a certificate of some kind or does without.
    pub fn anyone(insist: bool, provider: &CryptoProvider) -> Self {
        PeerVerifier { algorithms: provider.signature_verification_algorithms, trusted: None, insist }
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(t) = &self.trusted
            && !t.exact.contains(end_entity)
        {
            let end_entity = ParsedCertificate::try_from(end_entity)?;
            rustls::client::verify_server_cert_signed_by_trust_anchor(
                &end_entity,
                &t.roots,
                intermediates,
                now,
                self.algorithms.all,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn offer_client_auth(&self) -> bool {
        self.insist
    }

    fn client_auth_mandatory(&self) -> bool {
        self.insist
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.trusted.as_ref().map_or(&[], |t| t.clients.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match &self.trusted {
            Some(t) if !t.exact.contains(end_entity) => {
                t.clients.verify_client_cert(end_entity, intermediates, now)
            }
            _ => Ok(ClientCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether `issuer`'s subject is the issuer of `certificate`. The signature is not looked at.
pub(super) fn issued(issuer: &CertificateDer<'_>, certificate: &CertificateDer<'_>) -> bool {
    let (Ok((_, i)), Ok((_, c))) =
        (X509Certificate::from_der(issuer), X509Certificate::from_der(certificate))
    else {
        return false;
    };
    i.subject().as_raw() == c.issuer().as_raw()
}

/// The common name in a certificate's subject: the first, as it is shown.
pub(crate) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, c) = X509Certificate::from_der(certificate).ok()?;
    c.subject().iter_common_name().next()?.as_str().ok().map(str::to_owned)
}

/// Makes the file with the authority's certificate from what a peer sent. Another process may have been faster; its file
/// stays.
pub(super) fn store_authority(path: &Path, chain: &[CertificateDer<'_>]) -> Result<(), TlsError> {
    let failed = |why| TlsError::Bootstrap { path: path.to_owned(), why };
    let last = chain.last().ok_or_else(|| failed("the peer sent no certificate"))?;
    if !issued(last, last) {
        return Err(failed(
            "the last certificate that the peer sent is not self-signed (see --peer-ca-cert)",
        ));
    }
    let mut file = match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o444).open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        other => other.map_err(|source| TlsError::Io { path: path.to_owned(), source })?,
    };
    file.write_all(pem::certificate(last).as_bytes()).map_err(|source| {
        // Half a certificate would be in the way for good.
        let _ = std::fs::remove_file(path);
        TlsError::Io { path: path.to_owned(), source }
    })
}
