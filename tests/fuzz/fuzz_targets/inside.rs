//! For cargo-fuzz: see `targets/inside.rs`.

#![no_main]

#[allow(dead_code, reason = "every target has a program of its own")]
#[path = "../targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::inside::run(data));
