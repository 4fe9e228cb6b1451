//! Completions for shells, and manual pages: both made from the command line's own shape.
//!
//! In: a shell, or a folder. Out: text on standard output, or files. Called by `commands`.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::fault::Fault;
use crate::output::Output;

/// Which shell.
#[derive(Args, Debug)]
pub(crate) struct Completions {
    #[arg(value_enum)]
    shell: Shell,
}

/// Where pages go.
#[derive(Args, Debug)]
pub(crate) struct Man {
    /// Write a page for each command into this folder, instead of one for all to standard output
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

pub(crate) fn complete(command: &Completions, output: &Output) -> Result<(), Fault> {
    let mut script = Vec::new();
    clap_complete::generate(command.shell, &mut Cli::command(), "onrushctl", &mut script);
    output.raw(&script)
}

pub(crate) fn write_pages(man: &Man, output: &Output) -> Result<(), Fault> {
    let Some(folder) = &man.folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(Fault::Output)?;
        return output.raw(&page);
    };
    let failed = |error| Fault::file(folder, error);
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), folder).map_err(failed)
}
