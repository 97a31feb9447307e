use std::net::IpAddr;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::auth::users::hash_at;
use crate::auth::{
    Auth, Config, Grant, Identity, On, Policy, Refused, Right, Rights, Rule, TOKEN_TTL, TokenError,
    Who,
};
use crate::store;

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn users(path: &Path, names: &[&str]) {
    let lines = names
        .iter()
        .map(|name| format!("{name}:{}\n", hash_at(4, name).unwrap()));
    std::fs::write(path, lines.collect::<String>()).unwrap();
}

/// A store and a users file with `ada`, who may everything, and `bob`, who may nothing.
struct Place {
    dir: tempfile::TempDir,
    store: Store,
    tasks: Tasks,
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        users(&dir.path().join("users"), &["ada", "bob"]);
        let tasks = Tasks::new();
        let config = store::Config {
            path: dir.path().join("data"),
            max_size: 1 << 20,
            min_free: 0,
        };
        let store = Store::open(config, &tasks).await.unwrap();
        Self { dir, store, tasks }
    }

    async fn auth(&self, most: usize) -> Auth {
        let tokens = ApiTokens::open_for(self.store.clone(), &self.tasks, most).await;
        let rule = Rule {
            who: vec![Who::User("ada".to_owned())],
            on: vec![On::parse("*").unwrap()],
            may: Right::ALL.into_iter().collect(),
        };
        let config = Config {
            oidc: Vec::new(),
            certificates: false,
            users: Some(self.dir.path().join("users")),
            realm: "mirror".to_owned(),
            token_ttl: TOKEN_TTL,
            policy: Policy {
                rules: vec![rule],
                ..Policy::default()
            },
        };
        let auth = Auth::open(config, &self.dir.path().join("data")).unwrap();
        auth.with_api_tokens(tokens.unwrap())
    }
}

async fn make(auth: &Auth, more: Value) -> Secret {
    let mut sent = json!({ "name": "ci", "user": "ada" });
    sent.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    auth.create_api_token(&sent, "root").await.unwrap().token
}

#[tokio::test]
async fn a_token_is_its_user_by_any_way_until_it_is_revoked() {
    let place = Place::new().await;
    let auth = place.auth(TOKENS_MAX).await;
    let token = make(&auth, json!({})).await;
    for name in ["ada", "token"] {
        let found = auth.by_password(name, &token, ADDRESS).await.unwrap();
        assert_eq!((found.name(), found.is_whole()), (Some("ada"), true));
        assert!(
            auth.by_password_perhaps(name, &token, ADDRESS)
                .await
                .is_ok()
        );
    }
    assert_eq!(
        auth.by_password("bob", &token, ADDRESS).await,
        Err(Refused::Wrong)
    );
    let found = auth.by_bearer(token.expose(), ADDRESS).unwrap();
    assert_eq!(found.shown(), "ada (token ci)");
    // What it is exchanged for ends with it.
    let grant = Grant {
        key: "hub".to_owned(),
        image: "a".to_owned(),
        may: Rights::default().with(Right::Pull),
    };
    let issued = auth.issue(&found, &[grant]).token;
    let refresh = auth.issue_refresh(&found).unwrap().token;
    let again = auth.by_refresh(refresh.expose()).unwrap();
    assert_eq!(again.api_token(), found.api_token());
    assert!(auth.by_bearer(issued.expose(), ADDRESS).unwrap().grants(
        "hub",
        Some("a"),
        Right::Pull
    ));
    let list = auth.list_api_tokens();
    assert_eq!(list.len(), 1);
    let today = clock::now().to_string();
    assert_eq!(list[0]["last_used"], *today.get(..10).unwrap());
    // Neither the text nor its hash is told to anybody again.
    let text = serde_json::to_string(&list).unwrap() + &format!("{auth:?}{found:?}");
    assert!(!text.contains(token.expose()));
    auth.revoke_api_token("ci", "root").await.unwrap();
    // One of the same name is another.
    let other = make(&auth, json!({})).await;
    assert!(auth.by_bearer(other.expose(), ADDRESS).is_ok());
    let refused = Err(TokenError::ApiToken.into());
    assert_eq!(auth.by_bearer(token.expose(), ADDRESS), refused);
    assert_eq!(auth.by_bearer(issued.expose(), ADDRESS), refused);
    assert_eq!(auth.by_refresh(refresh.expose()), refused);
    assert_eq!(
        auth.by_password("ada", &token, ADDRESS).await,
        Err(Refused::Wrong)
    );
}

