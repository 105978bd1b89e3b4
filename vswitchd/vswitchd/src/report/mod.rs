//! What the switch tells about itself: the documents of [`daemon::report`], made from the running parts.

mod why;

pub use why::{kind_name, why};
