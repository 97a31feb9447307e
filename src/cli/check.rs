//! `roadstead check`

use super::output;
use crate::config::Resolved;
use crate::repository::{Chosen, Definition, Definitions, resolve};

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
    for remote in &config.remotes {
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
    for local in &config.locals {
        output::line(&format!(
            "{} takes pushes{}",
            local.key,
            if config.open_writes() {
                ""
            } else {
                ", but not without [auth] while others can reach it"
            }
        ));
    }
    let remotes = config
        .remotes
        .iter()
        .map(|remote| (&remote.key, remote.serves.clone()));
    let locals = config.locals.iter().map(|local| (&local.key, Vec::new()));
    let definitions = remotes
        .chain(locals)
        .map(|(key, serves)| Definition {
            key: key.clone(),
            serves,
        })
        .collect();
    let definitions = Definitions::new(definitions, config.default.clone());
    let mut samples = vec!["nginx:latest".to_owned()];
    for remote in &config.remotes {
        samples.push(format!("{}/team/app:1", remote.key));
        samples.extend(
            remote
                .serves
                .iter()
                .map(|host| format!("{host}/team/app:1")),
        );
    }
    samples.extend(
        config
            .locals
            .iter()
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
}
