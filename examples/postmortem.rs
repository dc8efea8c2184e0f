//! Indexes the words of all text files below a directory, until memory runs out: a program to look into after its
//! death.
//!
//! ```sh
//! OOMGUARD_LIMIT=128Mi oomguard run --postmortem deaths -- target/release/examples/postmortem ~/src
//! oomguard report deaths
//! ```

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

oomguard::guard!(profile = on);

/// Which words stand where.
#[derive(Default)]
struct Index {
    files: Vec<PathBuf>,
    /// Each file's lines, to be shown with what is found.
    lines: Vec<Vec<String>>,
    positions: HashMap<String, Vec<Position>>,
}

struct Position {
    file: u32,
    line: u32,
    column: u32,
}

impl Index {
    fn add_directory(&mut self, directory: &Path) -> io::Result<()> {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(directory)?.flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for path in entries {
            let Ok(found) = fs::symlink_metadata(&path) else { continue };
            if found.is_dir() {
                self.add_directory(&path)?;
            } else if let Ok(text) = fs::read_to_string(&path) {
                self.add_file(path, &text);
            }
        }
        Ok(())
    }

    fn add_file(&mut self, path: PathBuf, text: &str) {
        let file = self.files.len() as u32;
        self.files.push(path);
        self.lines.push(text.lines().map(str::to_owned).collect());
        for (line, content) in text.lines().enumerate() {
            self.add_words(file, line as u32, content);
        }
    }

    fn add_words(&mut self, file: u32, line: u32, content: &str) {
        let mut column = 0;
        for word in content.split(|c: char| !c.is_alphanumeric()) {
            if !word.is_empty() {
                let position = Position { file, line, column };
                self.positions.entry(word.to_lowercase()).or_default().push(position);
            }
            column += word.len() as u32 + 1;
        }
    }

    /// The word that stands in most places, and the first of them.
    fn most_frequent(&self) -> Option<String> {
        let (word, positions) = self.positions.iter().max_by_key(|(_, positions)| positions.len())?;
        let first = positions.first()?;
        let path = self.files.get(first.file as usize)?;
        let line = self.lines.get(first.file as usize)?.get(first.line as usize)?;
        let at = format!("{}:{}:{}", path.display(), first.line + 1, first.column + 1);
        Some(format!("{word:?} stands in {} places, first {at}: {line}", positions.len()))
    }
}

fn main() -> io::Result<()> {
    let directory = env::args_os().nth(1).expect("usage: postmortem DIRECTORY");
    let mut index = Index::default();
    index.add_directory(directory.as_ref())?;
    println!("{} files, {} words", index.files.len(), index.positions.len());
    println!("{}", index.most_frequent().unwrap_or_default());
    Ok(())
}
