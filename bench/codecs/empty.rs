//! Nothing: the package has a benchmark only.
