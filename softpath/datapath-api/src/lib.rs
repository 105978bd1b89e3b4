//! datapath-api.
