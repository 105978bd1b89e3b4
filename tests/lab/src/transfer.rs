//! Data over TCP from one host to another, compared by its digest.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::command::{Running, done, inside};
use crate::lan::{Lan, address};

/// Seconds that a transfer may take.
const TIMEOUT_S: &str = "60";

/// What was sent and what arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// Bytes and their SHA-256, at the sender.
    pub sent: String,
    /// The same at the receiver.
    pub received: String,
}

impl Transfer {
    /// Whether `bytes` bytes arrived as they were sent.
    pub fn is_whole(&self, bytes: u64) -> bool {
        self.sent == self.received && self.sent.starts_with(&format!("{bytes} "))
    }
}

/// Starts Python `code` on host `n` and waits until it says `ready`; its output comes with it.
fn start(lan: &Lan, n: u8, code: &str) -> Result<(Running, BufReader<std::process::ChildStdout>)> {
    let child = inside(&lan.host(n), "python3").args(["-c", code]).stdout(Stdio::piped()).spawn();
    let mut process = Running(child.context("cannot start the server")?);
    let mut out = BufReader::new(process.0.stdout.take().context("the server has no output")?);
    let mut line = String::new();
    out.read_line(&mut line)?;
    if line.trim() != "ready" {
        bail!("the TCP server does not start: {line}");
    }
    Ok((process, out))
}

/// A server on a host that accepts connections, says `hello` to each and closes it. Ended when dropped.
pub struct Listener {
    _process: Running,
}

impl Listener {
    /// Listens on `port` of host `n`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(lan: &Lan, n: u8, port: u16) -> Result<Listener> {
        let code = format!(
            "import socket\n\
             l=socket.create_server(('',{port}));print('ready',flush=True)\n\
             while True: a,_=l.accept();a.sendall(b'hello');a.close()"
        );
        Ok(Listener { _process: start(lan, n, &code)?.0 })
    }
}

/// Whether host `from` reaches a [`Listener`] at `address` and `port`: it answers within two seconds.
pub fn reaches(lan: &Lan, from: u8, address: &str, port: u16) -> bool {
    let code = format!(
        "import socket;s=socket.create_connection(('{address}',{port}),2);assert s.recv(5)==b'hello'"
    );
    done(inside(&lan.host(from), "timeout").args([TIMEOUT_S, "python3", "-c", &code])).is_ok()
}

/// Moves `bytes` random bytes from host `from` to host `to`.
///
/// # Errors
/// When one of the ends does not start, or the sender fails.
pub fn tcp(lan: &Lan, from: u8, to: u8, bytes: u64) -> Result<Transfer> {
    let server = format!(
        "import socket,hashlib\n\
         l=socket.create_server(('{}',5001));print('ready',flush=True);a,_=l.accept();h=hashlib.sha256();n=0\n\
         while b:=a.recv(65536): h.update(b);n+=len(b)\n\
         print(n,h.hexdigest())",
        address(to)
    );
    let client = format!(
        "import socket,hashlib,random\n\
         d=random.Random(7).randbytes({bytes});s=socket.create_connection(('{}',5001),10)\n\
         s.sendall(d);s.shutdown(1);s.recv(1)\n\
         print(len(d),hashlib.sha256(d).hexdigest())",
        address(to)
    );
    let (_listening, mut out) = start(lan, to, &server)?;
    let sent = done(inside(&lan.host(from), "timeout").args([TIMEOUT_S, "python3", "-c", &client]))?;
    let mut received = String::new();
    out.read_to_string(&mut received)?;
    let sent = String::from_utf8_lossy(&sent.stdout).trim().to_owned();
    Ok(Transfer { sent, received: received.trim().to_owned() })
}
