//! Lists that are told page by page.

use http::{Response, header};

use super::error::ApiError;
use super::{Call, respond};
use crate::body::Body;
use crate::oci::page::Page;
use crate::oci::{ErrorCode, link};

/// The page that a request asks for: `n` and `last`.
pub(super) fn parse_page(call: &Call<'_>) -> Result<Page, ApiError> {
    Page::parse(call.query.iter().map(|(key, value)| (key, value)))
        .map_err(|error| ApiError::invalid(ErrorCode::PaginationNumberInvalid, error))
}

/// `Link: <…>; rel="next"`, relative to this host, with everything else that the request said.
pub(super) fn link_next(call: &Call<'_>, response: &mut Response<Body>, next: Option<String>) {
    let Some(next) = next else { return };
    let mut kept = url::form_urlencoded::Serializer::new(String::new());
    kept.extend_pairs(
        call.query
            .iter()
            .filter(|(key, _)| key != "n" && key != "last"),
    );
    let kept = kept.finish();
    let separator = if kept.is_empty() { "" } else { "&" };
    respond::set(
        response.headers_mut(),
        header::LINK,
        &link::render_next(&format!("{}?{next}{separator}{kept}", call.path)),
    );
}
