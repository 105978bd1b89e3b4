//! The datapath syntax.
