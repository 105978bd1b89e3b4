//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use daemon::cli::{self, DaemonOptions, Opt, Takes, UsageError};
use ovsdb::server::TlsOptions;

const OWN: [Opt; 19] = [
    Opt::long("remote", Takes::Value),
    Opt::long("run", Takes::Value),
    Opt::long("no-dbs", Takes::Nothing),
    Opt::long("disable-file-column-diff", Takes::Nothing),
    Opt::long("history", Takes::Value),
    Opt::short('p', "private-key", Takes::Value),
    Opt::short('c', "certificate", Takes::Value),
    Opt::short('C', "ca-cert", Takes::Value),
    Opt::long("bootstrap-ca-cert", Takes::Value),
    Opt::long("peer-ca-cert", Takes::Value),
    Opt::long("ssl-protocols", Takes::Value),
    Opt::long("ssl-ciphers", Takes::Value),
    Opt::long("ssl-ciphersuites", Takes::Value),
    Opt::long("sync-from", Takes::Value),
    Opt::long("sync-exclude-tables", Takes::Value),
    Opt::long("active", Takes::Nothing),
    Opt::long("record", Takes::Perhaps),
    Opt::long("replay", Takes::Perhaps),
    Opt::long("config-file", Takes::Value),
];

/// What to serve and how.
#[derive(Debug)]
pub struct Options {
    pub daemon: DaemonOptions,
    pub databases: Vec<PathBuf>,
    pub remotes: Vec<String>,
    pub run: Option<String>,
    pub tls: TlsOptions,
    pub file_differences: bool,
    /// Transactions of each database to remember.
    pub history_transactions: usize,
    /// Options that are taken and change nothing.
    pub ignored: Vec<String>,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Asked {
    Help,
    Version,
    Serve(Box<Options>),
}

impl Options {
    /// Takes a command line apart.
    ///
    /// # Errors
    /// [`UsageError`].
    pub fn parse(program: &str, line: impl IntoIterator<Item = OsString>) -> Result<Asked, UsageError> {
        let line = cli::parse(program, &OWN, line)?;
        if line.help {
            return Ok(Asked::Help);
        }
        if line.version {
            return Ok(Asked::Version);
        }
        let mut o = Options {
            daemon: line.daemon,
            databases: line.arguments.into_iter().map(PathBuf::from).collect(),
            remotes: Vec::new(),
            run: None,
            tls: TlsOptions::default(),
            file_differences: true,
            history_transactions: 0,
            ignored: Vec::new(),
        };
        let mut default_database = true;
        for (name, value) in line.own {
            let v = value.unwrap_or_default();
            if let Some(given) = daemon::tls::choice(name, &v).map_err(UsageError::Other)? {
                o.ignored.push(given);
                continue;
            }
            match name {
                "remote" => o.remotes.push(v),
                "run" => o.run = Some(v),
                "no-dbs" => default_database = false,
                "disable-file-column-diff" => o.file_differences = false,
                "private-key" => o.tls.private_key = Some(v),
                "certificate" => o.tls.certificate = Some(v),
                "ca-cert" => (o.tls.ca_cert, o.tls.bootstrap_ca_cert) = (Some(v), false),
                "bootstrap-ca-cert" => (o.tls.ca_cert, o.tls.bootstrap_ca_cert) = (Some(v), true),
                "peer-ca-cert" => o.tls.peer_ca_cert = Some(v),
                "history" => {
                    o.history_transactions = v.parse().map_err(|_| {
                        UsageError::Other(format!("--history={v}: how many transactions to remember"))
                    })?;
                }
                _ => return Err(refused(name)),
            }
        }
        o.remotes.dedup();
        if o.databases.is_empty() && default_database {
            o.databases.push(database_dir().join("conf.db"));
        }
        Ok(Asked::Serve(Box::new(o)))
    }
}

fn refused(name: &str) -> UsageError {
    let why = match name {
        "record" | "replay" => "recording and replaying of a session is not supported",
        "config-file" => "a configuration file is not supported; use --remote and DATABASE arguments",
        _ => "replication from another server is not supported; this server is always the active one",
    };
    UsageError::Other(format!("--{name}: {why}"))
}

/// Where databases are unless named otherwise.
fn database_dir() -> PathBuf {
    let set = |k| std::env::var_os(k).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("OVS_DBDIR")
        .or_else(|| set("OVS_SYSCONFDIR").map(|d| d.join("openvswitch")))
        .unwrap_or_else(|| PathBuf::from("/etc/openvswitch"))
}

/// Help about the options that are not shared with other daemons.
pub fn help(program: &str) -> String {
    format!(
        "{program}: OVSDB database server
usage: {program} [OPTIONS] [DATABASE...]
where each DATABASE is a database file in ovsdb format.
The default DATABASE, if none is given, is {}.

JSON-RPC options (may be specified any number of times):
  --remote=REMOTE         connect to or listen at REMOTE:
                            punix:FILE, ptcp:[PORT][:IP], pssl:[PORT][:IP]  listen
                            unix:FILE, tcp:HOST[:PORT], ssl:HOST[:PORT]     connect
                            db:DATABASE,TABLE,COLUMN  what that column says

PKI configuration (files, or db:DATABASE,TABLE,COLUMN):
  -p, --private-key=FILE  file with private key
  -c, --certificate=FILE  file with certificate for private key
  -C, --ca-cert=FILE      file with peer CA certificate
  --bootstrap-ca-cert=FILE  the same; if FILE is missing it is taken from the peer
  --peer-ca-cert=FILE     file with CA certificate to send to the peer
  --ssl-protocols=PROTOS  must have TLSv1.2 or TLSv1.3: both are always enabled, and nothing else
  --ssl-ciphers=CIPHERS   has no effect: the strong ciphers are always enabled, and nothing else

Database options:
  --no-dbs                start without a database if none is given
  --history=N             remember N transactions, so that clients that come back hear only of what
                          they missed (monitor_cond_since); without it states have no identifiers
  --disable-file-column-diff  write whole values only, for Open vSwitch before 2.16
  --run=COMMAND           run COMMAND, and end with it
",
        database_dir().join("conf.db").display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<Options, String> {
        match Options::parse("ovsdb-server", line.iter().map(OsString::from)) {
            Ok(Asked::Serve(o)) => Ok(*o),
            Ok(other) => panic!("{other:?}"),
            Err(e) => Err(e.to_string()),
        }
    }

    #[test]
    fn databases_and_remotes_are_collected() {
        let o = parse(&["--remote=punix:a", "x.db", "--remote", "ptcp:1", "-pkey", "y.db", "--run=true"])
            .unwrap();
        assert_eq!(o.databases, [PathBuf::from("x.db"), PathBuf::from("y.db")]);
        assert_eq!(o.remotes, ["punix:a", "ptcp:1"]);
        assert_eq!((o.tls.private_key.as_deref(), o.run.as_deref()), (Some("key"), Some("true")));
        assert_eq!(parse(&["--history=9"]).unwrap().history_transactions, 9);
        assert_eq!(parse(&["--ssl-protocols=TLSv1.1,TLSv1.2"]).unwrap().ignored.len(), 1);
        assert!(parse(&["--no-dbs"]).unwrap().databases.is_empty());
        assert!(parse(&[]).unwrap().databases[0].ends_with("conf.db"));
    }

    #[test]
    fn what_is_not_supported_is_said() {
        for (option, words) in [
            ("--record", "recording"),
            ("--replay=d", "recording"),
            ("--sync-from=tcp:1", "replication"),
            ("--active", "replication"),
            ("--ssl-protocols=TLSv1,TLSv1.1", "nothing older"),
            ("--history=many", "how many"),
            ("--foo", "unrecognized option '--foo'"),
        ] {
            let e = parse(&[option]).unwrap_err();
            assert!(e.contains(words), "{option}: {e}");
        }
    }
}
