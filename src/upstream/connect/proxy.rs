//! Which proxy a URL goes through, by the values of the environment (curl's rules, as `hyper-util` has them).

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use url::Url;

use crate::upstream::config::{BuildError, ProxyConfig};

/// The rules. What cannot be a proxy is an error and not a way around it.
pub(super) fn proxies(config: &ProxyConfig) -> Result<Matcher, BuildError> {
    let mut builder = Matcher::builder();
    for (which, proxy) in [("http", &config.http), ("https", &config.https)] {
        let Some(text) = proxy
            .as_deref()
            .map(str::trim)
            .filter(|text| !text.is_empty())
        else {
            continue;
        };
        // Curl takes a bare host:port too.
        let whole = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let is_web = Url::parse(&whole)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !is_web || whole.parse::<Uri>().is_err() {
            return Err(BuildError::Proxy(which));
        }
        builder = if which == "http" {
            builder.http(whole)
        } else {
            builder.https(whole)
        };
    }
    if let Some(no) = &config.no {
        builder = builder.no(no.as_str());
    }
    Ok(builder.build())
}
