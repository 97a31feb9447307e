//! The shell blocks of a document, run as they stand there, so that what people copy is what was tested.
//!
//! A block counts when its fence is followed by `sh` and a word: `sh run` for what a walk-through executes, any other word for another
//! purpose (one document may have several walk-throughs).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// How long, in seconds, a whole walk-through may take: a document that waits for ever must fail and not hang.
const TIMEOUT: u32 = 900;

/// One block, with the line on which its text begins.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    pub line: usize,
    pub text: String,
}

/// The blocks of shell in `markdown` whose info string has `word`.
pub fn blocks(markdown: &str, word: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<(&str, bool, Block)> = None;
    for (number, line) in markdown.lines().enumerate() {
        open = match open {
            None => fence(line).map(|(fence, info)| {
                let mut words = info.split_whitespace();
                let is_wanted = words.next() == Some("sh") && words.any(|one| one == word);
                let block = Block {
                    line: number + 2,
                    text: String::new(),
                };
                (fence, is_wanted, block)
            }),
            Some((fence, is_wanted, block)) if line.trim() == fence => {
                if is_wanted {
                    found.push(block);
                }
                None
            }
            Some((fence, is_wanted, mut block)) => {
                block.text.push_str(line);
                block.text.push('\n');
                Some((fence, is_wanted, block))
            }
        };
    }
    assert!(open.is_none(), "a block is not closed");
    found
}

/// A fence of backticks, and what stands behind it.
fn fence(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start();
    let end = line.find(|c| c != '`').unwrap_or(line.len());
    (end >= 3).then(|| line.split_at(end))
}

/// A document of this repository whose blocks are run.
#[derive(Debug)]
pub struct Walkthrough {
    name: String,
    blocks: Vec<Block>,
}

impl Walkthrough {
    /// The blocks marked with `word` in the document at `path` (from the root of the repository).
    pub fn of(path: &str, word: &str) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}"));
        let blocks = blocks(&text, word);
        assert!(!blocks.is_empty(), "{path} has no block of `sh {word}`");
        let name = path.to_owned();
        Self { name, blocks }
    }

    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// All blocks in one shell that ends at the first error. The caller adds what environment the document speaks of.
    ///
    /// `roadstead` means the binary under test; the script itself lies in `dir`, where the shell starts.
    pub fn command(&self, dir: &Path) -> Command {
        let mut script = String::new();
        for block in &self.blocks {
            script.push_str(&format!(
                "echo '== {}:{}' >&2\n{}",
                self.name, block.line, block.text
            ));
        }
        let file = dir.join(".walkthrough.sh");
        fs::write(&file, script).unwrap();
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_roadstead"));
        let mut path = binary.parent().unwrap().as_os_str().to_owned();
        if let Some(usual) = std::env::var_os("PATH") {
            path.push(":");
            path.push(usual);
        }
        let mut command = Command::new("timeout");
        command
            .arg(TIMEOUT.to_string())
            .args(["bash", "-euo", "pipefail"])
            .arg(file)
            .current_dir(dir)
            .env("PATH", path)
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its end with this environment added; panics with the shell's own words where it fails.
    pub fn run(&self, dir: &Path, environment: &[(&str, &str)]) -> Output {
        let mut command = self.command(dir);
        command.envs(environment.iter().copied());
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{} ({}):\n{}{}",
            self.name,
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }
}
