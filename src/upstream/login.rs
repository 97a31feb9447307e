//! What one logs in with.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;

use crate::secret::Secret;

/// The user name that marks a password as an identity token (Docker's convention).
pub(super) const IDENTITY_USER: &str = "<token>";

/// What one logs in with. Equal only if everything is; so a cached token belongs to exactly the credentials that it was given for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Login {
    /// User name and password.
    Password { username: String, password: Secret },
    /// A token that stands for an account, which a token service exchanges.
    Identity { token: Secret },
}

impl Login {
    /// User name and secret as they are configured or come from a helper.
    pub(super) fn new(username: String, secret: Secret) -> Self {
        if username.is_empty() || username == IDENTITY_USER {
            Self::Identity { token: secret }
        } else {
            Self::Password {
                username,
                password: secret,
            }
        }
    }

    /// The user name that is sent with Basic authentication. Azure's registry takes a nil id with an identity token.
    pub(super) fn username(&self) -> &str {
        match self {
            Self::Password { username, .. } => username,
            Self::Identity { .. } => "00000000-0000-0000-0000-000000000000",
        }
    }

    /// `Authorization` for Basic authentication.
    pub(super) fn basic(&self) -> Option<HeaderValue> {
        let secret = match self {
            Self::Password { password, .. } => password,
            Self::Identity { token } => token,
        };
        let pair = format!("{}:{}", self.username(), secret.expose());
        sensitive(&format!("Basic {}", BASE64_STANDARD.encode(pair)))
    }
}

/// A header value that does not show in logs nor in a compression table.
pub(super) fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
