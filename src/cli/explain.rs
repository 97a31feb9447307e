//! `roadstead explain`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::owner::{self, Here};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The image, as clients write it: `[host or key/]name[:tag][@digest]`
    image: String,
    /// The host that a client would send as `?ns=`, as containerd does
    #[arg(long, value_name = "HOST")]
    ns: Option<String>,
    /// Who pulls [default: somebody who is not logged in]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Print JSON, as `GET /admin/explain` answers it
    #[arg(long)]
    json: bool,
    /// Data directory, instead of the configured one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// What `GET /admin/explain` answers, as far as it is shown to people.
#[derive(Debug, Deserialize)]
struct Explained {
    repository: String,
    kind: String,
    chosen_by: String,
    image: String,
    reference: String,
    access: Access,
    members: Vec<Member>,
    answers: Option<String>,
    quotas: Vec<Quota>,
}

#[derive(Debug, Deserialize)]
struct Access {
    user: String,
    known: bool,
    may_pull: bool,
    rule: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct Member {
    repository: String,
    asked: bool,
    why: String,
    digest: Option<String>,
    held_back: Option<String>,
    #[serde(default)]
    cached: bool,
    checked: Option<String>,
    fresh_seconds: Option<u64>,
    gone_upstream: Option<String>,
    #[serde(default)]
    pinned: bool,
    refused: Option<String>,
    judged: Option<bool>,
    breaker_seconds: Option<u64>,
    credential: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Quota {
    repository: String,
    credential: String,
    limit: Option<u64>,
    remaining: Option<u64>,
    #[serde(rename = "keep_quota")]
    keep: Option<u64>,
}

pub(super) fn run(here: Here, arguments: &Arguments) -> ExitCode {
    let here = here.on(arguments.data.as_deref());
    let told = super::block_on(ask(here, arguments)).and_then(|told| {
        if arguments.json {
            return Ok(vec![told.to_string()]);
        }
        Ok(lines(&arguments.image, &serde_json::from_value(told)?))
    });
    super::told(told)
}

async fn ask(here: Here, arguments: &Arguments) -> anyhow::Result<Value> {
    let Arguments {
        image, ns, user, ..
    } = arguments;
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("image", image);
    for (key, value) in [("ns", ns), ("user", user)] {
        if let Some(value) = value {
            query.append_pair(key, value);
        }
    }
    let target = format!("/admin/explain?{}", query.finish());
    owner::ask(here, Method::GET, &target, None).await
}

fn lines(asked: &str, told: &Explained) -> Vec<String> {
    let Explained {
        repository,
        kind,
        image,
        reference,
        access,
        ..
    } = told;
    let separator = if reference.contains(':') { '@' } else { ':' };
    let by = match told.chosen_by.as_str() {
        "bind" => "as [[server.bind]] says of that host",
        "ns" => "by ns",
        "key" => "by the key before it",
        "host" => "by the host before it",
        _ => "as mirror.default says",
    };
    let mut lines = vec![format!(
        "{asked} is {image}{separator}{reference} of {repository} ({kind}), {by}"
    )];
    let user = &access.user;
    lines.push(match (access.may_pull, access.rule) {
        (true, Some(rule)) => format!("{user} may pull it, by [[auth.allow]] number {rule}"),
        (true, None) => "anybody may pull it: there is no [auth]".to_owned(),
        (false, _) => format!("{user} may not pull it: no [[auth.allow]] lets them"),
    });
    if !access.known {
        lines.push(format!(
            "the users file has no {user}; an issuer or a certificate may call somebody so"
        ));
    }
    for member in &told.members {
        let verb = if member.asked { "" } else { "is not asked: " };
        lines.push(format!("{}: {verb}{}", member.repository, member.why));
        lines.extend(facts(member).into_iter().map(|fact| format!("  {fact}")));
    }
    for quota in &told.quotas {
        if let (Some(limit), Some(remaining)) = (quota.limit, quota.remaining) {
            lines.push(format!(
                "quota of {} at {}: {remaining} of {limit} pulls left, {} kept",
                quota.credential,
                quota.repository,
                quota.keep.unwrap_or_default()
            ));
        }
    }
    lines.push(match &told.answers {
        _ if !access.may_pull => "a pull gets 401 or 404".to_owned(),
        Some(key) => format!("a pull gets what {key} has"),
        None => "a pull gets none of it, as said above".to_owned(),
    });
    lines
}

fn facts(member: &Member) -> Vec<String> {
    let mut facts = Vec::new();
    if let Some(digest) = &member.digest {
        let pinned = if member.pinned { ", pinned" } else { "" };
        let here = if member.cached { ", here" } else { "" };
        facts.push(format!("{digest}{pinned}{here}"));
    }
    if let Some(digest) = &member.held_back {
        facts.push(format!("upstream says {digest}, which is held back"));
    }
    if let Some(refused) = &member.refused {
        facts.push(refused.clone());
    }
    if member.judged == Some(false) {
        facts.push("its rules have not let this through yet: a pull asks them first".to_owned());
    }
    if let Some(checked) = &member.checked {
        let fresh = member.fresh_seconds.map_or_else(
            || ", which is too long ago".to_owned(),
            |left| format!(", fresh for another {left} s"),
        );
        facts.push(format!("confirmed by upstream at {checked}{fresh}"));
    }
    if let Some(gone) = &member.gone_upstream {
        facts.push(format!("gone upstream since {gone}"));
    }
    if let Some(pause) = member.breaker_seconds {
        facts.push(format!(
            "upstream failed several times and is left alone for {pause} s"
        ));
    }
    if let Some(credential) = &member.credential {
        facts.push(format!("would be asked as {credential}"));
    }
    facts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_people_read() {
        let told = json!({
            "repository": "docker-virtual", "kind": "virtual", "chosen_by": "default", "image": "library/nginx", "reference": "1",
            "access": {"user": "alice", "known": true, "may_pull": true, "rule": 2},
            "members": [
                {"repository": "docker-hub", "asked": true, "why": "it is fetched from upstream", "credential": "me", "cached": false, "pinned": false},
                {"repository": "dev-local", "asked": false, "why": "it has no image of that name"},
            ],
            "answers": "docker-hub",
            "quotas": [{"repository": "docker-hub", "credential": "me", "limit": 100, "remaining": 7, "keep_quota": 5}],
        });
        assert_eq!(
            lines("nginx:1", &serde_json::from_value(told).unwrap()),
            [
                "nginx:1 is library/nginx:1 of docker-virtual (virtual), as mirror.default says",
                "alice may pull it, by [[auth.allow]] number 2",
                "docker-hub: it is fetched from upstream",
                "  would be asked as me",
                "dev-local: is not asked: it has no image of that name",
                "quota of me at docker-hub: 7 of 100 pulls left, 5 kept",
                "a pull gets what docker-hub has",
            ]
        );
    }
}
