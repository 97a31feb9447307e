//! The images in Kubernetes manifests and in what Helm renders.
//!
//! No list of kinds: whatever has containers is looked into, so that Jobs in `CronJobs`, Lists and resources of operators count. What certainly is an
//! image (a container's) must be one. An `image:` elsewhere, as operators' resources have it, counts where it cannot be anything else: it
//! parses and has a tag or a digest.

use std::collections::HashSet;
use std::rc::Rc;

use super::image::Image;
use super::tree::{Entry, Kind, Node};
use super::yaml::Visits;
use super::{Referrers, Text, Wanted, yaml};
use crate::diagnosis::Problem;

/// Under these keys stand lists of containers; the last two are Tekton's and Argo's.
const CONTAINERS: [&str; 5] = [
    "containers",
    "initContainers",
    "ephemeralContainers",
    "steps",
    "sidecars",
];
/// Under these, one of them (Argo).
const CONTAINER: [&str; 2] = ["container", "script"];
/// What is somebody's text and no part of what runs.
const NOT_LOOKED_INTO: [&str; 3] = ["metadata", "annotations", "labels"];
/// Kinds that run nothing: schemas, and data that may look like anything.
const KINDS_WITHOUT: [&str; 3] = ["CustomResourceDefinition", "ConfigMap", "Secret"];

pub(super) fn read(text: &Text<'_>) -> Result<Vec<Wanted>, Problem> {
    let mut walk = Walk {
        text,
        found: Vec::new(),
        seen: HashSet::new(),
        visits: Visits::new(),
    };
    for document in yaml::parse(text.content)? {
        if !matches!(
            document.kind,
            Kind::Null | Kind::Mapping(_) | Kind::Sequence(_)
        ) {
            return Err(document.problem(
                format!("this is {}, not a Kubernetes object", document.name()),
                "give YAML or JSON with `kind` and `apiVersion`; a plain list is given with -f",
            ));
        }
        walk.look_into(&document)?;
    }
    Ok(walk.found)
}

struct Walk<'a> {
    text: &'a Text<'a>,
    found: Vec<Wanted>,
    /// What was found, by its text: most images stand in many places.
    seen: HashSet<String>,
    visits: Visits,
}

impl Walk<'_> {
    /// The tree is at most [`yaml::DEPTH_MAX`] deep as it is written, but aliases may put such a tree into another one.
    fn look_into(&mut self, node: &Rc<Node>) -> Result<(), Problem> {
        let mut open = vec![Rc::clone(node)];
        while let Some(node) = open.pop() {
            self.visits.count(&node)?;
            // In the order in which they stand.
            open.extend(node.items().iter().rev().map(Rc::clone));
            let kind = node.get("kind").and_then(|kind| kind.text());
            if kind.is_some_and(|kind| KINDS_WITHOUT.contains(&kind)) {
                continue;
            }
            for entry in node.entries() {
                self.take(entry)?;
            }
            let inside = node.entries().iter().rev();
            let inside = inside.filter(|entry| !NOT_LOOKED_INTO.contains(&entry.key.as_str()));
            open.extend(inside.map(|entry| Rc::clone(&entry.value)));
        }
        Ok(())
    }

    fn take(&mut self, entry: &Entry) -> Result<(), Problem> {
        let key = entry.key.as_str();
        let value = &entry.value;
        if CONTAINERS.contains(&key) {
            for container in value.items() {
                self.container(container)?;
            }
        } else if CONTAINER.contains(&key) {
            self.container(value)?;
        } else if key == "volumes" {
            for volume in value.items() {
                let reference = volume.get("image").and_then(|image| image.get("reference"));
                if let Some(reference) = reference {
                    self.certain(reference)?;
                }
            }
        } else if key == "image" {
            self.likely(value);
        }
        Ok(())
    }

    fn container(&mut self, container: &Node) -> Result<(), Problem> {
        match container.get("image") {
            // A step of Tekton or Argo may have none, or be a list.
            None => Ok(()),
            Some(image) => match &image.kind {
                Kind::Text(text) if !text.trim().is_empty() => self.certain(image),
                // Some charts render this where the injector of a mesh fills it in; what is not there cannot be fetched.
                Kind::Null | Kind::Text(_) => Ok(()),
                Kind::Mapping(_) | Kind::Sequence(_) | Kind::Bool(_) | Kind::Number(_) => {
                    self.certain(image)
                }
            },
        }
    }

    fn certain(&mut self, node: &Node) -> Result<(), Problem> {
        let text = node.expect_text("an image")?;
        // Meshes put this for their injector to replace; it is no image.
        if text == "auto" {
            return Ok(());
        }
        let image = Image::parse(text)
            .map_err(|error| node.problem(format!("`{text}` names no image"), error.to_string()))?;
        self.push(image, node);
        Ok(())
    }

    fn likely(&mut self, node: &Node) {
        let image = node.text().and_then(|text| Image::parse(text).ok());
        if let Some(image) = image.filter(|image| image.tag.is_some() || image.digest.is_some()) {
            self.push(image, node);
        }
    }

    fn push(&mut self, image: Image, node: &Node) {
        if !self
            .seen
            .insert(format!("{} {:?} {:?}", image.name, image.tag, image.digest))
        {
            return;
        }
        let source = self.text.source(&node.at);
        let wanted = Wanted::new(image, Vec::new(), Referrers::None, source);
        self.found.push(wanted);
    }
}
