//! `tideover completions` and `tideover man`.

use std::io::Write as _;

use clap::CommandFactory as _;

use super::args::Cli;
use super::output::Failure;

pub(super) fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tideover", &mut script);
    Ok(std::io::stdout().lock().write_all(&script)?)
}

pub(super) fn man() -> Result<(), Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page)?;
    Ok(std::io::stdout().lock().write_all(&page)?)
}
