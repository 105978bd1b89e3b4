//! hoist
fn main() {}
