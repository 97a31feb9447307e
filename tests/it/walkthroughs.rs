//! What takes the shell out of documents takes all of it, and nothing else.

use crate::support::walkthrough::{Block, Walkthrough, blocks};

#[test]
fn takes_the_marked_blocks_alone() {
    let text = "# A\n```sh\nno\n```\n```sh run\none\n  two\n```\n```toml run\nno\n```\n````sh other run\n```sh run\nthree\n```\n````\n";
    let block = |line, text: &str| Block {
        line,
        text: text.to_owned(),
    };
    let expected = [
        block(6, "one\n  two\n"),
        block(13, "```sh run\nthree\n```\n"),
    ];
    assert_eq!(blocks(text, "run"), expected);
    assert_eq!(blocks(text, "other").len(), 1);
    assert_eq!(blocks(text, "sh"), []);
}

#[test]
#[should_panic(expected = "not closed")]
fn refuses_a_block_without_an_end() {
    blocks("```sh run\none\n", "run");
}

#[test]
#[should_panic(expected = "has no block")]
fn refuses_a_document_that_has_none() {
    Walkthrough::of("CHANGELOG.md", "run");
}
