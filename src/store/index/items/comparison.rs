//! One comparison of one kind of item: its SQL, and how few rows it finds. Pure.

use rusqlite::types::Value as Sql;
use serde_json::json;

use super::clause::{
    Clause, Fragment, after_prefix, is_pattern, literal_prefix, number, starts_with, text,
};
use super::{
    BLOB_PREFIX, Condition, INDEXES, ItemKind, LIST_FILE, MANIFEST_FILE, NumberField, Operator,
    SearchedRepo, SortField, TextField,
};

const SHA256: &str = "sha256:";
const LABEL: &str = "docker.label.";

/// How few rows a condition finds by an index; the fewest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Digest,
    Name,
    Property,
    NameRange,
    /// Alternatives that are found by several indexes.
    Mixed,
    Time,
    Repo,
    Nothing,
}

/// Where items of one kind come from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) kind: ItemKind,
    pub(super) repos: &'a [SearchedRepo],
}

impl Source<'_> {
    /// One comparison.
    pub(super) fn one(self, condition: &Condition, hide: Hide) -> Clause {
        match condition {
            Condition::All(_) | Condition::Any(_) => Clause::Always,
            Condition::Text(field, operator, value) => self.text(*field, *operator, value, hide),
            Condition::Number(field, operator, value) => {
                let column = self.number(*field, hide);
                let (operator, negated) = operator.positive();
                number(&column, operator, *value).negated_if(negated)
            }
            Condition::Property(key, operator, value) => {
                self.annotated(*operator, |operator| property(key, operator, value, hide))
            }
            Condition::PropertyKey(operator, value) => self.annotated(*operator, |operator| {
                let known = OWN.iter().any(|(key, _)| operator.holds(key, value));
                let label = format!("('{LABEL}' || label.key)");
                Clause::any([
                    Clause::known(known),
                    labelled(text(&label, operator, value), hide),
                    set(text("property.key", operator, value), hide),
                ])
            }),
            Condition::PropertyValue(operator, value) => self.annotated(*operator, |operator| {
                let own = OWN.iter().map(|(_, column)| text(column, operator, value));
                let more = [
                    labelled(text("label.value", operator, value), hide),
                    set(text("property.value", operator, value), hide),
                ];
                Clause::any(own.chain(more))
            }),
        }
    }

    /// A condition of properties; manifests have them and nothing else.
    fn annotated(self, operator: Operator, clause: impl FnOnce(Operator) -> Clause) -> Clause {
        let (operator, negated) = operator.positive();
        let clause = match self.kind {
            ItemKind::Manifest => clause(operator),
            ItemKind::Blob | ItemKind::Folder => Clause::Never,
        };
        clause.negated_if(negated)
    }

    fn text(self, field: TextField, operator: Operator, value: &str, hide: Hide) -> Clause {
        let (positive, negated) = operator.positive();
        let clause = match field {
            TextField::Repo => self.repo(positive, value, hide),
            TextField::Type => Clause::known(
                value == "any" && positive == Operator::Equal
                    || positive.holds(self.kind.as_str(), value),
            ),
            TextField::Path => self.path(positive, value, hide),
            TextField::Name => self.name(positive, value, hide),
            TextField::Sha256 => self.sha256(positive, value, hide),
        };
        clause.negated_if(negated)
    }

    fn repo(self, operator: Operator, value: &str, hide: Hide) -> Clause {
        let keys: Vec<&str> = self
            .repos
            .iter()
            .filter(|repo| {
                operator.holds(&repo.shown, value)
                    || (operator == Operator::Equal && repo.also.iter().any(|name| name == value))
            })
            .map(|repo| repo.key.as_str())
            .collect();
        if keys.len() == self.repos.len() {
            return Clause::Always;
        }
        one_of(&hide.column("tag.repo"), &keys)
    }

    fn path(self, operator: Operator, value: &str, hide: Hide) -> Clause {
        let name = hide.column("tag.name");
        if self.kind == ItemKind::Folder {
            return text(&name, operator, value);
        }
        let whole = "(tag.name || '/' || tag.tag)";
        if operator == Operator::Match && is_pattern(value) {
            let range = names_of(&name, literal_prefix(value));
            return Clause::all([range, text(whole, operator, value)]);
        }
        if !matches!(operator, Operator::Equal | Operator::Match) {
            return text(whole, operator, value);
        }
        value
            .rsplit_once('/')
            .map_or(Clause::Never, |(image, tag)| {
                Clause::all([
                    text(&name, Operator::Equal, image),
                    text(&hide.column("tag.tag"), Operator::Equal, tag),
                ])
            })
    }

    fn name(self, operator: Operator, value: &str, hide: Hide) -> Clause {
        match self.kind {
            ItemKind::Folder => text(&hide.column("tag.tag"), operator, value),
            ItemKind::Manifest => {
                let lists = || INDEXES.map(|kind| Sql::Text(kind.to_owned()));
                match (
                    operator.holds(MANIFEST_FILE, value),
                    operator.holds(LIST_FILE, value),
                ) {
                    (true, true) => Clause::Always,
                    (false, false) => Clause::Never,
                    (true, false) => Clause::new("tag.media_type NOT IN (?, ?)", lists()),
                    (false, true) => Clause::new("tag.media_type IN (?, ?)", lists()),
                }
            }
            ItemKind::Blob => match blob_name(operator, value) {
                Some(rest) => {
                    let digest = format!("{SHA256}{rest}");
                    self.hash(operator, &digest, hide)
                }
                None if may_be_blob(operator, value) => text(
                    &format!("('{BLOB_PREFIX}' || substr(edge.digest, 8))"),
                    operator,
                    value,
                ),
                None => Clause::Never,
            },
        }
    }

    fn sha256(self, operator: Operator, value: &str, hide: Hide) -> Clause {
        self.hash(operator, &format!("{SHA256}{value}"), hide)
    }

    /// The digest of a file, compared with text that begins as digests do.
    fn hash(self, operator: Operator, value: &str, hide: Hide) -> Clause {
        let column = match self.kind {
            ItemKind::Manifest => "tag.served",
            ItemKind::Blob => "edge.digest",
            ItemKind::Folder => return Clause::Never,
        };
        if value.strip_prefix(SHA256) == Some("*") && operator == Operator::Match {
            return Clause::new(format!("{column} GLOB 'sha256:*'"), []);
        }
        text(&hide.column(column), operator, value)
    }

    fn number(self, field: NumberField, hide: Hide) -> String {
        match (field, self.kind) {
            (NumberField::Size, ItemKind::Manifest) => "tag.size".to_owned(),
            (NumberField::Size, ItemKind::Blob) => "edge.size".to_owned(),
            (NumberField::Size, ItemKind::Folder) => "0".to_owned(),
            (NumberField::Depth, kind) => {
                // The last component of the name, the tag, and the file in it.
                let more = if kind == ItemKind::Folder { 2 } else { 3 };
                format!("(length(tag.name) - length(replace(tag.name, '/', '')) + {more})")
            }
            (NumberField::Moved, _) => hide.column("tag.moved"),
            (NumberField::Checked, _) => "tag.checked".to_owned(),
        }
    }

    pub(super) fn sorted(self, field: SortField) -> Fragment {
        let text = match field {
            SortField::Number(field) => self.number(field, Hide::No),
            SortField::Text(TextField::Repo) => return shown(self.repos),
            SortField::Text(TextField::Type) => format!("'{}'", self.kind.as_str()),
            SortField::Text(TextField::Path) => match self.kind {
                ItemKind::Manifest | ItemKind::Blob => "(tag.name || '/' || tag.tag)".to_owned(),
                ItemKind::Folder => "tag.name".to_owned(),
            },
            SortField::Text(TextField::Name) => match self.kind {
                ItemKind::Manifest => format!(
                    "iif(tag.media_type IN ('{}', '{}'), '{LIST_FILE}', '{MANIFEST_FILE}')",
                    INDEXES[0], INDEXES[1]
                ),
                ItemKind::Blob => format!("('{BLOB_PREFIX}' || substr(edge.digest, 8))"),
                ItemKind::Folder => "tag.tag".to_owned(),
            },
            SortField::Text(TextField::Sha256) => match self.kind {
                ItemKind::Manifest => "tag.served".to_owned(),
                ItemKind::Blob => "edge.digest".to_owned(),
                ItemKind::Folder => "''".to_owned(),
            },
        };
        Fragment {
            text,
            values: Vec::new(),
        }
    }

    /// How few rows one comparison finds.
    pub(super) fn rank(self, condition: &Condition) -> Rank {
        match condition {
            Condition::Text(field, operator, value) => self.rank_of_text(*field, *operator, value),
            Condition::Number(NumberField::Moved, operator, _) if !operator.positive().1 => {
                Rank::Time
            }
            Condition::Property(key, operator, value) => rank_of_property(key, *operator, value),
            Condition::All(_)
            | Condition::Any(_)
            | Condition::Number(..)
            | Condition::PropertyKey(..)
            | Condition::PropertyValue(..) => Rank::Nothing,
        }
    }

    fn rank_of_text(self, field: TextField, operator: Operator, value: &str) -> Rank {
        match field {
            TextField::Repo if operator == Operator::Equal => Rank::Repo,
            TextField::Path => rank_of_name(operator, value),
            TextField::Name if self.kind == ItemKind::Blob => {
                let digest = blob_name(operator, value).unwrap_or_default();
                rank_of_digest(operator, digest)
            }
            TextField::Sha256 => rank_of_digest(operator, value),
            TextField::Repo | TextField::Name | TextField::Type => Rank::Nothing,
        }
    }
}

