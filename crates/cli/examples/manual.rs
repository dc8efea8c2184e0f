//! Writes the man pages of `oomguard`, and completions for the usual shells, into a directory. They come from the definition
//! of the command line, so they cannot differ from what the launcher reads. An example, so that the launcher carries no
//! more for it.
//!
//!     cargo run -p oomguard-cli --example manual -- DIRECTORY

// Nothing here reads the options.
#[allow(dead_code)]
#[path = "../src/arguments.rs"]
mod arguments;

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("usage: manual DIRECTORY");
        std::process::exit(2);
    };
    let directory = Path::new(&directory);
    std::fs::create_dir_all(directory)?;
    clap_mangen::generate_to(arguments::Arguments::command(), directory)?;
    for shell in Shell::value_variants() {
        clap_complete::generate_to(*shell, &mut arguments::Arguments::command(), "oomguard", directory)?;
    }
    Ok(())
}
