//! ofproto.
