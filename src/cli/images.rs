//! Which images a command is about: named, listed, locked, or pulled before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use crate::bundle::asked::{Asked, ListFile, ListKind, Pulled, TextFile};
use crate::bundle::list::LIST_MAX;
use crate::bundle::lock::LOCK_MAX;
use crate::config;

#[derive(Debug, Clone, Args)]
pub(super) struct Images {
    /// Images, such as nginx:1.27 or ghcr.io/owner/app@sha256:…
    #[arg(value_name = "IMAGE")]
    named: Vec<String>,
    /// A list of images: one a line, or YAML or TOML with patterns; - reads standard input; may be given several times
    #[arg(short, long, value_name = "LIST")]
    file: Vec<PathBuf>,
    /// What -f names is a lock, as `roadstead lock` writes it
    #[arg(long, requires = "file")]
    locked: bool,
    /// Every image of these Kubernetes manifests, or of what Helm renders
    #[arg(long, value_name = "FILE")]
    from_kubernetes: Vec<PathBuf>,
    /// Every image of these Compose files
    #[arg(long, value_name = "FILE")]
    from_compose: Vec<PathBuf>,
    /// What was pulled through this mirror in the last time, such as 30d
    #[arg(long, value_name = "DURATION", value_parser = span)]
    pulled_since: Option<std::time::Duration>,
    /// What this user or group has pulled; may be given several times
    #[arg(long, value_name = "NAME")]
    pulled_by: Vec<String>,
    /// Only this platform, such as linux/arm64; may be given several times [default: what the lists say, else all]
    #[arg(long, value_name = "PLATFORM")]
    platform: Vec<String>,
    /// With signatures, SBOMs and attestations
    #[arg(long)]
    with_referrers: bool,
}

fn span(text: &str) -> Result<std::time::Duration, String> {
    config::parse_span(text).ok_or_else(|| "write 12h, 30d and the like".to_owned())
}

impl Images {
    /// Reads the files, and checks them before anybody is asked for anything.
    pub(super) fn read(&self, environment: &[(String, String)]) -> anyhow::Result<Asked> {
        let mut asked = Asked {
            images: self.named.clone(),
            platforms: self.platform.clone(),
            with_referrers: self.with_referrers,
            ..Asked::default()
        };
        if self.locked {
            let [file] = self.file.as_slice() else {
                bail!("--locked goes with one lock: -f FILE");
            };
            if !self.platform.is_empty() || self.with_referrers {
                bail!(
                    "a lock says which platforms and referrers there are; leave out --platform and --with-referrers"
                );
            }
            asked.lock = Some(TextFile {
                file: file.display().to_string(),
                text: text(file, LOCK_MAX)?,
            });
        } else {
            asked.lists(&self.file, ListKind::List, environment)?;
        }
        asked.lists(&self.from_kubernetes, ListKind::Kubernetes, environment)?;
        asked.lists(&self.from_compose, ListKind::Compose, environment)?;
        if self.pulled_since.is_some() || !self.pulled_by.is_empty() {
            asked.pulled = Some(Pulled {
                since_seconds: self.pulled_since.map(|span| span.as_secs()),
                by: self.pulled_by.clone(),
            });
        }
        if asked.is_empty() {
            bail!("no image is named: name some, or give a list with -f");
        }
        asked.wanted()?;
        asked.locked()?;
        Ok(asked)
    }
}

impl Asked {
    fn lists(
        &mut self,
        files: &[PathBuf],
        kind: ListKind,
        environment: &[(String, String)],
    ) -> anyhow::Result<()> {
        for file in files {
            let text = text(file, LIST_MAX)?;
            // What the file does not name is nobody's business.
            let variables: BTreeMap<String, String> = match kind {
                ListKind::Compose => environment
                    .iter()
                    .filter(|(name, _)| text.contains(name.as_str()))
                    .cloned()
                    .collect(),
                ListKind::List | ListKind::Kubernetes => BTreeMap::new(),
            };
            self.lists.push(ListFile {
                kind,
                file: file.display().to_string(),
                text,
                variables,
            });
        }
        Ok(())
    }
}

/// A file of at most `most` bytes; `-` is standard input.
fn text(file: &Path, most: usize) -> anyhow::Result<String> {
    let bytes = super::files::read(file, most)?;
    String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8", file.display()))
}
