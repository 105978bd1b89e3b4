//! nic.
