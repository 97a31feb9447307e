//! YAML as a tree, from the events of `saphyr-parser`.
//!
//! Built by ourselves because manifests come from strangers: an alias is shared and never copied, so that aliases of aliases cost nothing, depth and
//! the number of values are bounded, and every value keeps its place for errors.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::VISITS_MAX;
use super::tree::{Entry, Kind, Node};
use crate::diagnosis::Problem;

/// How deep YAML may nest.
pub const DEPTH_MAX: usize = 128;
/// The most values that one YAML text may have, merged ones counted where they are merged in.
pub const VALUES_MAX: usize = 2_000_000;

/// How many values may still be looked at.
pub(super) struct Visits(usize);

impl Visits {
    pub(super) const fn new() -> Self {
        Self(VISITS_MAX)
    }

    /// Counts one.
    pub(super) fn count(&mut self, node: &Node) -> Result<(), Problem> {
        self.0 = self.0.checked_sub(1).ok_or_else(|| {
            node.problem(
                "the aliases of this YAML stand for too much",
                "split the file, or write them out",
            )
        })?;
        Ok(())
    }
}

/// All documents of a text.
pub(super) fn parse(text: &str) -> Result<Vec<Rc<Node>>, Problem> {
    let mut builder = Builder {
        places: Places {
            text,
            chars: 0,
            bytes: 0,
        },
        open: Vec::new(),
        anchors: HashMap::new(),
        documents: Vec::new(),
        left: VALUES_MAX,
    };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => builder.take(event, span)?,
            Err(error) => {
                let start = builder.places.byte(error.marker().index());
                let remedy = if text.contains("{{") {
                    "this looks like a template; give what it renders to (`helm template` prints that)"
                } else {
                    "look for an indent, a quote or a bracket that is not right"
                };
                return Err(Problem {
                    title: format!("this is no YAML: {}", error.info()),
                    at: Some(start..start + 1),
                    remedy: remedy.to_owned(),
                });
            }
        }
    }
    Ok(builder.documents)
}

/// A sequence or mapping whose end has not come yet.
struct Open {
    start: usize,
    anchor: usize,
    content: Content,
}

enum Content {
    Sequence(Vec<Rc<Node>>),
    Mapping(Vec<Entry>, Option<Rc<Node>>),
}

struct Builder<'a> {
    places: Places<'a>,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    documents: Vec<Rc<Node>>,
    left: usize,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let at = self.places.byte(span.start.index())..self.places.byte(span.end.index());
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = tag.is_some_and(|tag| tag.suffix == "str");
                let kind = if is_text || style != ScalarStyle::Plain {
                    Kind::Text(text.into_owned())
                } else {
                    plain(text.into_owned())
                };
                self.put(Node { at, kind }, anchor)
            }
            Event::SequenceStart(anchor, _) => {
                self.enter(at, anchor, Content::Sequence(Vec::new()))
            }
            Event::MappingStart(anchor, _) => {
                self.enter(at, anchor, Content::Mapping(Vec::new(), None))
            }
            Event::SequenceEnd | Event::MappingEnd => self.leave(&at),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).map(Rc::clone) else {
                    return Err(Problem {
                        title: "this alias stands inside what it stands for".to_owned(),
                        at: Some(at),
                        remedy: "write out what is meant".to_owned(),
                    });
                };
                self.add(node)
            }
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn count(&mut self, at: &Range<usize>) -> Result<(), Problem> {
        self.left = self.left.checked_sub(1).ok_or_else(|| Problem {
            title: format!("this YAML has more than {VALUES_MAX} values"),
            at: Some(at.clone()),
            remedy: "split the file".to_owned(),
        })?;
        Ok(())
    }

    fn enter(&mut self, at: Range<usize>, anchor: usize, content: Content) -> Result<(), Problem> {
        if self.open.len() >= DEPTH_MAX {
            return Err(Problem {
                title: format!("this YAML nests more than {DEPTH_MAX} deep"),
                at: Some(at),
                remedy: "nothing that lists images nests that deep".to_owned(),
            });
        }
        self.open.push(Open {
            start: at.start,
            anchor,
            content,
        });
        Ok(())
    }

    fn leave(&mut self, at: &Range<usize>) -> Result<(), Problem> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let kind = match open.content {
            Content::Sequence(items) => Kind::Sequence(items),
            Content::Mapping(entries, _) => Kind::Mapping(self.merged(entries)?),
        };
        let node = Node {
            at: open.start..at.end.max(open.start),
            kind,
        };
        self.put(node, open.anchor)
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Problem> {
        self.count(&node.at)?;
        let node = Rc::new(node);
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.add(node)
    }

    fn add(&mut self, node: Rc<Node>) -> Result<(), Problem> {
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.documents.push(node),
            Some(Content::Sequence(items)) => items.push(node),
            Some(Content::Mapping(entries, key)) => match key.take() {
                None => *key = Some(node),
                Some(key) => {
                    let text = match &key.kind {
                        Kind::Text(text) | Kind::Number(text) => text.clone(),
                        Kind::Bool(value) => value.to_string(),
                        Kind::Null => String::new(),
                        Kind::Sequence(_) | Kind::Mapping(_) => {
                            return Err(key.problem(
                                format!("this key is {}", key.name()),
                                "a key is a text; if this is a template, give what it renders to",
                            ));
                        }
                    };
                    entries.push(Entry {
                        key: text,
                        key_at: key.at.clone(),
                        value: node,
                    });
                }
            },
        }
        Ok(())
    }

    /// Takes in what `<<: *anchor` stands for; an own key wins, then the first that is merged in.
    fn merged(&mut self, entries: Vec<Entry>) -> Result<Vec<Entry>, Problem> {
        if !entries.iter().any(|entry| entry.key == "<<") {
            return Ok(entries);
        }
        let (merges, mut own): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| entry.key == "<<");
        let mut keys: HashSet<String> = own.iter().map(|entry| entry.key.clone()).collect();
        for merge in merges {
            let one = std::slice::from_ref(&merge.value);
            let parts = if let Kind::Sequence(items) = &merge.value.kind {
                items.as_slice()
            } else {
                one
            };
            for entry in parts.iter().flat_map(|part| part.entries()) {
                self.count(&merge.key_at)?;
                if keys.insert(entry.key.clone()) {
                    own.push(entry.clone());
                }
            }
        }
        Ok(own)
    }
}

/// What an unquoted scalar is (YAML 1.2, "Core Schema"). Numbers stay as they are written.
fn plain(text: String) -> Kind {
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" => Kind::Bool(true),
        "false" | "False" | "FALSE" => Kind::Bool(false),
        number
            if number.parse::<f64>().is_ok() && number.contains(|c: char| c.is_ascii_digit()) =>
        {
            Kind::Number(text)
        }
        _ => Kind::Text(text),
    }
}

/// Turns the parser's places, which count characters, into bytes. Events come in order, so it moves little.
struct Places<'a> {
    text: &'a str,
    chars: usize,
    bytes: usize,
}

impl Places<'_> {
    fn byte(&mut self, chars: usize) -> usize {
        while self.chars < chars {
            let rest = self.text.get(self.bytes..).unwrap_or_default();
            let Some(next) = rest.chars().next() else {
                break;
            };
            self.bytes += next.len_utf8();
            self.chars += 1;
        }
        while self.chars > chars {
            let before = self.text.get(..self.bytes).unwrap_or_default();
            let Some(last) = before.chars().next_back() else {
                break;
            };
            self.bytes -= last.len_utf8();
            self.chars -= 1;
        }
        self.bytes
    }
}