impl Rank {
    /// Whether an index serves this one together with the best.
    pub(super) fn goes_with(self, best: Self) -> bool {
        self == best
            || (self == Self::Repo && matches!(best, Self::Name | Self::NameRange | Self::Time))
    }
}

fn rank_of_digest(operator: Operator, value: &str) -> Rank {
    let names = matches!(operator, Operator::Equal | Operator::Match);
    if names && !literal_prefix(value).is_empty() {
        Rank::Digest
    } else {
        Rank::Nothing
    }
}

fn rank_of_name(operator: Operator, value: &str) -> Rank {
    let is_range = operator == Operator::Match && is_pattern(value);
    if is_range && !literal_prefix(value).is_empty() {
        Rank::NameRange
    } else if !is_range && matches!(operator, Operator::Equal | Operator::Match) {
        Rank::Name
    } else {
        Rank::Nothing
    }
}

fn rank_of_property(key: &str, operator: Operator, value: &str) -> Rank {
    let own = OWN.iter().any(|(own, _)| *own == key);
    match key {
        "docker.repoName" => rank_of_name(operator, value),
        "docker.manifest.digest" | "sha256" => rank_of_digest(operator, value),
        _ if own || operator.positive().1 => Rank::Nothing,
        // Whoever has the key at all may be many, and are still fewer than all.
        _ => Rank::Property,
    }
}

