//! The `rejoinder` program.

fn main() {}
