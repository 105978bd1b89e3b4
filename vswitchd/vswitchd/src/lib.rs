//! vswitchd.
