//! `roadstead pin`, `unpin` and `pins`: images of remotes that stay, whatever else the cache lets go of.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use http::Method;
use serde::Deserialize;
use url::form_urlencoded;

use super::owner::{self, Here};
use super::{FAILED, output};

#[derive(Debug, Args)]
pub(super) struct PinArguments {
    /// Images, as a pull names them: nginx:1.27, ghcr.io/a/b@sha256:…, docker-hub/library/nginx:1
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Let the tag mean this image from now on, whatever upstream says
    #[arg(long)]
    freeze: bool,
    /// Only these platforms of an image that has several, such as linux/amd64 [default: all]
    #[arg(long, value_name = "PLATFORMS", value_delimiter = ',')]
    platform: Vec<String>,
    /// Data directory, instead of the configured one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct UnpinArguments {
    /// Images, as they were pinned
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Data directory, instead of the configured one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// Print JSON, as `GET /admin/pins` answers it
    #[arg(long)]
    json: bool,
    /// Data directory, instead of the configured one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// What `GET /admin/pins` answers.
#[derive(Debug, Deserialize)]
struct Pins {
    pins: Vec<Line>,
}

/// A pin, as `/admin/pins` tells it.
#[derive(Debug, Deserialize)]
struct Line {
    repository: String,
    image: String,
    reference: String,
    digest: String,
    bytes: Option<u64>,
    missing: u64,
    at: String,
    frozen: bool,
}

/// Pins one after the other, and says of each how it went.
pub(super) fn pin(here: Here, arguments: &PinArguments) -> ExitCode {
    let here = here.on(arguments.data.as_deref());
    let each = super::block_on(owner::with(here, async |owner| {
        each(&arguments.images, async |image| {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("image", image);
            if arguments.freeze {
                query.append_pair("freeze", "true");
            }
            for platform in &arguments.platform {
                query.append_pair("platform", platform);
            }
            let target = format!("/admin/pins?{}", query.finish());
            let pinned = owner.ask(Method::PUT, &target, None).await?;
            Ok(line(&serde_json::from_value(pinned)?))
        })
        .await
    }));
    told(each)
}

/// Unpins one after the other.
pub(super) fn unpin(here: Here, arguments: &UnpinArguments) -> ExitCode {
    let here = here.on(arguments.data.as_deref());
    let each = super::block_on(owner::with(here, async |owner| {
        each(&arguments.images, async |image| {
            let query = form_urlencoded::Serializer::new(String::new())
                .append_pair("image", image)
                .finish();
            let target = format!("/admin/pins?{query}");
            owner.ask(Method::DELETE, &target, None).await?;
            Ok(format!("{image} is not pinned any more"))
        })
        .await
    }));
    told(each)
}

/// Does it for each; what fails for one is said at once, and does not stop the others. Answers whether all went well.
async fn each(
    images: &[String],
    work: impl AsyncFn(&str) -> anyhow::Result<String>,
) -> anyhow::Result<bool> {
    let mut well = true;
    for image in images {
        match work(image).await.with_context(|| image.clone()) {
            Ok(done) => output::line(&done),
            Err(error) => {
                output::error(&format!("error: {error:#}"));
                well = false;
            }
        }
    }
    Ok(well)
}

fn told(well: anyhow::Result<bool>) -> ExitCode {
    match well {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            output::error(&format!("error: {error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

/// Lists what is pinned.
pub(super) fn list(here: Here, arguments: &ListArguments) -> ExitCode {
    let here = here.on(arguments.data.as_deref());
    let told = super::block_on(owner::ask(here, Method::GET, "/admin/pins", None));
    super::told(told.and_then(|told| {
        if arguments.json {
            return Ok(vec![told.to_string()]);
        }
        let Pins { pins } = serde_json::from_value(told)?;
        Ok(pins.iter().map(line).collect())
    }))
}

fn line(one: &Line) -> String {
    // As `unpin` takes it.
    let name = if one.reference.contains(':') {
        format!("{}/{}@{}", one.repository, one.image, one.reference)
    } else {
        format!("{}/{}:{}", one.repository, one.image, one.reference)
    };
    let kept = match one.bytes {
        None => "not kept".to_owned(),
        Some(bytes) if one.missing == 0 => format!("{bytes} bytes"),
        Some(bytes) => format!("{bytes} bytes, {} pieces missing", one.missing),
    };
    let frozen = if one.frozen { "\tfrozen" } else { "" };
    format!("{name}\t{}\t{kept}\tsince {}{frozen}", one.digest, one.at)
}
