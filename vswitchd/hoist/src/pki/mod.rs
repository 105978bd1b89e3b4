//! `hoist pki`: keys and certificates for `ssl:` and `pssl:` connections, under the file names of ovs-pki(8).
//!
//! ```text
//!   DIR/switchca/cacert.pem          signs switches' certificates; controllers trust it
//!   DIR/switchca/private/cakey.pem
//!   DIR/controllerca/...             signs controllers' certificates; switches trust it
//!   NAME-privkey.pem, NAME-req.pem, NAME-cert.pem     in the working directory
//! ```
//!
//! A directory made by ovs-pki is used as it is, and requests made by it are signed. Our own keys are elliptic (P-256 or P-384)
//! where ovs-pki makes RSA ones. Private keys are readable by their owner only, from the moment they exist.

mod authority;
mod files;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DnType, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, SanType,
};
use sha1::{Digest, Sha1};
use x509_parser::prelude::{FromDer, X509Certificate};

use authority::Authority;

const EXAMPLES: &str = "\
Examples:
  hoist pki init                                 make the two authorities, once
  hoist pki req+sign ctl controller              a controller's key and certificate
  hoist pki req+sign sw                          a switch's
  hoist pki verify sw
Then, at the switch: --private-key=sw-privkey.pem --certificate=sw-cert.pem
  --ca-cert=/var/lib/openvswitch/pki/controllerca/cacert.pem";

/// Certificates are good for this long: ten years.
const DAYS: i64 = 3650;

/// The arguments of `hoist pki`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Pki {
    /// Directory of the authorities
    #[arg(long, short, value_name = "DIR", default_value = "/var/lib/openvswitch/pki", global = true)]
    dir: PathBuf,
    /// Replace files that exist
    #[arg(long, short, global = true)]
    force: bool,
    /// Kind of new keys
    #[arg(long, short, value_enum, default_value = "p256", global = true)]
    key: KeyKind,
    /// NAME is unique already: do not add an identifier to it in the certificate
    #[arg(long, short, global = true)]
    unique: bool,
    /// Do not ask whether the fingerprint matches
    #[arg(long, short, global = true)]
    batch: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum KeyKind {
    P256,
    P384,
}

/// Which authority.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq, Debug)]
enum Kind {
    Switch,
    Controller,
}

impl Kind {
    fn authority(self) -> &'static str {
        match self {
            Kind::Switch => "switchca",
            Kind::Controller => "controllerca",
        }
    }
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Make the authorities for switches and for controllers
    Init,
    /// Make a private key and a certificate request: NAME-privkey.pem, NAME-req.pem
    Req {
        /// Whom the certificate is for
        name: String,
    },
    /// Sign NAME-req.pem, which makes NAME-cert.pem
    Sign {
        /// Whom the certificate is for
        name: String,
        /// By which authority
        #[arg(value_enum, default_value = "switch")]
        kind: Kind,
    },
    /// Both of these
    #[command(name = "req+sign")]
    ReqSign {
        /// Whom the certificate is for
        name: String,
        /// By which authority
        #[arg(value_enum, default_value = "switch")]
        kind: Kind,
    },
    /// Check that NAME-cert.pem was signed by the authority and is in force
    Verify {
        /// Whom the certificate is for
        name: String,
        /// By which authority
        #[arg(value_enum, default_value = "switch")]
        kind: Kind,
    },
    /// Print the fingerprint of a file
    Fingerprint {
        /// A certificate, or any other file
        file: PathBuf,
    },
    /// Sign NAME-req.pem with NAME-privkey.pem, which makes NAME-cert.pem
    #[command(name = "self-sign")]
    SelfSign {
        /// Whom the certificate is for
        name: String,
    },
}

/// The files that go by a name.
struct Named {
    key: PathBuf,
    request: PathBuf,
    certificate: PathBuf,
    /// The name without directories.
    short: String,
}

impl Named {
    fn new(name: &str) -> anyhow::Result<Named> {
        let short = Path::new(name).file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        if short.is_empty() {
            bail!("\"{name}\" is not a name for a certificate");
        }
        let file = |suffix| PathBuf::from(format!("{name}{suffix}"));
        Ok(Named {
            key: file("-privkey.pem"),
            request: file("-req.pem"),
            certificate: file("-cert.pem"),
            short,
        })
    }
}

impl Pki {
    /// Runs the command; what it returns is for the terminal.
    ///
    /// # Errors
    /// What is in the way, by file.
    pub fn run(&self) -> anyhow::Result<String> {
        match &self.command {
            Command::Init => authority::init(self),
            Command::Req { name } => {
                let files = Named::new(name)?;
                self.request(&files)?;
                fingerprint(&files.request)
            }
            Command::Sign { name, kind } => {
                let files = Named::new(name)?;
                let print = fingerprint(&files.request)?;
                if !self.batch && !confirmed(&print)? {
                    bail!("the fingerprint does not match: nothing was signed");
                }
                self.sign(&files, *kind)?;
                Ok(if self.batch { print } else { String::new() })
            }
            Command::ReqSign { name, kind } => {
                let files = Named::new(name)?;
                // Everything that can be in the way, before anything is made.
                Authority::open(&self.dir, kind.authority())?;
                files::must_not_exist(&files.certificate, self.force)?;
                self.request(&files)?;
                self.sign(&files, *kind)?;
                fingerprint(&files.request)
            }
            Command::Verify { name, kind } => {
                let files = Named::new(name)?;
                Authority::open(&self.dir, kind.authority())?.verify(&files.certificate)?;
                Ok(format!("{}: OK\n", files.certificate.display()))
            }
            Command::Fingerprint { file } => fingerprint(file),
            Command::SelfSign { name } => {
                self.self_sign(&Named::new(name)?)?;
                Ok(String::new())
            }
        }
    }

