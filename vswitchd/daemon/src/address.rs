//! Stream names as Open vSwitch writes them (ovs(7), "Connection Methods").
//!
//! ```text
//!   active:   tcp:HOST[:PORT]      ssl:HOST[:PORT]      unix:PATH
//!   passive:  ptcp:[PORT][:HOST]   pssl:[PORT][:HOST]   punix:PATH
//! ```
//!
//! HOST is an IPv4 address, an IPv6 address in brackets or a name. A relative PATH is relative to the run directory, as in
//! Open vSwitch. A missing PORT is the protocol's default, which the caller gives; that of OpenFlow is
//! [`OPENFLOW_PORT`]. `ssl:` and `pssl:` are recognised and refused with [`AddressError::Tls`].

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The port IANA gave to OpenFlow.
pub const OPENFLOW_PORT: u16 = 6653;

/// Longest path that fits `sockaddr_un` on Linux, without the final NUL, in bytes.
pub const MAX_UNIX_PATH_BYTES: usize = 107;

/// Where to connect to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Active {
    /// `tcp:HOST[:PORT]`.
    Tcp {
        /// Address or name, IPv6 without brackets.
        host: String,
        /// TCP port; `None` stands for the protocol's default.
        port: Option<u16>,
    },
    /// `ssl:HOST[:PORT]`.
    Ssl {
        /// Address or name, IPv6 without brackets.
        host: String,
        /// TCP port; `None` stands for the protocol's default.
        port: Option<u16>,
    },
    /// `unix:PATH`.
    Unix(PathBuf),
}

/// Where to listen.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Passive {
    /// `ptcp:[PORT][:HOST]`.
    Tcp {
        /// Address to bind; `None` for all.
        host: Option<String>,
        /// TCP port, 0 for one that the kernel picks; `None` stands for the protocol's default.
        port: Option<u16>,
    },
    /// `pssl:[PORT][:HOST]`.
    Ssl {
        /// Address to bind; `None` for all.
        host: Option<String>,
        /// TCP port, 0 for one that the kernel picks; `None` stands for the protocol's default.
        port: Option<u16>,
    },
    /// `punix:PATH`.
    Unix(PathBuf),
}

/// Why a stream name is wrong.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum AddressError {
    /// No or an unknown prefix.
    #[error("\"{name}\" is not a stream name: want {wanted}")]
    Kind {
        /// What was given.
        name: String,
        /// What would be right.
        wanted: &'static str,
    },
    /// The port is not a number from 0 to 65535.
    #[error("\"{name}\": \"{port}\" is not a TCP port")]
    Port {
        /// What was given.
        name: String,
        /// The part that is wrong.
        port: String,
    },
    /// The host is missing or its brackets do not match.
    #[error("\"{0}\": the host is missing or malformed (IPv6 addresses go in brackets)")]
    Host(String),
    /// The path is empty or contains a NUL.
    #[error("\"{0}\": the path is empty or malformed")]
    Path(String),
}

/// Splits `HOST[:PORT]` with an optional bracketed IPv6 address.
fn split_host(name: &str, rest: &str) -> Result<(String, Option<u16>), AddressError> {
    let bad_host = || AddressError::Host(name.to_owned());
    let (host, port) = match rest.strip_prefix('[') {
        Some(inner) => {
            let (host, after) = inner.split_once(']').ok_or_else(bad_host)?;
            match after {
                "" => (host, None),
                _ => (host, Some(after.strip_prefix(':').ok_or_else(bad_host)?)),
            }
        }
        None => match rest.split_once(':') {
            // More than one colon: an IPv6 address without brackets.
            Some((_, p)) if p.contains(':') => return Err(bad_host()),
            Some((h, p)) => (h, Some(p)),
            None => (rest, None),
        },
    };
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err(bad_host());
    }
    Ok((host.to_owned(), port.map(|p| parse_port(name, p)).transpose()?))
}

/// Splits `[PORT][:HOST]`.
fn split_port(name: &str, rest: &str) -> Result<(Option<String>, Option<u16>), AddressError> {
    let (port, host) = match rest.split_once(':') {
        Some((p, h)) => (p, Some(h)),
        None => (rest, None),
    };
    let port = if port.is_empty() { None } else { Some(parse_port(name, port)?) };
    let host = match host {
        None => None,
        Some(h) => match split_host(name, h)? {
            (h, None) => Some(h),
            _ => return Err(AddressError::Host(name.to_owned())),
        },
    };
    Ok((host, port))
}

fn parse_port(name: &str, port: &str) -> Result<u16, AddressError> {
    let bad = || AddressError::Port { name: name.to_owned(), port: port.to_owned() };
    // `u16::from_str` would take "+1".
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    port.parse().map_err(|_| bad())
}

fn parse_path(name: &str, rest: &str) -> Result<PathBuf, AddressError> {
    if rest.is_empty() || rest.contains('\0') {
        return Err(AddressError::Path(name.to_owned()));
    }
    Ok(PathBuf::from(rest))
}

fn write_host(f: &mut fmt::Formatter<'_>, host: &str) -> fmt::Result {
    if host.contains(':') { write!(f, "[{host}]") } else { f.write_str(host) }
}

impl FromStr for Active {
    type Err = AddressError;
    fn from_str(name: &str) -> Result<Self, AddressError> {
        match name.split_once(':') {
            Some(("tcp", rest)) => {
                let (host, port) = split_host(name, rest)?;
                Ok(Active::Tcp { host, port })
            }
            Some(("ssl", rest)) => {
                let (host, port) = split_host(name, rest)?;
                Ok(Active::Ssl { host, port })
            }
            Some(("unix", rest)) => Ok(Active::Unix(parse_path(name, rest)?)),
            _ => Err(AddressError::Kind {
                name: name.to_owned(),
                wanted: "tcp:HOST[:PORT], ssl:HOST[:PORT] or unix:PATH",
            }),
        }
    }
}

