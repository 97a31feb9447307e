//! `DELETE /artifactory/<key>/<path>` (PROTOCOL E4): an image, a tag of one, or everything below a folder.

use http::{Method, Response, StatusCode};

use super::super::error::ApiError;
use super::super::record::Record;
use super::super::{Api, Call};
use crate::body::Body;
use crate::oci::{ErrorCode, Name, Tag};
use crate::repository::{Error, Repository};

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
        if !self.config.open_writes {
            return Err(ApiError::no_writes());
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
            .ok_or_else(|| ApiError::no_repository(key))?;
        record.note_repository(repository.key(), "path");
        let repository = match repository {
            Repository::Virtual(several) => match several.target() {
                Some(local) => &Repository::Local(local.clone()),
                None => return Err(ApiError::read_only(several.key())),
            },
            Repository::Local(_) | Repository::Remote(_) => repository,
        };
        let mut found = false;
        for name in repository.names_below(path).await.map_err(failed)? {
            found |= repository.remove_image(&name).await.map_err(failed)?;
        }
        if let Some((image, tag)) = path.rsplit_once('/')
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

fn failed(error: Error) -> ApiError {
    ApiError::from_repository(error, ErrorCode::NameUnknown)
}
