//! The images of Compose files (Compose specification, `services`).

use std::collections::BTreeMap;
use std::rc::Rc;

use super::image::{IMAGE_MAX, Image};
use super::tree::{Kind, Node};
use super::variables::fill_in;
use super::yaml::Visits;
use super::{Referrers, Text, Wanted, yaml};
use crate::diagnosis::Problem;
use crate::oci::Platform;

pub(super) fn read(
    text: &Text<'_>,
    variables: &BTreeMap<String, String>,
) -> Result<Vec<Wanted>, Problem> {
    let mut found = Vec::new();
    let mut visits = Visits::new();
    for document in yaml::parse(text.content)? {
        if matches!(document.kind, Kind::Null) {
            continue;
        }
        if let Some(include) = document.get("include") {
            return Err(elsewhere(include, "this file includes others"));
        }
        let services = document
            .get("services")
            .filter(|services| matches!(services.kind, Kind::Mapping(_)));
        let Some(services) = services else {
            return Err(document.problem(
                "this is no Compose file: it has no `services`",
                "Kubernetes manifests are given with --from-kubernetes, lists with -f",
            ));
        };
        for entry in services.entries() {
            let service = Service {
                name: &entry.key,
                node: &entry.value,
                text,
                variables,
            };
            service.read(&mut found, &mut visits)?;
        }
    }
    Ok(found)
}

struct Service<'a> {
    name: &'a str,
    node: &'a Rc<Node>,
    text: &'a Text<'a>,
    variables: &'a BTreeMap<String, String>,
}

impl Service<'_> {
    fn read(&self, found: &mut Vec<Wanted>, visits: &mut Visits) -> Result<(), Problem> {
        let node = self.node;
        visits.count(node)?;
        if !matches!(node.kind, Kind::Mapping(_)) {
            return Err(node.problem(
                format!("the service `{}` is {}", self.name, node.name()),
                "a service is a table of keys and values",
            ));
        }
        let platforms = match node.get("platform") {
            Some(platform) => vec![self.platform(platform)?],
            None => Vec::new(),
        };
        for volume in node
            .get("volumes")
            .map_or(&[][..], |volumes| volumes.items())
        {
            visits.count(volume)?;
            let is_image = volume.get("type").and_then(|kind| kind.text()) == Some("image");
            if let Some(source) = volume.get("source").filter(|_| is_image) {
                found.push(self.image(source, platforms.clone())?);
            }
        }
        if let Some(image) = node.get("image") {
            found.push(self.image(image, platforms)?);
            return Ok(());
        }
        if node.get("build").is_some() || node.get("provider").is_some() {
            return Ok(());
        }
        match node.get("extends") {
            // The service of this file that it extends is read by itself.
            Some(extends) if extends.text().is_some() || extends.get("file").is_none() => Ok(()),
            Some(extends) => {
                let title = format!("the service `{}` extends one of another file", self.name);
                Err(elsewhere(extends, &title))
            }
            None => Err(node.problem(
                format!(
                    "the service `{}` has neither `image` nor `build`",
                    self.name
                ),
                "give the file that says it too, or what `docker compose config` prints",
            )),
        }
    }

    fn fill_in(&self, node: &Node, what: &str) -> Result<String, Problem> {
        let text = node.expect_text(what)?;
        if text.len() > IMAGE_MAX {
            return Err(node.problem(
                format!("{what} of the service `{}` is too long", self.name),
                format!("write at most {IMAGE_MAX} characters"),
            ));
        }
        fill_in(text, self.variables).map_err(|why| {
            let title = format!("{} of the service `{}`: {}", what, self.name, why.title);
            node.problem(title, why.remedy)
        })
    }

    fn image(&self, node: &Node, platforms: Vec<Platform>) -> Result<Wanted, Problem> {
        let text = self.fill_in(node, "the image")?;
        let image = Image::parse(&text).map_err(|error| {
            let title = format!("the service `{}`: `{text}` names no image", self.name);
            node.problem(title, error.to_string())
        })?;
        let source = self.text.source(&node.at);
        Ok(Wanted::new(image, platforms, Referrers::None, source))
    }

    fn platform(&self, node: &Node) -> Result<Platform, Problem> {
        let text = self.fill_in(node, "the platform")?;
        Platform::parse(&text)
            .map_err(|error| node.problem(format!("`{text}` is no platform"), error.to_string()))
    }
}

fn elsewhere(node: &Node, title: &str) -> Problem {
    node.problem(
        title,
        "give what `docker compose config` prints, which is all in one",
    )
}
