use proptest::prelude::*;

use super::question::{Field, Question, Shown, parse};
use super::{COMPARISONS_MAX, DEPTH_MAX, ITEMS_MAX, QUESTION_MAX};
use crate::clock::Wall;
use crate::store::index::items::{Condition, NumberField, Operator, SortField, TextField};

/// 2026-11-21T10:00:00Z
const NOW: i64 = 1_795_255_200_000;

fn read(text: &str) -> Result<Question, String> {
    parse(text, Wall::from_ms(NOW)).map_err(|refused| refused.to_string())
}

/// A condition as short as it goes.
fn short(condition: &Condition) -> String {
    let list = |conditions: &[Condition]| {
        let each: Vec<String> = conditions.iter().map(short).collect();
        each.join(" ")
    };
    match condition {
        Condition::All(conditions) => format!("all({})", list(conditions)),
        Condition::Any(conditions) => format!("any({})", list(conditions)),
        Condition::Text(TextField::Type, Operator::Equal, value) if value == "file" => {
            "file".to_owned()
        }
        Condition::Text(field, operator, value) => format!("{field:?}:{operator:?}:{value}"),
        Condition::Number(field, operator, value) => format!("{field:?}:{operator:?}:{value}"),
        Condition::Property(key, operator, value) => format!("@{key}:{operator:?}:{value}"),
        Condition::PropertyKey(operator, value) => format!("key:{operator:?}:{value}"),
        Condition::PropertyValue(operator, value) => format!("value:{operator:?}:{value}"),
    }
}

