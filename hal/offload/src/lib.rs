//! offload.
