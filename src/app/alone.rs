//! What is done with a store alone, that nobody else has.

use serde_json::Value;

use super::TASKS_PATIENCE;
use crate::config::Resolved;
use crate::store::Store;
use crate::tasks::Tasks;

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

async fn close(tasks: Tasks, store: Store) {
    tasks.stop(TASKS_PATIENCE).await;
    store.close().await;
}
