//! The `roadstead` program; everything is in the library.

fn main() -> std::process::ExitCode {
    roadstead::cli::main()
}
