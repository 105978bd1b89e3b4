//! Network interfaces of the host: looking them up, their state, switching their offloads off.
//!
//! By ioctl on a socket of the calling thread's network namespace (netdevice(7), linux/ethtool.h).
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use device::{LinkState, PortCounters};

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GSET: u32 = 0x01;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_SRXCSUM: u32 = 0x15;
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_SSG: u32 = 0x19;
const ETHTOOL_STSO: u32 = 0x1f;
const ETHTOOL_SGSO: u32 = 0x24;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETHTOOL_SGRO: u32 = 0x2c;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
/// Flags of ETHTOOL_SFLAGS: VLAN tags in metadata on transmission and reception, large receive offload.
const FLAG_TXVLAN: u32 = 1 << 7;
const FLAG_RXVLAN: u32 = 1 << 8;
const FLAG_LRO: u32 = 1 << 15;

/// Why an interface could not be opened or changed.
#[derive(thiserror::Error, Debug)]
#[allow(missing_docs)]
pub enum OpenError {
    #[error("interface {name} does not exist in this network namespace: {source}")]
    NoInterface { name: String, source: io::Error },
    #[error("{name:?} is no interface name (1 to 15 bytes, no slash, space or colon)")]
    BadName { name: String },
    #[error("no permission to open interface {name} ({op}): it takes the capabilities NET_RAW and NET_ADMIN")]
    NoPermission { name: String, op: &'static str },
    #[error("interface {name} is no Ethernet interface (type {kind})")]
    NotEthernet { name: String, kind: u16 },
    #[error("interface {name}: {op}: {source}")]
    Os { name: String, op: &'static str, source: io::Error },
}

impl OpenError {
    /// What the last system call, `op` on interface `name`, failed with.
    pub(crate) fn last(name: &str, op: &'static str) -> Self {
        Self::from_io(name, op, io::Error::last_os_error())
    }

    pub(crate) fn from_io(name: &str, op: &'static str, source: io::Error) -> Self {
        let name = name.to_owned();
        match source.raw_os_error() {
            Some(libc::ENODEV | libc::ENXIO) => OpenError::NoInterface { name, source },
            Some(libc::EPERM | libc::EACCES) => OpenError::NoPermission { name, op },
            _ => OpenError::Os { name, op, source },
        }
    }
}

/// An interface name in the form the kernel takes.
#[derive(Clone, Copy)]
pub(crate) struct IfName([libc::c_char; libc::IFNAMSIZ]);

impl IfName {
    pub(crate) fn new(name: &str) -> Result<Self, OpenError> {
        let bad = |b: u8| b == 0 || b == b'/' || b == b':' || b.is_ascii_whitespace();
        if name.is_empty()
            || name.len() >= libc::IFNAMSIZ
            || name.bytes().any(bad)
            || name == "."
            || name == ".."
        {
            return Err(OpenError::BadName { name: name.to_owned() });
        }
        let mut n = [0; libc::IFNAMSIZ];
        for (to, from) in n.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        Ok(IfName(n))
    }

    pub(crate) fn request(self) -> libc::ifreq {
        // SAFETY: ifreq is plain data, for which zero is valid.
        let mut r: libc::ifreq = unsafe { std::mem::zeroed() };
        r.ifr_name = self.0;
        r
    }
}

/// What drives an interface.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Driver {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Version of the device's firmware; empty where there is none.
    pub firmware: String,
}

/// An interface of one network namespace.
#[derive(Debug)]
pub struct Netdev {
    name: String,
    socket: OwnedFd,
    /// Interface index.
    index: i32,
}

/// Takes ownership of what a system call returned.
pub(crate) fn owned(fd: i32) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just returned by a call that makes a new descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl Netdev {
    /// The interface called `name` in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`OpenError::NoInterface`], [`OpenError::BadName`], [`OpenError::Os`].
    pub fn open(name: &str) -> Result<Self, OpenError> {
        let if_name = IfName::new(name)?;
        // SAFETY: plain system call; the result is checked.
        let socket = owned(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })
            .map_err(|e| OpenError::from_io(name, "socket", e))?;
        let mut n = Netdev { name: name.to_owned(), socket, index: 0 };
        let mut r = if_name.request();
        n.ioctl(libc::SIOCGIFINDEX as libc::c_ulong, &mut r, "SIOCGIFINDEX")?;
        // SAFETY: SIOCGIFINDEX has filled in this member.
        n.index = unsafe { r.ifr_ifru.ifru_ifindex };
        Ok(n)
    }

