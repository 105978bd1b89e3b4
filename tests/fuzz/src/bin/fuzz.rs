//! libFuzzer around one target: the one that FUZZ_TARGET names.
#![no_main]
#![allow(unsafe_code)]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    static TARGET: OnceLock<Option<fuzz::Target>> = OnceLock::new();
    let target = TARGET.get_or_init(|| fuzz::target(&std::env::var("FUZZ_TARGET").unwrap_or_default()));
    match target {
        Some(t) => (t.run)(data),
        None => {
            eprintln!("FUZZ_TARGET names none of {}", fuzz::names().join(", "));
            std::process::exit(2);
        }
    }
});
