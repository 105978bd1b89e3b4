//! Keys and certificates of `ssl:` and `pssl:` remotes, as configured: files, or columns of a database that name files.

use std::collections::HashMap;

use daemon::tls::TlsFiles;

use super::hub::Hub;
use super::lookup;

/// Where keys and certificates are: each a file, or `db:DATABASE,TABLE,COLUMN` for the file that a column names.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TlsOptions {
    /// Private key, PEM.
    pub private_key: Option<String>,
    /// Certificate that goes with it, PEM.
    pub certificate: Option<String>,
    /// Certificates of the authority that peers must be certified by, PEM; `none` for whoever comes.
    pub ca_cert: Option<String>,
    /// When the file of `ca_cert` is missing it is made from what the first peer shows.
    pub bootstrap_ca_cert: bool,
    /// More certificates to show to peers, PEM.
    pub peer_ca_cert: Option<String>,
}

impl TlsOptions {
    /// By the names of the command line's options.
    fn all(&self) -> [(&'static str, &Option<String>); 4] {
        let authority = if self.bootstrap_ca_cert { "bootstrap-ca-cert" } else { "ca-cert" };
        [
            ("private-key", &self.private_key),
            ("certificate", &self.certificate),
            (authority, &self.ca_cert),
            ("peer-ca-cert", &self.peer_ca_cert),
        ]
    }

    /// The `db:` names among them.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.all().into_iter().filter_map(|(_, v)| v.as_ref()).filter(|v| v.starts_with("db:"))
    }

    /// With file names as seen from where the process is now: a daemon leaves that place.
    pub(super) fn absolute(mut self) -> Self {
        for v in [&mut self.private_key, &mut self.certificate, &mut self.ca_cert, &mut self.peer_ca_cert] {
            if let Some(name) = v
                && !name.starts_with("db:")
                && name != "none"
                && let Ok(path) = std::path::absolute(&*name)
            {
                *name = path.to_string_lossy().into_owned();
            }
        }
        self
    }
}

impl Hub {
    /// Makes new connections use the keys and certificates that are configured now.
    pub(super) fn resolve_tls(&mut self, complaints: &mut HashMap<String, String>) {
        let mut files = TlsFiles::default();
        for (option, value) in self.tls_options.all() {
            let Some(name) = value else { continue };
            let file = if name.starts_with("db:") {
                match lookup::column(&self.dbs, name).and_then(|c| c.first_string(name)) {
                    Ok(f) => f,
                    Err(e) => {
                        complaints.insert(name.clone(), e);
                        None
                    }
                }
            } else {
                Some(name.clone())
            };
            if let Some(f) = file {
                files.set_option(option, &f);
            }
        }
        self.tls.set(files);
    }
}
