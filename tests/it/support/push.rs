//! Pushing by hand, with every answer to look at.

use bytes::Bytes;
use http::Method;

use super::{Answer, Client, Content, Image};

/// The path of an upload that was opened.
pub fn location(answer: &Answer) -> String {
    let location = answer.header("location").unwrap_or_default();
    location[location.find("/v2/").unwrap_or(0)..].to_owned()
}

/// `path` with one more query parameter.
pub fn with(path: &str, parameter: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}{parameter}")
}

impl Client {
    /// Opens an upload; answers its path.
    pub async fn begin_upload(&self, name: &str) -> String {
        let opened = self
            .send(Method::POST, &format!("/v2/{name}/blobs/uploads/"), &[])
            .await;
        assert_eq!(opened.status.as_u16(), 202, "{opened:?}");
        location(&opened)
    }

    /// One chunk at `start`.
    pub async fn patch(&self, path: &str, start: usize, bytes: &[u8]) -> Answer {
        let range = format!("{start}-{}", start + bytes.len() - 1);
        let headers = [("content-range", range.as_str())];
        let bytes = Bytes::copy_from_slice(bytes);
        self.send_body(Method::PATCH, path, &headers, bytes).await
    }

    /// Pushes a blob in two requests.
    pub async fn push_blob(&self, name: &str, blob: &Content) -> Answer {
        let path = with(
            &self.begin_upload(name).await,
            &format!("digest={}", blob.digest),
        );
        self.send_body(Method::PUT, &path, &[], blob.bytes.clone())
            .await
    }

    /// Pushes a manifest.
    pub async fn put_manifest(&self, name: &str, reference: &str, manifest: &Content) -> Answer {
        let path = format!("/v2/{name}/manifests/{reference}");
        let headers = [("content-type", manifest.media_type.as_str())];
        self.send_body(Method::PUT, &path, &headers, manifest.bytes.clone())
            .await
    }

    /// Pushes an image: blobs, then manifests, children first, then the tag.
    pub async fn push(&self, name: &str, tag: &str, image: &Image) {
        for blob in &image.blobs {
            let put = self.push_blob(name, blob).await;
            assert_eq!(put.status.as_u16(), 201, "{put:?}");
        }
        for manifest in &image.manifests {
            let put = self.put_manifest(name, &manifest.digest, manifest).await;
            assert_eq!(put.status.as_u16(), 201, "{put:?}");
        }
        let put = self.put_manifest(name, tag, &image.root).await;
        assert_eq!(put.status.as_u16(), 201, "{put:?}");
    }

    /// Whether everything of an image is there, byte for byte.
    pub async fn has(&self, name: &str, reference: &str, image: &Image) -> bool {
        let mut whole = self.manifest(name, reference).await.is(&image.root.bytes);
        for manifest in &image.manifests {
            let answer = self.manifest(name, &manifest.digest).await;
            whole &= answer.is(&manifest.bytes)
                && answer.header("content-type") == Some(&manifest.media_type);
        }
        for blob in &image.blobs {
            whole &= self.blob(name, &blob.digest).await.is(&blob.bytes);
        }
        whole
    }

    /// The status of a request to a mirror that may die meanwhile.
    pub async fn try_body(&self, method: Method, path: &str, body: Bytes) -> Option<u16> {
        let open = self.try_open(method, path, &[], body).await.ok()?;
        Some(open.status.as_u16())
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[]).await
    }
}