impl FromStr for Passive {
    type Err = AddressError;
    fn from_str(name: &str) -> Result<Self, AddressError> {
        match name.split_once(':') {
            Some(("ptcp", rest)) => {
                let (host, port) = split_port(name, rest)?;
                Ok(Passive::Tcp { host, port })
            }
            Some(("pssl", rest)) => {
                let (host, port) = split_port(name, rest)?;
                Ok(Passive::Ssl { host, port })
            }
            Some(("punix", rest)) => Ok(Passive::Unix(parse_path(name, rest)?)),
            _ => Err(AddressError::Kind {
                name: name.to_owned(),
                wanted: "ptcp:[PORT][:HOST], pssl:[PORT][:HOST] or punix:PATH",
            }),
        }
    }
}

impl fmt::Display for Active {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Active::Tcp { host, port } | Active::Ssl { host, port } => {
                f.write_str(if matches!(self, Active::Tcp { .. }) { "tcp:" } else { "ssl:" })?;
                write_host(f, host)?;
                port.map_or(Ok(()), |p| write!(f, ":{p}"))
            }
            Active::Unix(p) => write!(f, "unix:{}", p.display()),
        }
    }
}

impl fmt::Display for Passive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Passive::Tcp { host, port } | Passive::Ssl { host, port } => {
                f.write_str(if matches!(self, Passive::Tcp { .. }) { "ptcp:" } else { "pssl:" })?;
                port.map_or(Ok(()), |p| write!(f, "{p}"))?;
                host.as_ref().map_or(Ok(()), |h| {
                    f.write_str(":")?;
                    write_host(f, h)
                })
            }
            Passive::Unix(p) => write!(f, "punix:{}", p.display()),
        }
    }
}

impl Active {
    /// The same with a relative path made absolute under `dir`.
    pub fn in_dir(self, dir: &Path) -> Self {
        match self {
            Active::Unix(p) => Active::Unix(dir.join(p)),
            other => other,
        }
    }
}

impl Passive {
    /// The same with a relative path made absolute under `dir`.
    pub fn in_dir(self, dir: &Path) -> Self {
        match self {
            Passive::Unix(p) => Passive::Unix(dir.join(p)),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in [
            "tcp:127.0.0.1",
            "tcp:127.0.0.1:6653",
            "tcp:[::1]",
            "tcp:[fe80::1]:1",
            "tcp:controller.example:65535",
            "ssl:127.0.0.1:6640",
            "ssl:[::1]",
            "unix:/tmp/a b",
            "unix:rel",
        ] {
            assert_eq!(name.parse::<Active>().unwrap().to_string(), name);
        }
        for name in [
            "ptcp:",
            "pssl:",
            "pssl:6640:[::]",
            "ptcp:0",
            "ptcp:6653:127.0.0.1",
            "ptcp::127.0.0.1",
            "ptcp:6653:[::1]",
            "punix:/x",
        ] {
            assert_eq!(name.parse::<Passive>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn a_missing_port_is_left_to_the_protocol() {
        assert_eq!("ptcp:".parse(), Ok(Passive::Tcp { host: None, port: None }));
        assert_eq!("tcp:[::1]".parse(), Ok(Active::Tcp { host: "::1".into(), port: None }));
    }

    #[test]
    fn wrong_names_say_what_is_wrong() {
        let active = |s: &str| s.parse::<Active>().unwrap_err();
        assert!(matches!(active("127.0.0.1:6653"), AddressError::Kind { .. }));
        assert!(matches!(active("ptcp:6653"), AddressError::Kind { .. }));
        assert!(matches!(active("ssl:"), AddressError::Host(_)));
        assert!(matches!(active("pssl:6640"), AddressError::Kind { .. }));
        assert!(matches!(active("tcp:"), AddressError::Host(_)));
        assert!(matches!(active("tcp:::1"), AddressError::Host(_)));
        assert!(matches!(active("tcp:[::1"), AddressError::Host(_)));
        assert!(matches!(active("tcp:[::1]x"), AddressError::Host(_)));
        assert!(matches!(active("tcp:h:65536"), AddressError::Port { .. }));
        assert!(matches!(active("tcp:h:+1"), AddressError::Port { .. }));
        assert!(matches!(active("tcp:h:"), AddressError::Port { .. }));
        assert!(matches!(active("unix:"), AddressError::Path(_)));
        let passive = |s: &str| s.parse::<Passive>().unwrap_err();
        assert!(matches!(passive("tcp:1.2.3.4"), AddressError::Kind { .. }));
        assert!(matches!(passive("ptcp:x"), AddressError::Port { .. }));
        assert!(matches!(passive("ptcp:1:"), AddressError::Host(_)));
        assert!(matches!(passive("ptcp:1:1.2.3.4:5"), AddressError::Host(_)));
        assert!(matches!(passive("punix:"), AddressError::Path(_)));
    }

    #[test]
    fn relative_paths_are_under_the_run_directory() {
        let dir = Path::new("/run/hoist");
        assert_eq!("unix:a".parse::<Active>().unwrap().in_dir(dir), Active::Unix("/run/hoist/a".into()));
        assert_eq!("punix:/b".parse::<Passive>().unwrap().in_dir(dir), Passive::Unix("/b".into()));
    }
}
