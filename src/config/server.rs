//! The `[server]` table: where the mirror listens, as what, and how patient it is.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;

use url::Url;

use super::file;
use super::resolve::{Bind, Reader, Resolved, span, within};
use crate::repository::{AllSettings, Key, records};
use crate::{limits, overlay, server, store};

impl Reader<'_> {
    /// The `[server]` table; what does not belong to it is filled in by the caller.
    pub(super) fn server(
        &mut self,
        server: file::Server,
        known: &[Key],
        whole: bool,
    ) -> Option<Resolved> {
        let mut listen = Vec::new();
        if let Some(addresses) = server.listen {
            let at = addresses.span();
            for address in addresses.into_inner().0 {
                listen.extend(self.address(&address, at.clone()));
            }
        }
        if listen.is_empty() && self.problems.is_empty() {
            listen.push(SocketAddr::from(([127, 0, 0, 1], 5000)));
        }
        let admin_listen = server
            .admin_listen
            .and_then(|address| self.address(address.get_ref(), address.span()));
        let external_url = server.external_url.and_then(|url| {
            let parsed = Url::parse(url.get_ref())
                .ok()
                .filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
            if parsed.is_none() {
                self.problem(
                    url.span(),
                    "server.external_url is no URL",
                    "write it like \"https://mirror.example.com\"",
                );
            }
            parsed
        });
        let trusted_proxies = self.networks(&server.trusted_proxies, "server.trusted_proxies");
        let tls = server.tls.map_or_else(Vec::new, |pairs| pairs.0);
        let clients = self.clients(&tls);
        let tls = tls
            .into_iter()
            .map(|pair| server::CertificatePair {
                certificate: self.path(&pair.certificate),
                key: self.path(&pair.key),
            })
            .collect();
        let mut binds = Vec::new();
        for bind in server.bind {
            self.name(&bind.repository);
            let known = Key::parse(bind.repository.get_ref())
                .ok()
                .filter(|key| !whole || known.contains(key));
            match known {
                Some(repository) if bind.host.is_some() != bind.listen.is_some() => {
                    let host = bind.host.and_then(|host| self.host(&host));
                    let listen = bind
                        .listen
                        .and_then(|listen| self.address(listen.get_ref(), listen.span()));
                    binds.push(Bind {
                        host,
                        listen,
                        repository,
                    });
                }
                Some(_) => self.problem(
                    bind.repository.span(),
                    "[[server.bind]] needs either host or listen",
                    "write one of the two",
                ),
                None => self.no_such_name(
                    format!(
                        "[[server.bind]] names no repository: `{}`",
                        bind.repository.get_ref()
                    ),
                    bind.repository.get_ref(),
                    "name a configured one".to_owned(),
                ),
            }
        }
        let defaults = server::Limits::default();
        let limits = server::Limits {
            max_connections: server
                .limits
                .max_connections
                .unwrap_or(defaults.max_connections)
                .max(1),
            header_timeout: within(server.limits.header_timeout, defaults.header_timeout),
            idle_timeout: within(server.limits.idle_timeout, defaults.idle_timeout),
            stalled_client: within(server.limits.stalled_client, defaults.stalled_client),
            drain: span(server.limits.drain_timeout, defaults.drain),
            ..defaults
        };
        let default = Key::parse("docker-hub").ok()?;
        let storage = store::Config {
            path: PathBuf::new(),
            max_size: 0,
            min_free: 0,
        };
        Some(Resolved {
            syncs: Vec::new(),
            listen,
            admin_listen,
            tls,
            clients,
            external_url,
            trusted_proxies,
            limits,
            storage,
            default,
            binds,
            audit: None,
            auth: None,
            client_limits: limits::Config::default(),
            repositories: AllSettings::new(),
            collection: overlay::Collection::default(),
            records: records::Config::default(),
            warnings: Vec::new(),
        })
    }

    fn address(&mut self, address: &str, at: Range<usize>) -> Option<SocketAddr> {
        let parsed = address.parse().ok();
        if parsed.is_none() {
            self.problem(
                at,
                format!("`{address}` is no address to listen on"),
                "write an address and a port, like \"127.0.0.1:5000\" or \"[::]:5000\"",
            );
        }
        parsed
    }
}