    fn ioctl(&self, op: libc::c_ulong, r: &mut libc::ifreq, what: &'static str) -> Result<(), OpenError> {
        // SAFETY: `r` is a live ifreq, which is what every operation used here reads and writes; where it holds a pointer
        // (SIOCETHTOOL) the caller has made it point to a live structure of the command's size.
        let rc = unsafe { libc::ioctl(self.socket.as_raw_fd(), op as _, r as *mut libc::ifreq) };
        if rc < 0 { Err(OpenError::last(&self.name, what)) } else { Ok(()) }
    }

    fn get(&self, op: libc::c_ulong, what: &'static str) -> Result<libc::ifreq, OpenError> {
        let mut r = IfName::new(&self.name)?.request();
        self.ioctl(op, &mut r, what)?;
        Ok(r)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its index in its namespace.
    pub fn index(&self) -> i32 {
        self.index
    }

    /// Its Ethernet address.
    ///
    /// # Errors
    /// [`OpenError::NotEthernet`], [`OpenError::Os`].
    pub fn mac(&self) -> Result<[u8; 6], OpenError> {
        let r = self.get(libc::SIOCGIFHWADDR as libc::c_ulong, "SIOCGIFHWADDR")?;
        // SAFETY: SIOCGIFHWADDR has filled in this member.
        let a = unsafe { r.ifr_ifru.ifru_hwaddr };
        if a.sa_family != libc::ARPHRD_ETHER && a.sa_family != libc::ARPHRD_LOOPBACK {
            return Err(OpenError::NotEthernet { name: self.name.clone(), kind: a.sa_family });
        }
        let mut mac = [0; 6];
        for (to, from) in mac.iter_mut().zip(a.sa_data) {
            *to = from as u8;
        }
        Ok(mac)
    }

    /// Its MTU in bytes: the longest network layer packet.
    ///
    /// # Errors
    /// [`OpenError::Os`].
    pub fn mtu(&self) -> Result<usize, OpenError> {
        let r = self.get(libc::SIOCGIFMTU as libc::c_ulong, "SIOCGIFMTU")?;
        // SAFETY: SIOCGIFMTU has filled in this member.
        Ok(usize::try_from(unsafe { r.ifr_ifru.ifru_mtu }).unwrap_or(0))
    }

    /// Whether it is still there under its name; not when another interface has taken the name: sockets do not move over.
    pub fn is_present(&self) -> bool {
        let index = self.get(libc::SIOCGIFINDEX as libc::c_ulong, "SIOCGIFINDEX");
        // SAFETY: SIOCGIFINDEX has filled in this member.
        index.is_ok_and(|r| unsafe { r.ifr_ifru.ifru_ifindex } == self.index)
    }

    /// Its link state; down when it is gone.
    pub fn link(&self) -> LinkState {
        if !self.is_present() {
            return LinkState::default();
        }
        let Ok(r) = self.get(libc::SIOCGIFFLAGS as libc::c_ulong, "SIOCGIFFLAGS") else {
            return LinkState::default();
        };
        // SAFETY: SIOCGIFFLAGS has filled in this member.
        let flags = i32::from(unsafe { r.ifr_ifru.ifru_flags });
        LinkState {
            admin_up: flags & libc::IFF_UP != 0,
            link_up: flags & libc::IFF_RUNNING != 0,
            speed_mbps: self.speed_mbps(),
        }
    }

    fn speed_mbps(&self) -> u32 {
        // struct ethtool_cmd: cmd, supported, advertising, speed (16 bits) ..., speed_hi at byte 28.
        let mut c = [0u32; 11];
        c[0] = ETHTOOL_GSET;
        if self.ethtool(&mut c).is_err() {
            return 0;
        }
        let b: Vec<u8> = c.iter().flat_map(|w| w.to_ne_bytes()).collect();
        let half = |at: usize| u32::from(u16::from_ne_bytes([b[at], b[at + 1]]));
        match half(28) << 16 | half(12) {
            u32::MAX => 0,
            mbps => mbps,
        }
    }

    /// How many receive queues it has; 1 when it does not say.
    pub fn rx_queues(&self) -> u32 {
        // struct ethtool_channels: cmd, four maxima, then receive, transmit, other and combined.
        let mut c = [0u32; 9];
        c[0] = ETHTOOL_GCHANNELS;
        match self.ethtool(&mut c) {
            Ok(()) => c[5].saturating_add(c[8]).max(1),
            Err(_) => 1,
        }
    }

    /// The driver that it has (ETHTOOL_GDRVINFO).
    ///
    /// # Errors
    /// [`OpenError::Os`]: there is none that tells of itself.
    pub fn driver(&self) -> Result<Driver, OpenError> {
        let [name, version, firmware, _] = self.driver_texts()?;
        Ok(Driver { name, version, firmware })
    }

    /// Whether it is a device on a bus that has addresses (PCI, USB), not one that the kernel has made; as far as it tells.
    pub fn is_hardware(&self) -> bool {
        self.driver_texts().is_ok_and(|[.., bus]| bus.contains(':') || bus.starts_with("usb-"))
    }

    /// Driver, its version, that of the firmware, and the place on the bus.
    fn driver_texts(&self) -> Result<[String; 4], OpenError> {
        // struct ethtool_drvinfo: cmd, then driver, version, fw_version, bus_info, 32 bytes each, and more; 196 bytes together.
        let mut info = [0u32; 49];
        info[0] = ETHTOOL_GDRVINFO;
        self.ethtool(&mut info)?;
        let bytes: Vec<u8> = info.iter().flat_map(|w| w.to_ne_bytes()).collect();
        let text = |at: usize| {
            let b = &bytes[at..at + 32];
            String::from_utf8_lossy(b.split(|c| *c == 0).next().unwrap_or_default()).into_owned()
        };
        Ok([4, 36, 68, 100].map(text))
    }

    /// What the kernel has counted of it, whoever forwarded it; zeros when it cannot be read.
    pub fn counters(&self) -> PortCounters {
        let get = |what: &str| {
            let text = std::fs::read_to_string(format!("/sys/class/net/{}/statistics/{what}", self.name));
            text.ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0)
        };
        PortCounters {
            rx_packets: get("rx_packets"),
            tx_packets: get("tx_packets"),
            rx_bytes: get("rx_bytes"),
            tx_bytes: get("tx_bytes"),
            rx_dropped: get("rx_dropped"),
            tx_dropped: get("tx_dropped"),
            rx_errors: get("rx_errors"),
            tx_errors: get("tx_errors"),
        }
    }

