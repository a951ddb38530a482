//! Installs Weir into a cluster: its images into every node's container runtime, and its manifests by way of
//! kustomize, as a person would, with what only this kind of cluster needs added.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::addons;
use crate::build;
use crate::cluster::Cluster;
use crate::kubernetes;
use crate::plan::API_PORT;
use crate::process;
use crate::progress::Progress;
use crate::recipes::CTR;

/// On pod templates: changes when the images do, whose tags do not.
const IMAGES_ANNOTATION: &str = "e2e.weir.invalid/images";

/// Of images that are made from this checkout.
const TAG: &str = "dev";

/// How long Weir may take to run everywhere, on a machine that does other things.
const PATIENCE: Duration = Duration::from_secs(180);

/// What is installed.
#[derive(Debug, Clone)]
pub struct Weir {
    /// A folder of image archives, `*.tar`, as `docker save` makes them.
    pub images: PathBuf,
    /// A folder that `kubectl kustomize` takes.
    pub manifests: PathBuf,
}

/// Installs Weir, or brings it up to date, and waits until it and the nodes are ready.
///
/// # Errors
/// There are no images, something is refused, or is not ready in time.
pub fn install(cluster: &Cluster, weir: &Weir, progress: Progress) -> Result<()> {
    let archives = archives(&weir.images)?;
    for node in cluster.nodes() {
        progress.say(format_args!(
            "importing {} images of Weir into {}",
            archives.len(),
            node.name
        ));
        for archive in &archives {
            let file = File::open(archive).with_context(|| format!("opening {}", archive.display()))?;
            let mut ctr = node.command(&build::path(&CTR)?.display().to_string())?;
            ctr.args(["--namespace=k8s.io", "images", "import", "--local", "-"])
                .stdin(Stdio::from(file));
            process::run(&mut ctr).with_context(|| format!("importing {}", archive.display()))?;
        }
    }
    let mut objects = manifests(cluster, &weir.manifests)?;
    let here = Here {
        api_address: cluster.plan().api_address().to_string(),
        images: digest(&archives)?,
    };
    for object in &mut objects {
        here.adapt(object);
    }
    progress.say("applying Weir's manifests");
    apply(cluster, &objects)?;
    progress.say("waiting for the nodes to be ready");
    kubernetes::wait(cluster, "Ready", PATIENCE, &["node", "--all"])?;
    for object in &objects {
        wait_for(cluster, object)?;
    }
    addons::wait(cluster, PATIENCE)?;
    progress.say("Weir is installed");
    Ok(())
}

fn archives(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| {
        format!(
            "reading {}: make the images with `cargo xtask images`",
            folder.display()
        )
    })?;
    let mut archives: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "tar"))
        .collect();
    archives.sort();
    if archives.is_empty() {
        bail!(
            "no archives in {}: make the images with `cargo xtask images`",
            folder.display()
        );
    }
    Ok(archives)
}

