//! Tells when network interfaces of this network namespace come, go or change (rtnetlink(7), RTMGRP_LINK).

use std::os::fd::{AsRawFd, OwnedFd};

use daemon::signals::Stopped;
use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket};
use tokio::net::UnixDatagram;

/// Group of messages about interfaces.
const RTMGRP_LINK: u32 = 1;

/// A socket that hears of interfaces.
///
/// # Errors
/// What the operating system says.
pub fn open() -> std::io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let s = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    bind(s.as_raw_fd(), &NetlinkAddr::new(0, RTMGRP_LINK))?;
    Ok(s)
}

/// Calls `changed` after each burst of news, until asked to stop. What the news is does not matter: whoever is called looks at
/// the interfaces itself, so that news that did not fit the socket's buffer is no loss.
pub async fn watch(socket: OwnedFd, changed: impl Fn() + Send, mut stopped: Stopped) {
    // A socket of datagrams is all that this type makes of its descriptor; tokio has none for netlink.
    let socket = match UnixDatagram::from_std(socket.into()) {
        Ok(s) => s,
        Err(e) => {
            tracing::warn!("interfaces are looked at now and then only: {e}");
            return;
        }
    };
    let mut buf = [0u8; 8192];
    loop {
        tokio::select! {
            () = stopped.wait() => return,
            r = socket.readable() => if r.is_err() { return },
        }
        let mut heard = false;
        loop {
            match socket.try_recv(&mut buf) {
                Ok(_) => heard = true,
                // Some news was lost, so there was some.
                Err(e) if e.raw_os_error() == Some(nix::libc::ENOBUFS) => heard = true,
                Err(_) => break,
            }
        }
        if heard {
            changed();
        }
    }
}
