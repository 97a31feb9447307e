//! `roadstead check`

use std::time::Duration;

use http::Method;
use serde_json::Value;

use super::{output, owner};
use crate::app;
use crate::config::Resolved;
use crate::repository::{Chosen, resolve};

/// How long a mirror that runs is waited for: what it says comes on top.
const PATIENCE: Duration = Duration::from_secs(3);

/// Prints what the configuration means: listeners, repositories, and where a few names lead.
pub(super) fn run(config: &Resolved) {
    for address in &config.listen {
        output::line(&format!(
            "listens on {address}{}",
            if config.tls.is_empty() {
                ""
            } else {
                " with TLS"
            }
        ));
    }
    if let Some(address) = &config.admin_listen {
        output::line(&format!("listens on {address} for administration"));
    }
    for bind in &config.binds {
        let place = bind
            .host
            .clone()
            .or(bind.listen.map(|listen| listen.to_string()))
            .unwrap_or_default();
        output::line(&format!("{place} means {}", bind.repository));
    }
    output::line(&format!(
        "stores up to {} bytes in {}",
        config.storage.max_size,
        config.storage.path.display()
    ));
    for remote in config.remotes() {
        let offline = if remote.cache.offline {
            ", offline"
        } else {
            ""
        };
        output::line(&format!(
            "{} mirrors {} for {}{offline}",
            remote.key,
            remote.url,
            if remote.serves.is_empty() {
                "no host".to_owned()
            } else {
                remote.serves.join(", ")
            }
        ));
    }
    for local in config.locals() {
        output::line(&format!(
            "{} takes pushes{}",
            local.key,
            if config.auth.is_some() {
                " of those whom [auth] lets"
            } else if config.open_writes() {
                ""
            } else {
                ", but not without [auth] while others can reach it"
            }
        ));
    }
    for several in config.virtuals() {
        let members = several.members.iter().map(|(key, _)| key.as_str());
        let deploy_to = several.deploy_to.as_ref();
        output::line(&format!(
            "{} is {} under one name{}{}",
            several.key,
            members.collect::<Vec<_>>().join(", then "),
            deploy_to.map_or_else(String::new, |key| format!("; pushes go to {key}")),
            if several.serves.is_empty() {
                String::new()
            } else {
                format!("; for {}", several.serves.join(", "))
            }
        ));
    }
    let definitions = app::definitions(config);
    let mut samples = vec!["nginx:latest".to_owned()];
    let virtuals = config.virtuals();
    let remotes = config.remotes();
    let serving = virtuals
        .map(|several| (&several.key, &several.serves))
        .chain(remotes.map(|remote| (&remote.key, &remote.serves)));
    for (key, serves) in serving {
        samples.push(format!("{key}/team/app:1"));
        samples.extend(serves.iter().map(|host| format!("{host}/team/app:1")));
    }
    samples.extend(
        config
            .locals()
            .map(|local| format!("{}/team/app:1", local.key)),
    );
    for sample in samples {
        let (name, tag) = sample.rsplit_once(':').unwrap_or((&sample, "latest"));
        let target = resolve(&definitions, &Chosen::Nothing, name);
        match target {
            Ok(target) => output::line(&format!(
                "/v2/{name}/manifests/{tag} is {} of {}",
                target.name, target.key
            )),
            Err(error) => output::line(&format!("/v2/{name}/manifests/{tag}: {error}")),
        }
    }
    if let Ok(missing @ 1..) = super::block_on(missing(config)) {
        output::line(&format!(
            "missing: {missing} of what clients asked for; `roadstead missing` lists the images"
        ));
    }
}

/// How much is missing, where a mirror runs that can say so; a store that nobody has open stays closed.
async fn missing(config: &Resolved) -> anyhow::Result<u64> {
    let Some(owner) = owner::at_once(&config.storage.path)? else {
        return Ok(0);
    };
    let asked = owner.ask(Method::GET, "/admin/missing?n=0", None);
    let told = tokio::time::timeout(PATIENCE, asked).await??;
    let total = told.get("total").and_then(Value::as_u64);
    Ok(total.unwrap_or_default())
}
