//! What is fuzzed: functions that take any bytes and panic where a promise is broken.
//!
//! They use the pure parts of the program, and those that read what they are handed: files below a
//! directory, and file systems. `fuzz_targets` hands them to cargo-fuzz, and the
//! test `fuzz` to a driver of its own, which needs no special compiler.

pub(crate) mod attach;
pub(crate) mod boundary;
pub(crate) mod checkpoint;
pub(crate) mod dhcp;
pub(crate) mod handshake;
pub(crate) mod inside;
pub(crate) mod journal;
pub(crate) mod leases;
pub(crate) mod names;
pub(crate) mod session;
pub(crate) mod tftp;
pub(crate) mod transmission;

/// One function, and the folder of its corpus.
pub(crate) struct Target {
    /// The folder.
    pub(crate) name: &'static str,
    /// The function.
    pub(crate) run: fn(&[u8]),
}

/// All of them.
pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "handshake",
        run: handshake::run,
    },
    Target {
        name: "transmission",
        run: transmission::run,
    },
    Target {
        name: "session",
        run: session::run,
    },
    Target {
        name: "tls_boundary",
        run: boundary::run,
    },
    Target {
        name: "journal",
        run: journal::run,
    },
    Target {
        name: "checkpoint",
        run: checkpoint::run,
    },
    Target {
        name: "dhcp",
        run: dhcp::run,
    },
    Target {
        name: "leases",
        run: leases::run,
    },
    Target {
        name: "tftp",
        run: tftp::run,
    },
    Target {
        name: "names",
        run: names::run,
    },
    Target {
        name: "inside",
        run: inside::run,
    },
    Target {
        name: "attach",
        run: attach::run,
    },
];

/// Fails for one input. A fuzzer that does not find it finds nothing.
pub(crate) const CANARY: Target = Target {
    name: "canary",
    run: |data| assert!(!data.starts_with(b"moo!"), "the canary was found"),
};

/// Takes values off the front of an input; zeros where there is no more.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    /// So many bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let front = self.bytes(N);
        array[..front.len()].copy_from_slice(front);
        array
    }

    /// One byte.
    pub(crate) fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// A number.
    pub(crate) fn number(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    /// At most so many bytes.
    pub(crate) fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (front, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        front
    }
}

/// Lengths of pieces that a stream is cut into, other ones for every seed.
pub(crate) fn pieces(mut seed: u8) -> impl Iterator<Item = usize> {
    std::iter::repeat_with(move || {
        seed = seed.wrapping_mul(181).wrapping_add(71);
        1 + usize::from(seed) % 40
    })
}
