//! The program for clients: a thin wrapper over the library.

fn main() -> std::process::ExitCode {
    cowherd::cli::attach_with(cowherd::attach::run)
}
