//! simnic-defs.