/// Whether a column is kept from indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hide {
    Yes,
    No,
}

impl Hide {
    pub(super) fn column(self, column: &str) -> String {
        match self {
            Self::Yes => format!("+{column}"),
            Self::No => column.to_owned(),
        }
    }
}

/// Properties that follow from the image, and where they stand.
const OWN: [(&str, &str); 5] = [
    ("docker.repoName", "tag.name"),
    ("docker.manifest", "tag.tag"),
    ("docker.manifest.digest", "tag.served"),
    ("docker.manifest.type", "tag.media_type"),
    ("sha256", "substr(tag.served, 8)"),
];

fn property(key: &str, operator: Operator, value: &str, hide: Hide) -> Clause {
    if key == "sha256" && operator == Operator::Equal {
        return text(
            &hide.column("tag.served"),
            operator,
            &format!("{SHA256}{value}"),
        );
    }
    if let Some((_, column)) = OWN.iter().find(|(own, _)| *own == key) {
        return text(&hide.column(column), operator, value);
    }
    let of =
        |key: &str, column: &str| Clause::new(format!("{column} = ?"), [Sql::Text(key.to_owned())]);
    if let Some(label) = key.strip_prefix(LABEL) {
        let value = text("label.value", operator, value);
        return labelled(Clause::all([of(label, "label.key"), value]), hide);
    }
    let value = text("property.value", operator, value);
    set(Clause::all([of(key, "property.key"), value]), hide)
}