/// Of what the archives say of themselves, which names all their content by digests.
fn digest(archives: &[PathBuf]) -> Result<String> {
    let mut hash = Sha256::new();
    for archive in archives {
        let list = list_of_images(archive).with_context(|| format!("reading {}", archive.display()))?;
        hash.update(list);
    }
    Ok(hash.finalize()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn list_of_images(archive: &Path) -> Result<Vec<u8>> {
    let mut archive = tar::Archive::new(File::open(archive)?);
    for entry in archive.entries_with_seek()? {
        let mut entry = entry?;
        if entry.path_bytes().as_ref() == b"manifest.json" {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            return Ok(content);
        }
    }
    bail!("it has no manifest.json: it is no archive of `docker save`")
}

fn manifests(cluster: &Cluster, folder: &Path) -> Result<Vec<Value>> {
    let mut command = cluster.kubectl()?;
    command.arg("kustomize").arg(folder);
    let output = process::output(&mut command)?;
    let mut objects = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_slice(&output) {
        let object =
            Value::deserialize(document).with_context(|| format!("what {} makes", folder.display()))?;
        if !object.is_null() {
            objects.push(object);
        }
    }
    Ok(objects)
}

/// What a person would set in an overlay, or in the chart's values, for a cluster of this kind.
struct Here {
    /// Pods in their nodes' network reach the API server before there are Services, which Weir itself makes work.
    api_address: String,
    /// A digest of the images that the tag [`TAG`] stands for: new images make new pods.
    images: String,
}

impl Here {
    fn adapt(&self, object: &mut Value) {
        let Some(template) = object.pointer_mut("/spec/template") else {
            return;
        };
        template["metadata"]["annotations"][IMAGES_ANNOTATION] = json!(self.images);
        let in_nodes_network = template.pointer("/spec/hostNetwork") == Some(&json!(true));
        for container in list(template, "/spec/initContainers") {
            self.adapt_container(container, in_nodes_network);
        }
        for container in list(template, "/spec/containers") {
            self.adapt_container(container, in_nodes_network);
        }
    }

    fn adapt_container(&self, container: &mut Value, in_nodes_network: bool) {
        let repository = container["image"]
            .as_str()
            .and_then(|image| image.split(':').next());
        if let Some(repository) = repository.filter(|repository| repository.starts_with("weir/")) {
            container["image"] = json!(format!("{repository}:{TAG}"));
        }
        if in_nodes_network {
            set_variable(container, "KUBERNETES_SERVICE_HOST", &self.api_address);
            set_variable(container, "KUBERNETES_SERVICE_PORT", &API_PORT.to_string());
        }
    }
}

/// The elements of a list, if there is one.
fn list<'a>(object: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Value> {
    object
        .pointer_mut(pointer)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

fn set_variable(container: &mut Value, name: &str, value: &str) {
    let new = json!({ "name": name, "value": value });
    match container.get_mut("env").and_then(Value::as_array_mut) {
        Some(variables) => {
            variables.retain(|variable| variable["name"] != name);
            variables.push(new);
        }
        None => container["env"] = json!([new]),
    }
}

/// Definitions and namespaces before what is of them.
fn apply(cluster: &Cluster, objects: &[Value]) -> Result<()> {
    let comes_first = |object: &&Value| {
        matches!(
            object["kind"].as_str(),
            Some("CustomResourceDefinition" | "Namespace")
        )
    };
    let (first, rest): (Vec<&Value>, Vec<&Value>) = objects.iter().partition(comes_first);
    for objects in [first, rest] {
        if !objects.is_empty() {
            let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
            kubernetes::apply(cluster, &list.to_string())?;
        }
        for definition in objects
            .iter()
            .filter(|object| object["kind"] == "CustomResourceDefinition")
        {
            let name = definition["metadata"]["name"].as_str().unwrap_or_default();
            kubernetes::wait(
                cluster,
                "Established",
                PATIENCE,
                &["customresourcedefinition", name],
            )?;
        }
    }
    Ok(())
}

fn wait_for(cluster: &Cluster, object: &Value) -> Result<()> {
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or("default");
    let (Some(kind), Some(name)) = (object["kind"].as_str(), metadata["name"].as_str()) else {
        return Ok(());
    };
    match kind {
        "DaemonSet" | "Deployment" => kubernetes::roll_out(
            cluster,
            namespace,
            &format!("{}/{name}", kind.to_lowercase()),
            PATIENCE,
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(template: Value) -> Value {
        json!({ "kind": "DaemonSet", "spec": { "template": template } })
    }

    fn adapted(mut object: Value) -> Value {
        let here = Here {
            api_address: "172.31.0.10".to_owned(),
            images: "abc".to_owned(),
        };
        here.adapt(&mut object);
        object
    }

    #[test]
    fn pods_in_their_nodes_network_get_what_this_cluster_is_like() {
        let before = json!({ "spec": {
            "hostNetwork": true,
            "containers": [{ "name": "a", "image": "weir/agent:0.1.0", "env": [
                { "name": "KUBERNETES_SERVICE_HOST", "value": "example.org" },
                { "name": "RUST_LOG", "value": "info" },
            ] }],
        } });
        let after = json!({
            "metadata": { "annotations": { "e2e.weir.invalid/images": "abc" } },
            "spec": {
                "hostNetwork": true,
                "containers": [{ "name": "a", "image": "weir/agent:dev", "env": [
                    { "name": "RUST_LOG", "value": "info" },
                    { "name": "KUBERNETES_SERVICE_HOST", "value": "172.31.0.10" },
                    { "name": "KUBERNETES_SERVICE_PORT", "value": "6443" },
                ] }],
            },
        });
        assert_eq!(adapted(workload(before)), workload(after));
    }

    #[test]
    fn other_objects_stay_as_they_are() {
        let spec = json!({ "containers": [{ "name": "o", "image": "example.org/other:1" }] });
        let annotations = json!({ "annotations": { "e2e.weir.invalid/images": "abc" } });
        assert_eq!(
            adapted(workload(json!({ "spec": spec }))),
            workload(json!({ "metadata": annotations, "spec": spec }))
        );
        let service = json!({ "kind": "Service", "spec": { "ports": [{ "port": 80 }] } });
        assert_eq!(adapted(service.clone()), service);
    }
}
