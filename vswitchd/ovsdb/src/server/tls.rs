//! Keys and certificates of `ssl:` and `pssl:` remotes, as configured.

/// Where keys and certificates are: files, or `db:DATABASE,TABLE,COLUMN` for the file that a column names.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TlsOptions {
    /// Private key, PEM.
    pub private_key: Option<String>,
    /// Certificate that goes with it, PEM.
    pub certificate: Option<String>,
    /// Certificates of the authority that peers must be certified by, PEM.
    pub ca_cert: Option<String>,
    /// When the file of `ca_cert` is missing it is made from what the first peer shows.
    pub bootstrap_ca_cert: bool,
    /// More certificates to show to peers, PEM.
    pub peer_ca_cert: Option<String>,
    /// Protocol versions, `TLSv1.2,TLSv1.3`.
    pub protocols: Option<String>,
    /// Cipher suites, in OpenSSL's form.
    pub ciphers: Option<String>,
}
