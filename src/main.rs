//! The program: a thin wrapper over the library.

use cowherd::cli::{Work, main_with};
use cowherd::serve;

fn main() -> std::process::ExitCode {
    main_with(Work {
        serve: serve::run,
        overlay: serve::control::run,
        explain: serve::explain::run,
        grub: serve::grub::run,
        doctor: serve::doctor::run,
    })
}
