//! The `tideover` binary: parse, dispatch, exit.

fn main() {}
