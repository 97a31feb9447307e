//! What the records know.

use std::collections::{BTreeMap, BTreeSet};

use super::super::catalog::Snapshot;
use super::super::image::Repository;
use super::listed::{self, Missing};
use super::pulled::{self, Pulled};
use super::{PAGE, Records};
use crate::auth::is_shown_as;
use crate::clock::Wall;
use crate::store::IndexError;
use crate::store::index::{MissingKey, PullPlace, PulledRow, PullsWanted};

impl Records {
    /// What was pulled since then, by any of these (names of users, and patterns of them): each tag once with what it meant last, what was
    /// asked for by digest alone once, and what was taken of an index with it.
    pub async fn pulled_since(
        &self,
        since: Option<Wall>,
        by: Option<&[String]>,
    ) -> Result<Vec<Pulled>, IndexError> {
        let (mut all, mut image, mut behind) = (Vec::new(), Vec::<PulledRow>::new(), None);
        let wanted = self.wanted(since, None, by).await?;
        loop {
            let page = self.page(wanted.clone(), behind, PAGE).await?;
            let is_last = page.len() < PAGE;
            behind = page.last().map(place);
            for row in page {
                let is_next = |last: &PulledRow| (&last.repo, &last.name) != (&row.repo, &row.name);
                if image.last().is_some_and(is_next) {
                    all.extend(pulled::fold(std::mem::take(&mut image)));
                }
                image.push(row);
            }
            if is_last {
                all.extend(pulled::fold(image));
                return Ok(all);
            }
        }
    }

    /// What is asked of the record of pulls.
    pub async fn wanted(
        &self,
        since: Option<Wall>,
        repo: Option<String>,
        by: Option<&[String]>,
    ) -> Result<PullsWanted, IndexError> {
        self.inner.write(false).await?;
        let by = match by {
            None => None,
            Some(names) => {
                let mut pullers = self.inner.store.index().pullers().await?;
                pullers.retain(|shown| is_shown_as(shown, names));
                Some(pullers)
            }
        };
        Ok(PullsWanted { since, repo, by })
    }

    /// A page of pulls as they were asked for, in the order of repository, image, reference and digest.
    pub async fn page(
        &self,
        wanted: PullsWanted,
        behind: Option<PullPlace>,
        most: usize,
    ) -> Result<Vec<PulledRow>, IndexError> {
        let index = self.inner.store.index();
        index.pulls(wanted, behind, most).await
    }

    /// A page of what is missing, in the order of repository, image, reference and kind.
    pub async fn missing(
        &self,
        there: &Snapshot,
        behind: Option<MissingKey>,
        most: usize,
    ) -> Result<Vec<Missing>, IndexError> {
        self.inner.write(false).await?;
        let keys = there.iter().map(|(key, repository)| {
            let mut keys = vec![key.to_string()];
            if let Repository::Virtual(several) = repository {
                keys.extend(several.members().map(ToString::to_string));
            }
            (key.to_string(), keys)
        });
        let keys: BTreeMap<String, Vec<String>> = keys.collect();
        let index = self.inner.store.index();
        let rows = index.missing(keys, behind, most).await?;
        let missing = rows.into_iter().map(|(row, part_of)| Missing {
            line: listed::line(there.settings(), &row, part_of.as_deref()),
            row,
        });
        Ok(missing.collect())
    }

    /// How much is missing.
    pub async fn count_missing(&self) -> Result<u64, IndexError> {
        self.inner.write(false).await?;
        self.inner.store.index().count_missing().await
    }

    /// What is missing as a list of images, one a line.
    pub async fn missing_list(&self, there: &Snapshot) -> Result<String, IndexError> {
        let (mut lines, mut left_out, mut behind) = (BTreeSet::new(), 0, None);
        loop {
            let page = self.missing(there, behind, PAGE).await?;
            let is_last = page.len() < PAGE;
            behind = page.last().map(|one| one.row.key.clone());
            for one in page {
                match one.line {
                    Some(line) => {
                        lines.insert(line);
                    }
                    None => left_out += 1,
                }
            }
            if is_last {
                return Ok(listed::text(&lines, left_out));
            }
        }
    }

    /// Forgets what was missed for the last time until then.
    pub async fn clear_missing(&self, until: Wall) -> Result<usize, IndexError> {
        self.inner.write(false).await?;
        let _order = self.inner.writing.lock().await;
        let cleared = self.inner.store.index().clear_missing(until).await?;
        self.inner.learn().await?;
        Ok(cleared)
    }
}

/// Where the page behind a row begins.
pub fn place(row: &PulledRow) -> PullPlace {
    let digest = row.digest.to_string();
    [
        row.repo.clone(),
        row.name.clone(),
        row.reference.clone(),
        digest,
    ]
}