#[tokio::test]
async fn a_token_ends_with_its_time_and_with_its_user() {
    let place = Place::new().await;
    let auth = place.auth(TOKENS_MAX).await;
    let token = make(&auth, json!({ "expires_in": 100 })).await;
    let found = auth.by_bearer(token.expose(), ADDRESS).unwrap();
    // What is issued does not outlive it.
    assert!(auth.issue(&found, &[]).expires_in <= 100);
    assert!(auth.issue_refresh(&found).unwrap().expires_in <= 100);
    let own = found.api_token().unwrap();
    let end = own.expires.unwrap();
    assert!(own.is_over(end) && !own.is_over(Wall::from_ms(end.as_ms() - 1)));
    let issued = auth.issue(&found, &[]).token;
    users(&place.dir.path().join("users"), &["bob"]);
    assert!(auth.by_bearer(token.expose(), ADDRESS).is_err());
    assert!(auth.by_bearer(issued.expose(), ADDRESS).is_err());
    let sent = json!({ "name": "other", "user": "ada" });
    let none = auth.create_api_token(&sent, "root").await;
    assert!(matches!(none, Err(ApiTokenError::NoUser(user)) if user == "ada"));
    users(&place.dir.path().join("users"), &["ada"]);
    assert!(auth.by_bearer(token.expose(), ADDRESS).is_ok());
}

#[tokio::test]
async fn a_scope_limits_whatever_its_user_may() {
    let place = Place::new().await;
    let auth = place.auth(TOKENS_MAX).await;
    let token = make(
        &auth,
        json!({ "may": ["pull", "admin"], "on": ["dev/team/*", "hub"] }),
    )
    .await;
    let found = auth.by_bearer(token.expose(), ADDRESS).unwrap();
    for (key, image, right, may) in [
        ("dev", Some("team/app"), Right::Pull, true),
        ("dev", Some("team/app"), Right::Push, false),
        ("dev", Some("other"), Right::Pull, false),
        ("hub", Some("other"), Right::Pull, true),
        ("prod", None, Right::Pull, false),
    ] {
        assert_eq!(
            auth.may(&found, key, image, right),
            may,
            "{key} {image:?} {right:?}"
        );
        assert_eq!(
            auth.would(&found, key, image, right),
            may,
            "lists go by this"
        );
    }
    assert!(auth.may_all(&found, "hub", Right::Pull) && !auth.may_all(&found, "dev", Right::Pull));
    assert!(!auth.may_administer(&found), "not of the mirror itself");
    // A token with every right has no more than its user.
    let sent = json!({ "name": "bobs", "user": "bob" });
    let bobs = auth.create_api_token(&sent, "root").await.unwrap().token;
    let bob = auth.by_bearer(bobs.expose(), ADDRESS).unwrap();
    assert!(!auth.may(&bob, "hub", Some("a"), Right::Pull) && !auth.may_administer(&bob));
    let all = json!({ "name": "all", "user": "ada" });
    let all = auth.create_api_token(&all, "root").await.unwrap().token;
    assert!(auth.may_administer(&auth.by_bearer(all.expose(), ADDRESS).unwrap()));
    // What is issued for one image goes no further than the scope, whatever it says.
    let grant = Grant {
        key: "dev".to_owned(),
        image: "other".to_owned(),
        may: Right::ALL.into_iter().collect(),
    };
    let issued = auth.issue(&found, &[grant]).token;
    let by_issued = auth.by_bearer(issued.expose(), ADDRESS).unwrap();
    assert!(!auth.may(&by_issued, "dev", Some("other"), Right::Pull));
}

