//! Prints cycles per frame of the parser: `cargo run --release -p bench --example parse`.

fn main() {
    for m in bench::parse::run() {
        println!("{m}");
    }
}
