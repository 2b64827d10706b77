//! The program: a thin wrapper over the library.

use cowherd::cli::{self, Failure};

fn main() -> std::process::ExitCode {
    cli::main_with(|_| Err(Failure::failed("serve: not part of this build")))
}
