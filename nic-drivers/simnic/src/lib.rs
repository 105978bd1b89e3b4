//! simnic.