    fn new_key(&self) -> anyhow::Result<KeyPair> {
        let algorithm = match self.key {
            KeyKind::P256 => &PKCS_ECDSA_P256_SHA256,
            KeyKind::P384 => &PKCS_ECDSA_P384_SHA384,
        };
        KeyPair::generate_for(algorithm).context("cannot make a key")
    }

    fn request(&self, files: &Named) -> anyhow::Result<()> {
        files::must_not_exist(&files.key, self.force)?;
        files::must_not_exist(&files.request, self.force)?;
        let cn =
            if self.unique { files.short.clone() } else { format!("{} id:{}", files.short, identifier()) };
        let mut params = CertificateParams::default();
        params.distinguished_name = subject("Open vSwitch certifier", &cn);
        // A name of DNS has no spaces; the identifier stays in the common name.
        let dns =
            files.short.clone().try_into().with_context(|| format!("{}: not plain text", files.short))?;
        params.subject_alt_names = vec![SanType::DnsName(dns)];
        let key = self.new_key()?;
        let request =
            params.serialize_request(&key).and_then(|r| r.pem()).context("cannot make a request")?;
        files::write(&files.key, key.serialize_pem().as_bytes(), 0o600, self.force)?;
        files::write(&files.request, request.as_bytes(), 0o644, self.force)
    }

    fn sign(&self, files: &Named, kind: Kind) -> anyhow::Result<()> {
        files::must_not_exist(&files.certificate, self.force)?;
        let request = read_request(&files.request)?;
        let pem = Authority::open(&self.dir, kind.authority())?.sign(request)?;
        files::write(&files.certificate, pem.as_bytes(), 0o644, self.force)
    }

    fn self_sign(&self, files: &Named) -> anyhow::Result<()> {
        files::must_not_exist(&files.certificate, self.force)?;
        let mut params = read_request(&files.request)?.params;
        let key = files::read(&files.key)?;
        let key =
            KeyPair::from_pem(&key).with_context(|| format!("{}: not a private key", files.key.display()))?;
        end_entity(&mut params);
        let cert = params.self_signed(&key).context("cannot sign")?;
        files::write(&files.certificate, cert.pem().as_bytes(), 0o644, self.force)
    }
}

/// The subject of requests and authorities. ovs-pki signs only for its own organization, so it is the same.
fn subject(unit: &str, cn: &str) -> rcgen::DistinguishedName {
    let mut dn = rcgen::DistinguishedName::new();
    dn.push(DnType::OrganizationName, "Open vSwitch");
    dn.push(DnType::OrganizationalUnitName, unit);
    dn.push(DnType::CommonName, cn);
    dn
}

/// Whatever a request asked for: no authority, in force from now on.
fn end_entity(params: &mut CertificateParams) {
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages.clear();
    params.name_constraints = None;
    (params.not_before, params.not_after) = authority::validity();
}

/// A random identifier in the form of a UUID.
fn identifier() -> String {
    ovsdb::Uuid::random().to_text()
}

fn read_request(path: &Path) -> anyhow::Result<CertificateSigningRequestParams> {
    let text = files::read(path)?;
    // Checks the signature too.
    CertificateSigningRequestParams::from_pem(&text)
        .with_context(|| format!("{}: not a certificate request that can be signed", path.display()))
}

/// The DER of the first certificate in PEM text.
fn certificate_der(text: &str) -> Option<Vec<u8>> {
    x509_parser::pem::Pem::iter_from_buffer(text.as_bytes())
        .filter_map(Result::ok)
        .find(|p| p.label == "CERTIFICATE")
        .map(|p| p.contents)
}

/// A file's time and fingerprint, as ovs-pki prints them: SHA-1, of a certificate's DER or of the file.
fn fingerprint(path: &Path) -> anyhow::Result<String> {
    let bytes = files::read_bytes(path)?;
    let time =
        std::fs::metadata(path).and_then(|m| m.modified()).with_context(|| path.display().to_string())?;
    let time = authority::format_time(time.into());
    let der = std::str::from_utf8(&bytes).ok().and_then(certificate_der);
    let digest = match der {
        Some(der) => {
            X509Certificate::from_der(&der)
                .with_context(|| format!("{}: damaged certificate", path.display()))?;
            files::hex(&Sha1::digest(der)).to_uppercase()
        }
        None => files::hex(&Sha1::digest(&bytes)),
    };
    Ok(format!("{}\t{time}\n\tfingerprint {digest}\n", path.display()))
}

/// Asks at the terminal.
fn confirmed(print: &str) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    out.write_all(print.as_bytes())?;
    out.write_all(b"Does fingerprint match? (yes/no)\n")?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("no answer")?;
    Ok(answer.trim() == "yes")
}
