//! The `rejoinder` program.

fn main() -> std::process::ExitCode {
    rejoinder::cli::run()
}