#[tokio::test]
async fn wrong_tokens_count_against_the_address_and_right_ones_always_count() {
    let place = Place::new().await;
    let auth = place.auth(TOKENS_MAX).await;
    let right = make(&auth, json!({})).await;
    let wrong = Secret::new(format!("rst_{}", "a".repeat(38)));
    let mut refused = 0;
    for n in 0..30 {
        let found = if n % 2 == 0 {
            auth.by_password("ada", &wrong, ADDRESS).await
        } else {
            auth.by_bearer(wrong.expose(), ADDRESS)
        };
        refused += usize::from(matches!(found, Err(Refused::TooMany(_))));
    }
    assert!((15..30).contains(&refused), "{refused} of 30");
    assert!(auth.by_bearer(right.expose(), ADDRESS).is_ok());
    // Passwords from there wait too; nobody else is held up.
    let password = Secret::new("ada");
    assert!(matches!(
        auth.by_password("ada", &password, ADDRESS).await,
        Err(Refused::TooMany(_))
    ));
    let elsewhere = IpAddr::from([192, 0, 2, 1]);
    assert_eq!(
        auth.by_password("ada", &password, elsewhere).await,
        Ok(Identity::user("ada"))
    );
    assert_eq!(
        auth.by_password_perhaps("ada", &wrong, ADDRESS).await,
        Err(Refused::Wrong),
        "no guess, and no bcrypt"
    );
}

#[tokio::test]
async fn names_are_taken_once_and_there_is_a_most() {
    let place = Place::new().await;
    let auth = place.auth(2).await;
    let create = async |name: &str, lasts: Value| {
        let sent = json!({ "name": name, "user": "ada", "expires_in": lasts });
        auth.create_api_token(&sent, "root").await
    };
    create("a", json!("never")).await.unwrap();
    assert!(matches!(create("a", json!(9)).await, Err(ApiTokenError::Exists(name)) if name == "a"));
    create("b", json!(1)).await.unwrap();
    assert!(matches!(
        create("c", json!(9)).await,
        Err(ApiTokenError::TooMany(2))
    ));
    let none = auth.revoke_api_token("c", "root").await;
    assert!(matches!(none, Err(ApiTokenError::Unknown(name)) if name == "c"));
    // One that is over makes room for another of its name.
    let begun = tokio::time::Instant::now();
    while auth.list_api_tokens()[1]["expired"] != true {
        assert!(begun.elapsed().as_secs() < 20);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    create("b", json!(9)).await.unwrap();
    auth.revoke_api_token("a", "root").await.unwrap();
    create("c", json!(9)).await.unwrap();
}

#[tokio::test]
async fn tokens_and_their_last_use_are_there_again() {
    let place = Place::new().await;
    let auth = place.auth(TOKENS_MAX).await;
    let token = make(
        &auth,
        json!({ "may": ["pull"], "on": ["hub/a*"], "expires_in": "never" }),
    )
    .await;
    make(&auth, json!({ "name": "gone" })).await;
    auth.revoke_api_token("gone", "root").await.unwrap();
    auth.by_bearer(token.expose(), ADDRESS).unwrap();
    auth.write_api_token_uses().await;
    let before = auth.list_api_tokens();
    drop(auth);
    let auth = place.auth(TOKENS_MAX).await;
    assert_eq!(auth.list_api_tokens(), before);
    assert!(auth.by_bearer(token.expose(), ADDRESS).is_ok());
    let audit = place.store.index().audit(0, 10).await.unwrap();
    let actions: Vec<Value> = audit
        .iter()
        .map(|(_, _, event)| serde_json::from_str::<Value>(event).unwrap()["action"].clone())
        .collect();
    assert_eq!(actions, ["create token", "create token", "revoke token"]);
    // What cannot be understood gives nothing.
    let mut row = place.store.index().api_tokens().await.unwrap().remove(0);
    row.may = vec!["everything".to_owned()];
    let change = Change::put_token(row);
    place
        .store
        .commit_changes(vec![(change, None)])
        .await
        .unwrap();
    let auth = place.auth(TOKENS_MAX).await;
    assert!(auth.by_bearer(token.expose(), ADDRESS).is_err());
}
