//! The `tideover` binary: parse, dispatch, exit.

fn main() {
    let code = tideover::cli::main(std::env::args_os().collect());
    std::process::exit(code);
}