/// The configuration of the manifest has such a label.
fn labelled(label: Clause, hide: Hide) -> Clause {
    let before = format!(
        "{} IN (SELECT edge.parent FROM label CROSS JOIN edge ON edge.digest = label.digest WHERE edge.kind = 'config' AND ",
        hide.column("tag.served")
    );
    label.within(&before, ")")
}

/// Somebody set such a property.
fn set(property: Clause, hide: Hide) -> Clause {
    let columns = ["tag.repo", "tag.name", "tag.tag"].map(|column| hide.column(column));
    let before = format!(
        "({}) IN (SELECT property.repo, property.name, property.tag FROM property WHERE ",
        columns.join(", ")
    );
    property.within(&before, ")")
}

/// A column is one of these keys.
pub(super) fn one_of(column: &str, keys: &[&str]) -> Clause {
    match keys {
        [] => Clause::Never,
        [key] => Clause::new(format!("{column} = ?"), [Sql::Text((*key).to_owned())]),
        // One value, however many there are: a statement has only so many.
        _ => Clause::new(
            format!("{column} IN (SELECT value FROM json_each(?))"),
            [Sql::Text(json!(keys).to_string())],
        ),
    }
}

/// What a repository is called in answers.
fn shown(repos: &[SearchedRepo]) -> Fragment {
    let names: serde_json::Map<_, _> = repos
        .iter()
        .map(|repo| (repo.key.clone(), json!(repo.shown)))
        .collect();
    Fragment {
        text: "(? ->> tag.repo)".to_owned(),
        values: vec![Sql::Text(json!(names).to_string())],
    }
}

/// The images whose paths may begin with `prefix`: those of its last folder, and all that begin with it.
fn names_of(column: &str, prefix: &str) -> Clause {
    match prefix.rsplit_once('/') {
        None => starts_with(column, prefix),
        Some((folder, _)) => {
            let below = after_prefix(&format!("{folder}/"));
            let from = Clause::new(format!("{column} >= ?"), [Sql::Text(folder.to_owned())]);
            let to = below.map_or(Clause::Always, |end| {
                Clause::new(format!("{column} < ?"), [Sql::Text(end)])
            });
            Clause::all([from, to])
        }
    }
}

/// What stands behind `sha256__`, where that can be compared by itself.
fn blob_name(operator: Operator, value: &str) -> Option<&str> {
    let comparable = operator == Operator::Equal
        || operator == Operator::Match && literal_prefix(value).len() >= BLOB_PREFIX.len();
    value.strip_prefix(BLOB_PREFIX).filter(|_| comparable)
}

/// Whether a blob can have such a name: they begin alike and end in a hex digit.
fn may_be_blob(operator: Operator, value: &str) -> bool {
    if !matches!(operator, Operator::Equal | Operator::Match) {
        return true;
    }
    let prefix = literal_prefix(value);
    let begins = BLOB_PREFIX.starts_with(prefix) || prefix.starts_with(BLOB_PREFIX);
    let ends = value
        .chars()
        .last()
        .is_some_and(|end| matches!(end, '*' | '?' | '0'..='9' | 'a'..='f'));
    operator == Operator::Match && is_pattern(value) && begins && ends
}
