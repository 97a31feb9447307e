//! A question as one statement: a SELECT for each kind of item that can meet it. Pure.
//!
//! The planner knows nothing of how many rows there are, and would go through all tags of a repository where a label names ten of them. So it
//! is told: [`Rank`] says which condition finds the fewest, and the columns of all others are hidden from indexes behind a `+`.

use rusqlite::types::Value as Sql;

use super::clause::{Clause, Fragment};
use super::comparison::{Hide, Rank, Source, one_of};
use super::{Condition, ItemKind, ItemQuery, NumberField, SortField};

/// A condition, and what is known of it before SQL is written.
#[derive(Debug)]
struct Ranked<'q> {
    condition: &'q Condition,
    rank: Rank,
    /// Whether anything can meet it.
    is_possible: bool,
    below: Vec<Self>,
}

/// The statement that answers a page of a question; none where nothing can meet it.
pub(super) fn page(query: &ItemQuery) -> Option<Fragment> {
    let selects = selects(query, Output::Rows);
    // Of a tag there is one manifest and one folder.
    let by_tag = matches!(
        selects.as_slice(),
        [(ItemKind::Manifest | ItemKind::Folder, _)]
    );
    let last: &[&str] = if by_tag { &[] } else { &["kind", "digest"] };
    let Fragment { text, mut values } = union(selects)?;
    let sorted = query
        .sort
        .iter()
        .enumerate()
        .map(|(place, (_, descending))| format!("s{place}{}", direction(*descending)));
    // In one direction with what weighs most, so that the index of it gives the order of the rest as well.
    let descending = query
        .sort
        .first()
        .is_some_and(|(_, descending)| *descending);
    let rest = ["repo", "name", "tag"].iter().chain(last);
    let rest = rest.map(|column| format!("{column}{}", direction(descending)));
    let order: Vec<String> = sorted.chain(rest).collect();
    for bound in [query.limit, query.offset] {
        values.push(Sql::Integer(i64::try_from(bound).unwrap_or(i64::MAX)));
    }
    let text = format!("{text} ORDER BY {} LIMIT ? OFFSET ?", order.join(", "));
    Some(Fragment { text, values })
}

/// The statement that counts all that meet a question.
pub(super) fn count(query: &ItemQuery) -> Option<Fragment> {
    let Fragment { text, values } = union(selects(query, Output::Count))?;
    let text = format!("SELECT sum(n) FROM ({text})");
    Some(Fragment { text, values })
}

const fn direction(descending: bool) -> &'static str {
    if descending { " DESC" } else { "" }
}

