//! The program: a thin wrapper over the library.

fn main() -> std::process::ExitCode {
    cowherd::cli::main_with(cowherd::serve::run)
}