#[test]
fn what_is_asked_for() {
    let table = [
        ("items.find()", "file"),
        ("items.find({})", "file"),
        (" items \n . find ( { } ) ; ", "file"),
        (r#"items.find({"repo":"k"})"#, "all(Repo:Equal:k file)"),
        (
            r#"items.find({"repo":{"$eq":"k"},"name":{"$match":"*.json"}})"#,
            "all(Repo:Equal:k Name:Match:*.json file)",
        ),
        (
            r#"items.find({"repo":"k"}, {"path":"a/b"})"#,
            "all(Repo:Equal:k Path:Equal:a/b file)",
        ),
        (
            r#"items.find({"name":"a","name":"b"})"#,
            "all(Name:Equal:a Name:Equal:b file)",
        ),
        (
            r#"items.find({"$or":[{"repo":"a"},{"$and":[{"repo":"b","depth":3}]}],"type":"any"})"#,
            "all(any(Repo:Equal:a all(Repo:Equal:b Depth:Equal:3)) Type:Equal:any)",
        ),
        (
            r#"items.find({"path":{"$ne":"."},"$or":[{"$and":[{"repo":"x","path":{"$match":"*"}}]}]})"#,
            "all(Path:NotEqual:. Repo:Equal:x Path:Match:* file)",
        ),
        (
            r#"items.find({"size":{"$gte":"10","$lt":20}})"#,
            "all(Size:GreaterOrEqual:10 Size:Less:20 file)",
        ),
        (
            r#"items.find({"created":{"$gt":"2026-11-21T10:00:00.000Z"}})"#,
            "all(Moved:Greater:1795255200000 file)",
        ),
        (
            r#"items.find({"modified":{"$lte":"2026-11-21T12:00:00+02:00"},"updated":{"$before":"2d"}})"#,
            "all(Moved:LessOrEqual:1795255200000 Checked:Less:1795082400000 file)",
        ),
        (
            r#"items.find({"created":{"$last":"1 minutes"}})"#,
            "all(Moved:Greater:1795255140000 file)",
        ),
        (
            r#"items.find({"@docker.repoName":{"$match":"a/*"},"@qa":{"$ne":"x"},"@*":"y"})"#,
            "all(@docker.repoName:Match:a/* @qa:NotEqual:x value:Equal:y file)",
        ),
        (
            r#"items.find({"property.key":"a","property.value":{"$nmatch":"*"}})"#,
            "all(key:Equal:a value:NoMatch:* file)",
        ),
        (
            r#"items.find({"sha256":"00","type":"folder","@n":7})"#,
            "all(Sha256:Equal:00 Type:Equal:folder @n:Equal:7)",
        ),
        (
            r#"items.find({"name":"\"\\\/\u00e9\ud83d\ude80'; DROP TABLE tag --"})"#,
            "all(Name:Equal:\"\\/é🚀'; DROP TABLE tag -- file)",
        ),
    ];
    for (text, expected) in table {
        let question = read(text).unwrap_or_else(|refused| panic!("{text}: {refused}"));
        assert_eq!(short(&question.find), expected, "{text}");
    }
}

#[test]
fn what_is_shown_and_how_much_of_it() {
    let plain = read("items.find()").unwrap();
    assert_eq!((plain.offset, plain.limit), (0, ITEMS_MAX));
    assert_eq!((plain.fields.len(), plain.properties), (10, Shown::None));
    let all = r#"items.find().limit(5).offset(10).sort({"$desc":["created","name"],"$asc":["repo","name"]}).include("repo","sha256","actual_md5","property")"#;
    let all = read(all).unwrap();
    assert_eq!((all.offset, all.limit), (10, 5));
    assert_eq!(
        all.sort,
        [
            (SortField::Number(NumberField::Moved), true),
            (SortField::Text(TextField::Name), true),
            (SortField::Text(TextField::Repo), false),
        ]
    );
    assert_eq!(all.fields, [Field::Repo, Field::Sha256, Field::Nothing]);
    assert_eq!(all.properties, Shown::All);
    // Properties alone come with the usual fields.
    let keys = read(r#"items.find().include("@qa","@docker.repoName")"#).unwrap();
    let expected = ["qa", "docker.repoName"].map(str::to_owned).to_vec();
    assert_eq!(keys.properties, Shown::These(expected));
    assert_eq!(keys.fields.len(), 10);
    assert_eq!(
        read(r#"items.find().include("*")"#).unwrap().fields.len(),
        12
    );
    let many = format!("items.find().limit({})", ITEMS_MAX + 1);
    assert_eq!(read(&many).unwrap().limit, ITEMS_MAX);
}

#[test]
fn what_is_refused_and_why() {
    let deep = |levels: usize| {
        let (open, close) = (r#"{"$or":["#, "]}");
        let pairs = levels / 2;
        format!(
            "items.find({}{{\"repo\":\"k\"}}{})",
            open.repeat(pairs),
            close.repeat(pairs)
        )
    };
    assert!(read(&deep(DEPTH_MAX - 2)).is_ok());
    let list = |count| {
        let each = vec![r#"{"repo":"k"}"#; count].join(",");
        format!("items.find({{\"$or\":[{each}]}})")
    };
    assert!(read(&list(COMPARISONS_MAX)).is_ok());
    let table = [
        ("", "line 1, column 1: a word is wanted"),
        (
            "builds.find()",
            "column 1: `builds` is not searched here; items.find",
        ),
        ("items", "items.find(…) is wanted"),
        ("items.search()", "column 7: `search` is no call here"),
        ("items.find", "a '(' is wanted"),
        ("items.find(", "a text in double quotes"),
        ("items.find({)", "a field or operator in double quotes"),
        ("items.find({\"repo\" \"k\"})", "column 20: a ':' is wanted"),
        (
            "items.find({\"repo\":\"k\"\n\"a\":1})",
            "line 2, column 1: a ',' or a '}'",
        ),
        ("items.find({\"repo\":\"k\",})", "a field or operator"),
        (
            "items.find({repo:\"k\"})",
            "a field or operator in double quotes",
        ),
        ("items.find({\"repo\":'k'})", "a text in double quotes"),
        ("items.find({\"repo\":null})", "a text in double quotes"),
        (
            "items.find({\"repo\":[\"k\"]})",
            "an array where a text is wanted",
        ),
        (
            "items.find({\"repo\":{}})",
            "an operator is wanted here: $eq",
        ),
        (
            "items.find({\"repo\":{\"$like\":\"k\"}})",
            "column 21: `$like` is no operator here; there are $eq",
        ),
        (
            "items.find({\"repo\":{\"$before\":\"7d\"}})",
            "`$before` is no operator",
        ),
        (
            "items.find({\"archive.name\":\"k\"})",
            "`archive.name` is no field here; there are repo, path",
        ),
        ("items.find({\"@\":\"k\"})", "`@` is no field"),
        ("items.find({\"$msp\":[]})", "`$msp` does not stand here"),
        (
            "items.find({\"$or\":{\"repo\":\"k\"}})",
            "an object where $or wants an array",
        ),
        ("items.find({\"$or\":[]})", "$or of nothing"),
        (
            "items.find({\"$and\":[\"k\"]})",
            "a text where an object of conditions",
        ),
        ("items.find(\"k\")", "a text where an object of conditions"),
        ("items.find({\"size\":\"big\"})", "a whole number"),
        ("items.find({\"size\":1.5})", "no whole number"),
        (
            "items.find({\"size\":{\"$match\":\"1*\"}})",
            "patterns are for texts",
        ),
        ("items.find({\"created\":\"today\"})", "a date is wanted"),
        (
            "items.find({\"created\":{\"$last\":\"7x\"}})",
            "a length of time",
        ),
        ("items.find({\"name\":\"\u{1}\"})", "a control character"),
        ("items.find({\"name\":\"\\u0000\"})", "no escape"),
        ("items.find({\"name\":\"\\ud83d\"})", "no escape"),
        ("items.find({\"name\":\"a", "not closed"),
        ("items.find().include()", "include names fields"),
        ("items.find().include(\"stat\")", "`stat` is not shown here"),
        ("items.find().include(1)", "a number where the name"),
        ("items.find().sort(\"name\")", "sort takes"),
        (
            "items.find().sort({\"$up\":[\"name\"]})",
            "`$up` is no order",
        ),
        (
            "items.find().sort({\"$asc\":[\"@qa\"]})",
            "`@qa` is nothing to sort by",
        ),
        ("items.find().limit(-1)", "limit takes one whole number"),
        ("items.find().limit(1,2)", "limit takes one whole number"),
        ("items.find().limit(1).limit(2)", "`limit` stands twice"),
        (
            "items.find().transitive()",
            "`transitive` is no call here; there are .include",
        ),
        ("items.find() items", "the end, is wanted"),
        (&deep(DEPTH_MAX + 2), "nest at most 16 deep"),
        (&list(COMPARISONS_MAX + 1), "at most 100 comparisons"),
        (&" ".repeat(QUESTION_MAX + 1), "at most 65536 bytes"),
    ];
    for (text, expected) in table {
        let start: String = text.chars().take(60).collect();
        let refused = read(text).expect_err(&start);
        assert!(refused.contains(expected), "{start}: {refused}");
        assert!(refused.len() < 400, "{refused}");
    }
}

/// Where something is wrong is counted only once something is.
#[test]
fn a_question_full_of_escapes_is_read_at_once() {
    let question = |escapes: usize| {
        let text = "\\n".repeat(escapes);
        format!("items.find({{\"name\": \"{text}\"}})")
    };
    let time = |text: &str| {
        let times = (0..5).map(|_| {
            let start = tokio::time::Instant::now();
            read(text).unwrap();
            start.elapsed()
        });
        times.min().unwrap()
    };
    let (few, many) = (time(&question(1000)), time(&question(32_000)));
    assert!(many < few * 150, "{few:?} {many:?}");
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        drop(read(&text));
    }

    #[test]
    fn what_looks_like_a_question_is_read_or_refused(
        pieces in proptest::collection::vec(
            prop_oneof![
                Just("items"), Just(".find("), Just("("), Just(")"), Just("{"), Just("}"), Just("["), Just("]"), Just(":"), Just(","),
                Just("\"repo\""), Just("\"$or\""), Just("\"$match\""), Just("\"created\""), Just("\"7d\""), Just("\"@x\""), Just("\"\\ud800"),
                Just("\"\\"), Just("\""), Just("é"), Just("-"), Just("9"), Just(".sort("), Just(".limit("), Just("\n"), Just("\"$last\"")
            ],
            0..40,
        )
    ) {
        drop(read(&pieces.concat()));
    }
}
