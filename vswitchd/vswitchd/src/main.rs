//! vswitchd
fn main() {}
