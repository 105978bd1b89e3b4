//! A certificate authority in its directory, laid out as by `openssl ca`: `cacert.pem`, `private/cakey.pem`, `serial`,
//! `index.txt`, `newcerts/SERIAL.pem`.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, DnValue, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SerialNumber,
};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{DAYS, Pki, certificate_der, end_entity, files, subject};

/// From when to when a certificate made now is good. Begins a little before, for clocks that are behind.
pub(super) fn validity() -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::now_utc();
    (now - Duration::hours(1), now + Duration::days(DAYS))
}

/// `2026-11-26 04:50:33 UTC`.
pub(super) fn format_time(t: OffsetDateTime) -> String {
    let (h, m, s) = t.to_hms();
    format!("{} {h:02}:{m:02}:{s:02} UTC", t.date())
}

/// Makes both authorities.
pub(super) fn init(pki: &Pki) -> anyhow::Result<String> {
    files::must_not_exist(&pki.dir, pki.force)?;
    let made = format_time(OffsetDateTime::now_utc());
    let mut said = String::new();
    for name in ["controllerca", "switchca"] {
        let dir = pki.dir.join(name);
        let context = || dir.display().to_string();
        for d in [dir.join("newcerts"), dir.join("certs"), dir.join("crl")] {
            std::fs::create_dir_all(&d).with_context(context)?;
        }
        let private = dir.join("private");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&private).with_context(context)?;

        let mut params = CertificateParams::default();
        params.distinguished_name = subject(name, &format!("{name} CA certificate ({made})"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(SerialNumber::from_slice(&[1]));
        (params.not_before, params.not_after) = validity();
        let key = pki.new_key()?;
        let cert = params.self_signed(&key).context("cannot sign")?;
        files::write(&private.join("cakey.pem"), key.serialize_pem().as_bytes(), 0o600, pki.force)?;
        files::write(&dir.join("cacert.pem"), cert.pem().as_bytes(), 0o644, pki.force)?;
        files::write(&dir.join("serial"), b"02\n", 0o644, pki.force)?;
        files::write(&dir.join("index.txt"), b"", 0o644, pki.force)?;
        said.push_str(&format!("created {}\n", dir.join("cacert.pem").display()));
    }
    Ok(said)
}

/// An authority that signs.
#[derive(Debug)]
pub(super) struct Authority {
    dir: PathBuf,
    certificate: String,
}

impl Authority {
    /// The authority `name` in `pki`.
    pub fn open(pki: &Path, name: &str) -> anyhow::Result<Authority> {
        if !pki.is_dir() {
            bail!("{} does not exist (need to run 'init' or use '--dir'?)", pki.display());
        }
        let dir = pki.join(name);
        let certificate = files::read(&dir.join("cacert.pem"))?;
        Ok(Authority { dir, certificate })
    }

    /// Signs a request and returns the certificate as PEM.
    pub fn sign(&self, mut request: CertificateSigningRequestParams) -> anyhow::Result<String> {
        // One at a time: two certificates with one serial number would be of no use.
        let lock = std::fs::File::open(&self.dir).with_context(|| self.dir.display().to_string())?;
        lock.lock().with_context(|| self.dir.display().to_string())?;
        let key_file = self.dir.join("private/cakey.pem");
        let key = KeyPair::from_pem(&files::read(&key_file)?)
            .with_context(|| format!("{}: not a private key", key_file.display()))?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, key).with_context(|| {
            format!("{}: not an authority's certificate", self.dir.join("cacert.pem").display())
        })?;

        let serial_file = self.dir.join("serial");
        let text = files::read(&serial_file)?;
        let digits = text.trim();
        let serial = u128::from_str_radix(digits, 16)
            .with_context(|| format!("{}: \"{digits}\" is not a serial number", serial_file.display()))?;
        let next = serial.checked_add(1).context("no serial numbers are left")?;
        files::write(&serial_file, format!("{next:02X}\n").as_bytes(), 0o644, true)?;

        end_entity(&mut request.params);
        request.params.serial_number = Some(SerialNumber::from_slice(&minimal(serial)));
        request.params.use_authority_key_identifier_extension = true;
        let subject = request.params.distinguished_name.iter().map(one_line).collect::<String>();
        let expires = request.params.not_after;
        let cert = request.signed_by(&issuer).context("cannot sign")?.pem();

        let copy = self.dir.join("newcerts").join(format!("{serial:02X}.pem"));
        files::write(&copy, cert.as_bytes(), 0o644, false)?;
        self.enter(serial, expires, &subject)?;
        Ok(cert)
    }

    /// Notes a certificate in the index, in the form of `openssl ca`.
    fn enter(&self, serial: u128, expires: OffsetDateTime, subject: &str) -> anyhow::Result<()> {
        let path = self.dir.join("index.txt");
        let ((y, mo, d), (h, m, s)) =
            ((expires.year() % 100, u8::from(expires.month()), expires.day()), expires.to_hms());
        let line = format!("V\t{y:02}{mo:02}{d:02}{h:02}{m:02}{s:02}Z\t\t{serial:02X}\tunknown\t{subject}\n");
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o644)
            .open(&path)
            .and_then(|mut f| f.write_all(line.as_bytes()))
            .with_context(|| path.display().to_string())
    }

    /// Checks a certificate: signed by us, in force, not an authority itself.
    pub fn verify(&self, path: &Path) -> anyhow::Result<()> {
        let name = path.display();
        let der = certificate_der(&files::read(path)?).with_context(|| format!("{name}: no certificate"))?;
        let (_, cert) =
            X509Certificate::from_der(&der).with_context(|| format!("{name}: damaged certificate"))?;
        let our_file = self.dir.join("cacert.pem");
        let ours = certificate_der(&self.certificate)
            .with_context(|| format!("{}: no certificate", our_file.display()))?;
        let (_, ours) = X509Certificate::from_der(&ours)
            .with_context(|| format!("{}: damaged certificate", our_file.display()))?;
        if cert.issuer().as_raw() != ours.subject().as_raw() {
            bail!("{name}: issued by \"{}\", not by \"{}\"", cert.issuer(), ours.subject());
        }
        cert.verify_signature(Some(ours.public_key()))
            .with_context(|| format!("{name}: the signature is not that of {}", our_file.display()))?;
        for (what, c) in [(path, &cert), (&*our_file, &ours)] {
            if !c.validity().is_valid() {
                bail!(
                    "{}: not in force now: from {} to {}",
                    what.display(),
                    c.validity().not_before,
                    c.validity().not_after
                );
            }
        }
        if cert.is_ca() {
            bail!("{name}: an authority's certificate");
        }
        Ok(())
    }
}

/// Big-endian without leading zeros.
fn minimal(n: u128) -> Vec<u8> {
    let bytes = n.to_be_bytes();
    let zeros = bytes.iter().take_while(|b| **b == 0).count().min(bytes.len() - 1);
    bytes[zeros..].to_vec()
}

/// A part of a subject as `openssl ca` writes it: `/CN=name`.
fn one_line((kind, value): (&DnType, &DnValue)) -> String {
    let kind = match kind {
        DnType::CountryName => "C",
        DnType::StateOrProvinceName => "ST",
        DnType::LocalityName => "L",
        DnType::OrganizationName => "O",
        DnType::OrganizationalUnitName => "OU",
        DnType::CommonName => "CN",
        _ => "UNDEF",
    };
    let value = match value {
        DnValue::Utf8String(s) => s.clone(),
        DnValue::PrintableString(s) => s.as_str().to_owned(),
        DnValue::Ia5String(s) => s.as_str().to_owned(),
        _ => String::new(),
    };
    // Tabs and line feeds are the index's own.
    format!("/{kind}={}", value.replace(['\t', '\n'], " "))
}
