//! `client_ca`, `client_auth` and `client_user` of `server.tls`.

use super::file::{self, ClientAuth};
use super::resolve::Reader;
use crate::server::{ClientCertificates, ClientUser};

impl Reader<'_> {
    /// Certificates are asked for before a name chooses one of ours, so that only one pair of a list can say whose count.
    pub(super) fn clients(&mut self, pairs: &[file::Tls]) -> Option<ClientCertificates> {
        let mut told = None;
        for pair in pairs {
            let Some(ca) = &pair.client_ca else {
                let auth = pair.client_auth.as_ref().map(toml::Spanned::span);
                let user = pair.client_user.as_ref().map(toml::Spanned::span);
                if let Some(at) = auth.or(user) {
                    self.problem(
                        at,
                        "server.tls: no certificates of clients are taken",
                        "write client_ca = \"ca.pem\", the authority that signs them",
                    );
                }
                continue;
            };
            if told.is_some() {
                self.problem(
                    ca.span(),
                    "server.tls.client_ca is there already",
                    "write it beside one of the certificates; it counts for all, and one file may have several authorities",
                );
            }
            let user = pair.client_user.as_ref().map(|user| *user.get_ref());
            let auth = pair.client_auth.as_ref().map(|auth| *auth.get_ref());
            told = Some(ClientCertificates {
                ca: self.path(ca.get_ref()),
                required: auth == Some(ClientAuth::Required),
                user: match user {
                    None | Some(file::ClientUser::Cn) => ClientUser::CommonName,
                    Some(file::ClientUser::Dns) => ClientUser::Dns,
                    Some(file::ClientUser::Email) => ClientUser::Email,
                    Some(file::ClientUser::Uri) => ClientUser::Uri,
                },
            });
        }
        told
    }
}