fn union(selects: Vec<(ItemKind, Fragment)>) -> Option<Fragment> {
    let (texts, values): (Vec<String>, Vec<Vec<Sql>>) = selects
        .into_iter()
        .map(|(_, select)| (select.text, select.values))
        .unzip();
    (!texts.is_empty()).then(|| Fragment {
        text: texts.join(" UNION ALL "),
        values: values.concat(),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Rows,
    Count,
}

fn selects(query: &ItemQuery, output: Output) -> Vec<(ItemKind, Fragment)> {
    let repos = &query.repos;
    let select = |kind| Some((kind, Source { kind, repos }.select(query, output)?));
    ItemKind::ALL.into_iter().filter_map(select).collect()
}

impl Source<'_> {
    fn select(self, query: &ItemQuery, output: Output) -> Option<Fragment> {
        let keys: Vec<&str> = self.repos.iter().map(|repo| repo.key.as_str()).collect();
        let ranked = self.ranked(&query.find);
        // The index of times begins with the repository, so that all of them must be named where no condition names any.
        let searched = if ranked.rank == Rank::Time {
            Hide::No
        } else {
            Hide::Yes
        };
        let clause = Clause::all([
            Clause::new("tag.gone IS NULL", []),
            self.clause(&ranked, Hide::No),
            one_of(&searched.column("tag.repo"), &keys),
            self.is_there(),
        ]);
        let Clause::Sql(Fragment {
            text: condition,
            values: conditions,
        }) = clause
        else {
            return None;
        };
        let latest = output == Output::Rows
            && matches!(
                query.sort.first(),
                Some((SortField::Number(NumberField::Moved), _))
            );
        let from = self.from(ranked.rank, latest);
        if output == Output::Count {
            return Some(Fragment {
                text: format!("SELECT count(*) AS n FROM {from} WHERE {condition}"),
                values: conditions,
            });
        }
        let (digest, size) = match self.kind {
            ItemKind::Manifest => ("tag.served", "tag.size"),
            ItemKind::Blob => ("edge.digest", "edge.size"),
            ItemKind::Folder => ("tag.served", "0"),
        };
        let mut text = format!(
            "SELECT {} AS kind, tag.repo AS repo, tag.name AS name, tag.tag AS tag, {digest} AS digest, {size} AS size, tag.media_type, tag.moved, tag.checked",
            self.kind.number()
        );
        let mut values = Vec::new();
        for (place, (field, _)) in query.sort.iter().enumerate() {
            let column = self.sorted(*field);
            text = format!("{text}, {} AS s{place}", column.text);
            values.extend(column.values);
        }
        text = format!("{text} FROM {from} WHERE {condition}");
        values.extend(conditions);
        Some(Fragment { text, values })
    }

    /// The tables, with the index that is to be taken; of blobs in the order in which they find the fewest rows. `latest`: by time, of which only
    /// the first are wanted.
    fn from(self, rank: Rank, latest: bool) -> String {
        let index = match rank {
            Rank::Name | Rank::NameRange => " INDEXED BY tag_name",
            Rank::Time => " INDEXED BY tag_moved",
            Rank::Repo if latest => " INDEXED BY tag_moved",
            Rank::Digest | Rank::Property | Rank::Mixed | Rank::Repo | Rank::Nothing => "",
        };
        match (self.kind, rank) {
            (ItemKind::Manifest | ItemKind::Folder, _) => format!("tag{index}"),
            (ItemKind::Blob, Rank::Digest) => {
                "edge CROSS JOIN tag ON tag.served = edge.parent".to_owned()
            }
            (ItemKind::Blob, _) => {
                format!("tag{index} CROSS JOIN edge ON edge.parent = tag.served")
            }
        }
    }

    /// What makes a row an item at all. A blob is one where its bytes are here and may be read under this name; once, however often the
    /// manifest has it.
    fn is_there(self) -> Clause {
        match self.kind {
            ItemKind::Manifest | ItemKind::Folder => Clause::Always,
            ItemKind::Blob => Clause::new(
                "+edge.kind IN ('config', 'layer') AND +edge.digest GLOB 'sha256:*'
                 AND NOT EXISTS (SELECT 1 FROM edge AS other WHERE other.parent = edge.parent AND other.position < edge.position
                     AND +other.digest = edge.digest AND +other.kind IN ('config', 'layer'))
                 AND EXISTS (SELECT 1 FROM link WHERE link.repo = tag.repo AND link.name = tag.name AND link.digest = edge.digest)
                 AND EXISTS (SELECT 1 FROM blob WHERE blob.digest = edge.digest)",
                [],
            ),
        }
    }

    /// A condition with what is known of it, found once from the bottom up.
    fn ranked(self, condition: &Condition) -> Ranked<'_> {
        let (Condition::All(conditions) | Condition::Any(conditions)) = condition else {
            return Ranked {
                condition,
                rank: self.rank(condition),
                is_possible: self.one(condition, Hide::Yes) != Clause::Never,
                below: Vec::new(),
            };
        };
        let below: Vec<Ranked<'_>> = conditions.iter().map(|one| self.ranked(one)).collect();
        let (rank, is_possible) = if matches!(condition, Condition::All(_)) {
            let best = below.iter().map(|one| one.rank).min();
            (best, below.iter().all(|one| one.is_possible))
        } else {
            // An alternative that nothing meets costs nothing.
            let possible = below.iter().filter(|one| one.is_possible);
            let worst = possible.clone().map(|one| one.rank).max();
            let mixed = possible.clone().any(|one| Some(one.rank) != worst);
            let worst = worst.map(|worst| if mixed { worst.max(Rank::Mixed) } else { worst });
            (worst, possible.count() > 0)
        };
        Ranked {
            condition,
            rank: rank.unwrap_or(Rank::Nothing),
            is_possible,
            below,
        }
    }

    fn clause(self, ranked: &Ranked<'_>, hide: Hide) -> Clause {
        let below = ranked.below.iter();
        if matches!(ranked.condition, Condition::All(_)) {
            Clause::all(below.map(|one| {
                let found_by = one.rank.goes_with(ranked.rank);
                self.clause(one, if found_by { hide } else { Hide::Yes })
            }))
        } else if matches!(ranked.condition, Condition::Any(_)) {
            Clause::any(below.map(|one| self.clause(one, hide)))
        } else {
            self.one(ranked.condition, hide)
        }
    }
}
