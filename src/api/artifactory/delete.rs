//! `DELETE /artifactory/<key>/<path>` (PROTOCOL E4): an image, a tag of one, or everything below a folder.

use http::{Method, Response, StatusCode};

use super::super::error::ApiError;
use super::super::record::Record;
use super::super::{Api, Call};
use super::path::{Node, find, is_manifest};
use crate::auth::Right;
use crate::body::Body;
use crate::oci::{Algorithm, Digest, ErrorCode, Name, Tag};
use crate::repository::{Error, Repository};
use crate::store::index::items::BLOB_PREFIX;

impl Api {
    /// Deletes what a path means: the image or folder of that name, and the tag that its last component is. 204, or 404 where it means nothing.
    pub(in super::super) async fn delete_path(
        &self,
        call: &Call<'_>,
        path: &str,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        if *call.method != Method::DELETE {
            return Err(ApiError::method("DELETE"));
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        let named = path.split_once('/').filter(|(_, path)| !path.is_empty());
        let Some((key, path)) = named else {
            return Err(ApiError::bad_request(
                "name an image: /artifactory/<repository key>/<image>[/<tag>]",
            ));
        };
        let repository = call
            .there
            .named(key)
            .ok_or_else(|| self.unknown(call, key))?;
        record.note_repository(repository.key(), "path");
        self.require_all(call, repository.key(), Right::Delete)?;
        let repository = match repository {
            Repository::Virtual(several) => match several.target() {
                Some(local) => &Repository::Local(local.clone()),
                None => return Err(ApiError::read_only(several.key())),
            },
            Repository::Local(_) | Repository::Remote(_) => repository,
        };
        let mut found = false;
        let (parent, file) = path.rsplit_once('/').unwrap_or_default();
        if let Some((image, digest)) = layer(parent, file) {
            // It is a file of Artifactory's; here it goes by itself when no manifest of the image needs it.
            let index = self.config.store.index();
            let linked = index.is_linked(repository.key(), &image, &digest).await;
            found |= linked.map_err(|error| ApiError::failed(&error))?;
        }
        for name in repository.names_below(path).await.map_err(failed)? {
            found |= repository.remove_image(&name).await.map_err(failed)?;
        }
        let is_file = is_manifest(file)
            && matches!(
                find(&self.config.store, repository, path).await?,
                Some(Node::Manifest(_))
            );
        let tag = if is_file { parent } else { path };
        if let Some((image, tag)) = tag.rsplit_once('/')
            && let (Ok(image), Ok(tag)) = (Name::parse(image), Tag::parse(tag))
        {
            found |= repository.remove_tag(&image, &tag).await.map_err(failed)?;
        }
        if !found {
            let absent = Error::Local(crate::overlay::Error::NameUnknown);
            return Err(failed(absent));
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        Ok(response)
    }
}

/// A layer or configuration as a file of a tag: its image and what it is.
fn layer(tag: &str, file: &str) -> Option<(Name, Digest)> {
    let hex = file.strip_prefix(BLOB_PREFIX)?;
    let digest = Digest::parse(&format!("{}:{hex}", Algorithm::Sha256.as_str())).ok()?;
    let (image, _) = tag.rsplit_once('/')?;
    Some((Name::parse(image).ok()?, digest))
}

fn failed(error: Error) -> ApiError {
    ApiError::from_repository(error, ErrorCode::NameUnknown)
}
