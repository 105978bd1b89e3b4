//! openflow.
