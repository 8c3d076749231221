//! `tideover completions` and `tideover man`.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::args::Cli;
use super::output::Failure;

pub(super) fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tideover", &mut script);
    Ok(std::io::stdout().lock().write_all(&script)?)
}

/// The page of tideover itself, or those of all verbs as files.
pub(super) fn man(out: Option<&Path>) -> Result<(), Failure> {
    // Pages of `help` would only repeat the others.
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    if let Some(dir) = out {
        return Ok(write_pages(&command, dir)
            .with_context(|| format!("cannot write the pages into {}", dir.display()))?);
    }
    let mut text = Vec::new();
    page(&command).render(&mut text)?;
    Ok(std::io::stdout().lock().write_all(&text)?)
}

fn write_pages(command: &Command, dir: &Path) -> std::io::Result<()> {
    page(command).generate_to(dir)?;
    command.get_subcommands().try_for_each(|verb| write_pages(verb, dir))
}

fn page(command: &Command) -> Man {
    Man::new(command.clone()).source(concat!("tideover ", env!("CARGO_PKG_VERSION")))
}