    /// Brings it up.
    ///
    /// # Errors
    /// [`OpenError::NoPermission`], [`OpenError::Os`].
    pub fn set_up(&self) -> Result<(), OpenError> {
        let mut r = self.get(libc::SIOCGIFFLAGS as libc::c_ulong, "SIOCGIFFLAGS")?;
        // SAFETY: SIOCGIFFLAGS has filled in this member.
        let flags = unsafe { r.ifr_ifru.ifru_flags };
        r.ifr_ifru.ifru_flags = flags | libc::IFF_UP as i16;
        self.ioctl(libc::SIOCSIFFLAGS as libc::c_ulong, &mut r, "SIOCSIFFLAGS")
    }

    /// Gives it an Ethernet address.
    ///
    /// # Errors
    /// [`OpenError::NoPermission`], [`OpenError::Os`].
    pub fn set_mac(&self, mac: [u8; 6]) -> Result<(), OpenError> {
        let mut r = IfName::new(&self.name)?.request();
        // SAFETY: sockaddr is plain data, for which zero is valid.
        let mut a: libc::sockaddr = unsafe { std::mem::zeroed() };
        a.sa_family = libc::ARPHRD_ETHER;
        for (to, from) in a.sa_data.iter_mut().zip(mac) {
            *to = from as libc::c_char;
        }
        r.ifr_ifru.ifru_hwaddr = a;
        self.ioctl(libc::SIOCSIFHWADDR as libc::c_ulong, &mut r, "SIOCSIFHWADDR")
    }

