//! Commands on a store that nobody else has: each answers what the mirror that runs would answer under `/admin`.

use std::sync::Arc;

use anyhow::Context as _;
use serde_json::Value;

use super::{TASKS_PATIENCE, file_settings};
use crate::auth::{ApiTokens, Auth, Identity};
use crate::cache::Shared;
use crate::config::Resolved;
use crate::overlay;
use crate::repository::{Catalog, Question, Workshop, explain as explain_pull};
use crate::store::Store;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;
use crate::upstream::ProxyConfig;

/// Collects what nothing refers to in the local repositories of a store that nobody else has; answers as `POST /admin/gc` does.
pub async fn collect(config: Resolved, dry_run: bool) -> anyhow::Result<Value> {
    let (tasks, store, catalog) = alone(&config, ProxyConfig::default()).await?;
    let mut gone = Vec::new();
    // Those that were made at run time too.
    let locals = catalog.current().locals();
    for local in locals {
        let collected = local.collect_now(config.collection.grace, dry_run);
        let collected = collected.await?;
        gone.extend(collected.iter().map(|one| one.to_json(local.key())));
    }
    drop(catalog);
    close(tasks, store).await;
    Ok(serde_json::json!({ "collected": gone }))
}

/// Everything there is in a store that nobody else has, with nothing running in the background.
async fn alone(config: &Resolved, proxy: ProxyConfig) -> anyhow::Result<(Tasks, Store, Catalog)> {
    let (tasks, metrics) = (Tasks::new(), Arc::new(Metrics::new()));
    let store = Store::open(config.storage.clone(), &tasks).await?;
    let workshop = Workshop {
        cache: Shared::new(store.clone(), tasks.clone(), metrics),
        overlay: overlay::Shared::new(store.clone(), &tasks).await?,
        proxy,
        instance: "command".to_owned(),
    };
    let catalog = Catalog::open(workshop, file_settings(config)).await?;
    Ok((tasks, store, catalog))
}

/// Explains a pull from a store that nobody else has; answers as `GET /admin/explain` does.
pub async fn explain(
    config: Resolved,
    proxy: ProxyConfig,
    question: Question,
) -> anyhow::Result<Value> {
    let (tasks, store, catalog) = alone(&config, proxy).await?;
    let auth = config.auth.clone();
    let auth = auth.map(|auth| Auth::open(auth, &config.storage.path));
    let auth = auth.transpose()?;
    let told = explain_pull(&catalog.current(), auth.as_ref(), &question).await;
    let told = told.map(|told| told.to_json());
    drop(catalog);
    close(tasks, store).await;
    Ok(told?)
}

/// Hashes every blob of a store that nobody else has; with `anew`, from a fresh index. Answers as `POST /admin/verify` does.
pub async fn verify(config: Resolved, anew: bool) -> anyhow::Result<Value> {
    let tasks = Tasks::new();
    if anew {
        Store::forget_index(&config.storage)?;
    }
    let store = Store::open(config.storage, &tasks).await?;
    let verified = store.verify().await;
    close(tasks, store).await;
    Ok(verified?.to_json())
}

/// What is done with API tokens.
#[derive(Debug)]
pub enum TokenCommand {
    /// One is made, as `POST /admin/tokens` takes it.
    Create(Value),
    /// All are told.
    List,
    /// One is revoked.
    Revoke(String),
}

/// Makes, tells or revokes API tokens in a store that nobody else has; answers as `/admin/tokens` does.
pub async fn tokens(config: Resolved, command: TokenCommand) -> anyhow::Result<Value> {
    let auth = config.auth.context(
        "the configuration has no [auth], so there are no users and no tokens of theirs; write [auth] users = \"users.htpasswd\"",
    )?;
    let tasks = Tasks::new();
    let store = Store::open(config.storage.clone(), &tasks).await?;
    let tokens = ApiTokens::open(store.clone(), &tasks).await?;
    let auth = Auth::open(auth, &config.storage.path)?.with_api_tokens(tokens);
    let owner = Identity::owner();
    let done = match command {
        TokenCommand::Create(sent) => {
            let made = auth.create_api_token(&sent, owner.subject()).await;
            made.map(|made| made.to_json())
        }
        TokenCommand::List => Ok(serde_json::json!({ "tokens": auth.list_api_tokens() })),
        TokenCommand::Revoke(name) => {
            let revoked = auth.revoke_api_token(&name, owner.subject()).await;
            revoked.map(|()| Value::Null)
        }
    };
    close(tasks, store).await;
    Ok(done?)
}

async fn close(tasks: Tasks, store: Store) {
    tasks.stop(TASKS_PATIENCE).await;
    store.close().await;
}
