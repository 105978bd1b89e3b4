//! layering.