    /// Sets its MTU in bytes.
    ///
    /// # Errors
    /// [`OpenError::NoPermission`], [`OpenError::Os`].
    pub fn set_mtu(&self, mtu: u32) -> Result<(), OpenError> {
        let mut r = self.get(libc::SIOCGIFMTU as libc::c_ulong, "SIOCGIFMTU")?;
        r.ifr_ifru.ifru_mtu = i32::try_from(mtu).unwrap_or(i32::MAX);
        self.ioctl(libc::SIOCSIFMTU as libc::c_ulong, &mut r, "SIOCSIFMTU")
    }

    fn ethtool<const N: usize>(&self, command: &mut [u32; N]) -> Result<(), OpenError> {
        let mut r = IfName::new(&self.name)?.request();
        r.ifr_ifru.ifru_data = command.as_mut_ptr().cast();
        self.ioctl(SIOCETHTOOL, &mut r, "SIOCETHTOOL")
    }

    /// Switches off what makes the kernel hand over packets that are not yet fit for a wire: checksum offload, segmentation
    /// (TSO, GSO), coalescing (GRO, LRO) and VLAN tags beside the packet. What the interface cannot change is left.
    ///
    /// To be called for *both* ends of a veth pair: what one end would offload arrives unfinished at the other.
    ///
    /// # Errors
    /// [`OpenError::NoPermission`]; [`OpenError::NoInterface`] when it went away.
    pub fn disable_offloads(&self) -> Result<(), OpenError> {
        let unsupported = |e: &OpenError| {
            matches!(e, OpenError::Os { source, .. }
                if matches!(source.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)))
        };
        for command in
            [ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO, ETHTOOL_STXCSUM, ETHTOOL_SRXCSUM, ETHTOOL_SSG]
        {
            match self.ethtool(&mut [command, 0]) {
                Err(e) if !unsupported(&e) => return Err(e),
                _ => {}
            }
        }
        let mut flags = [ETHTOOL_GFLAGS, 0];
        if self.ethtool(&mut flags).is_ok() {
            let wanted = flags[1] & !(FLAG_LRO | FLAG_TXVLAN | FLAG_RXVLAN);
            match self.ethtool(&mut [ETHTOOL_SFLAGS, wanted]) {
                Err(e) if !unsupported(&e) => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}

/// [`Netdev::disable_offloads`] for the interface called `name`.
///
/// # Errors
/// Those of [`Netdev::open`] and [`Netdev::disable_offloads`].
pub fn disable_offloads(name: &str) -> Result<(), OpenError> {
    Netdev::open(name)?.disable_offloads()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_interface_and_a_bad_name_are_told_apart() {
        let e = Netdev::open("nosuchif0").unwrap_err();
        assert!(matches!(e, OpenError::NoInterface { .. }));
        assert!(e.to_string().starts_with("interface nosuchif0 does not exist"), "{e}");
        for name in ["", "averyveryverylongname", "a/b", "a b"] {
            assert!(matches!(Netdev::open(name), Err(OpenError::BadName { .. })), "{name:?}");
        }
    }

    #[test]
    fn loopback_is_found() {
        let lo = Netdev::open("lo").unwrap();
        assert!(lo.index() > 0 && lo.mtu().unwrap() > 1000);
        assert_eq!(lo.mac().unwrap(), [0; 6]);
    }
}
