//! Views of packet headers in place: read and write without copying.
//!
//! A view wraps any bytes (`&[u8]` to read, `&mut [u8]` to write too) that start with the header. `new` checks once that
//! the fixed part is there, so accessors of the fixed part cannot fail; a variable part is reached through methods that
//! return an `Option` or a slice cut to what is there. Values are in host byte order.
//!
//! Views know nothing of each other: [`mod@crate::parse`] finds out what follows what. Writers do not update checksums.
//!
//! ```
//! use flow::headers::{Ethernet, MacAddr};
//! let mut frame = [0u8; 60];
//! Ethernet::new(&mut frame[..]).unwrap().set_dst(MacAddr([2, 0, 0, 0, 0, 1]));
//! assert_eq!(Ethernet::new(&frame[..]).unwrap().dst().to_string(), "02:00:00:00:00:01");
//! ```

mod ethernet;
mod icmp;
mod ip;
mod mac;
mod transport;

pub use ethernet::{Arp, Ethernet, Mpls, Vlan, eth_type};
pub use icmp::{Icmp, Icmpv6, NdOption, NdOptions, Neighbour};
pub use ip::{Ipv4, Ipv6, Ipv6Extension, Ipv6Fragment, ip_proto};
pub use mac::{MacAddr, MacParseError};
pub use transport::{Sctp, Tcp, Udp};

/// The bytes end before the fixed part of the header does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{header} header needs {needed_bytes} bytes, {have_bytes} are there")]
pub struct TooShort {
    /// Which header.
    pub header: &'static str,
    /// Length of its fixed part.
    pub needed_bytes: usize,
    /// Bytes that are there.
    pub have_bytes: usize,
}

/// Reading and writing an integer or address at an offset, big-endian.
trait Wire: Sized {
    fn read(b: &[u8], at: usize) -> Self;
    fn write(self, b: &mut [u8], at: usize);
}

macro_rules! wire_int {
    ($($t:ty),*) => { $(
        impl Wire for $t {
            #[inline]
            fn read(b: &[u8], at: usize) -> Self {
                let mut a = [0u8; size_of::<$t>()];
                a.copy_from_slice(&b[at..at + size_of::<$t>()]);
                <$t>::from_be_bytes(a)
            }
            #[inline]
            fn write(self, b: &mut [u8], at: usize) {
                b[at..at + size_of::<$t>()].copy_from_slice(&self.to_be_bytes());
            }
        }
    )* };
}
wire_int!(u8, u16, u32, u64, u128);

impl Wire for MacAddr {
    #[inline]
    fn read(b: &[u8], at: usize) -> Self {
        let mut a = [0u8; 6];
        a.copy_from_slice(&b[at..at + 6]);
        MacAddr(a)
    }
    #[inline]
    fn write(self, b: &mut [u8], at: usize) {
        b[at..at + 6].copy_from_slice(&self.0);
    }
}

impl Wire for std::net::Ipv4Addr {
    #[inline]
    fn read(b: &[u8], at: usize) -> Self {
        u32::read(b, at).into()
    }
    #[inline]
    fn write(self, b: &mut [u8], at: usize) {
        u32::from(self).write(b, at);
    }
}

impl Wire for std::net::Ipv6Addr {
    #[inline]
    fn read(b: &[u8], at: usize) -> Self {
        u128::read(b, at).into()
    }
    #[inline]
    fn write(self, b: &mut [u8], at: usize) {
        u128::from(self).write(b, at);
    }
}

/// Declares a view: its name, the length of the fixed part, and getter and setter of each plain field at its offset.
macro_rules! view {
    ($(#[$doc:meta])* $name:ident $len:literal {
        $( $(#[$fdoc:meta])* $get:ident, $set:ident : $t:ty = $at:literal; )*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name<T>(T);

        impl<T: AsRef<[u8]>> $name<T> {
            /// Length of the fixed part in bytes.
            pub const LEN: usize = $len;

            /// A view of `bytes`, which start with the header and may go on after it.
            ///
            /// # Errors
            /// [`TooShort`](super::TooShort) when the fixed part is not wholly there.
            #[inline]
            pub fn new(bytes: T) -> Result<Self, super::TooShort> {
                let have_bytes = bytes.as_ref().len();
                if have_bytes < $len {
                    return Err(super::TooShort { header: stringify!($name), needed_bytes: $len, have_bytes });
                }
                Ok($name(bytes))
            }

            /// The bytes it was made of.
            #[inline]
            pub fn into_inner(self) -> T {
                self.0
            }

            $(
                $(#[$fdoc])*
                #[inline]
                pub fn $get(&self) -> $t {
                    <$t as super::Wire>::read(self.0.as_ref(), $at)
                }
            )*
        }

        impl<T: AsRef<[u8]> + AsMut<[u8]>> $name<T> {
            $(
                #[doc = concat!("Writes what [`", stringify!($name), "::", stringify!($get), "`] reads.")]
                #[inline]
                pub fn $set(&mut self, v: $t) {
                    <$t as super::Wire>::write(v, self.0.as_mut(), $at);
                }
            )*
        }
    };
}
use view;

#[cfg(test)]
mod tests;
