//! The sample objects, as far as the demo must know them.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde_yaml_ng::Value;

/// Kinds whose objects come only after everybody could talk to everybody.
const POLICIES: [&str; 2] = ["NetworkPolicy", "ClusterNetworkPolicy"];

/// One file of manifests.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) text: String,
    objects: Vec<Value>,
}

/// All files, in the order of their names.
#[derive(Clone, Debug)]
pub(crate) struct Samples(Vec<Sample>);

/// What the demo needs of a Pod.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) addresses: Vec<IpAddr>,
    /// Name of the network namespace.
    pub(crate) netns: String,
}

impl Samples {
    pub(crate) fn read(directory: &Path) -> Result<Samples> {
        let list = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
        let mut paths: Vec<PathBuf> = list.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
        paths.sort();
        let samples = paths
            .iter()
            .map(|path| Sample::read(path))
            .collect::<Result<_>>()?;
        Ok(Samples(samples))
    }

    /// Those with a policy in them, and the others.
    pub(crate) fn by_stage(&self) -> (Vec<&Sample>, Vec<&Sample>) {
        let policy = |object: &Value| POLICIES.contains(&object["kind"].as_str().unwrap_or_default());
        self.0
            .iter()
            .partition(|sample| sample.objects.iter().any(policy))
    }

    pub(crate) fn pod(&self, name: &str) -> Result<Pod> {
        let (_, object) = self.object("Pod", name)?;
        let pod = || -> Result<Pod> {
            let netns = text(
                &object["metadata"]["annotations"]["dataplane.weir.dev/netns"],
                "the netns annotation",
            )?;
            let ips = object["status"]["podIPs"]
                .as_sequence()
                .context("status.podIPs")?;
            let addresses = ips
                .iter()
                .map(|ip| Ok(text(&ip["ip"], "status.podIPs[].ip")?.parse()?));
            Ok(Pod {
                addresses: addresses.collect::<Result<_>>()?,
                netns: netns
                    .strip_prefix("/run/netns/")
                    .context("the netns annotation")?
                    .into(),
            })
        };
        pod().with_context(|| format!("Pod {name}"))
    }

    /// Where the first port of a Service is reached, and the port of the pods behind it.
    pub(crate) fn service(&self, name: &str) -> Result<(Vec<SocketAddr>, u16)> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Spec {
            #[serde(rename = "clusterIPs")]
            cluster_ips: Vec<IpAddr>,
            ports: Vec<Port>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Port {
            port: u16,
            target_port: u16,
        }
        let (_, object) = self.object("Service", name)?;
        let spec: Spec =
            serde_yaml_ng::from_value(object["spec"].clone()).with_context(|| format!("Service {name}"))?;
        let port = spec
            .ports
            .first()
            .with_context(|| format!("Service {name}: no port"))?;
        let addresses = spec
            .cluster_ips
            .iter()
            .map(|ip| SocketAddr::new(*ip, port.port))
            .collect();
        Ok((addresses, port.target_port))
    }

    /// The file that a pod is in, with a label taken off the pod.
    pub(crate) fn without_label(&self, pod: &str, label: &str) -> Result<(String, String)> {
        let (sample, _) = self.object("Pod", pod)?;
        let mut objects = sample.objects.clone();
        let object = objects.iter_mut().find(|object| is(object, "Pod", pod));
        let labels = object.and_then(|object| object["metadata"]["labels"].as_mapping_mut());
        if labels.and_then(|labels| labels.remove(label)).is_none() {
            bail!("Pod {pod} has no label {label}");
        }
        let documents = objects
            .iter()
            .map(serde_yaml_ng::to_string)
            .collect::<Result<Vec<_>, _>>()?;
        Ok((sample.name.clone(), documents.join("---\n")))
    }

    fn object(&self, kind: &str, name: &str) -> Result<(&Sample, &Value)> {
        let all = self
            .0
            .iter()
            .flat_map(|sample| sample.objects.iter().map(move |object| (sample, object)));
        let mut found = all.filter(|(_, object)| is(object, kind, name));
        found
            .next()
            .ok_or_else(|| anyhow!("the samples have no {kind} {name}"))
    }
}

impl Sample {
    fn read(path: &Path) -> Result<Sample> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let documents = serde_yaml_ng::Deserializer::from_str(&text).map(Value::deserialize);
        let mut objects = documents
            .collect::<Result<Vec<_>, _>>()
            .with_context(|| path.display().to_string())?;
        // A comment between two separators is a document of nothing.
        objects.retain(|object| !object.is_null());
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Ok(Sample { name, text, objects })
    }

    /// Kind and name of each object.
    pub(crate) fn titles(&self) -> String {
        let title = |object: &Value| {
            let part = |value: &Value| value.as_str().unwrap_or("?").to_string();
            format!("{} {}", part(&object["kind"]), part(&object["metadata"]["name"]))
        };
        self.objects.iter().map(title).collect::<Vec<_>>().join(", ")
    }
}

fn is(object: &Value, kind: &str, name: &str) -> bool {
    object["kind"].as_str() == Some(kind) && object["metadata"]["name"].as_str() == Some(name)
}

fn text<'a>(value: &'a Value, what: &str) -> Result<&'a str> {
    value.as_str().with_context(|| format!("{what} is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECTS: &str = r#"# A comment first.
---
apiVersion: v1
kind: Pod
metadata:
  name: foo
  labels: {app: foo, tier: x}
  annotations: {dataplane.weir.dev/netns: /run/netns/weir-demo-foo}
status: {podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIPs: [10.96.0.1, "fd00:96::1"]
  ports: [{port: 80, targetPort: 8080}]
"#;

    fn samples() -> (tempfile::TempDir, Samples) {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("10-objects.yaml"), OBJECTS).expect("written");
        fs::write(
            directory.path().join("20-policy.yaml"),
            "kind: NetworkPolicy\nmetadata: {name: p}\n",
        )
        .expect("written");
        fs::write(directory.path().join("README.md"), "not YAML: [").expect("written");
        let samples = Samples::read(directory.path()).expect("samples");
        (directory, samples)
    }

    #[test]
    fn what_the_demo_must_know() {
        let (_directory, samples) = samples();
        let foo = samples.pod("foo").expect("a pod");
        assert_eq!(foo.netns, "weir-demo-foo");
        assert_eq!(
            foo.addresses,
            ["10.0.0.1", "fd00::1"].map(|ip| ip.parse::<IpAddr>().expect("an address"))
        );
        let addresses = ["10.96.0.1:80", "[fd00:96::1]:80"].map(|ip| ip.parse().expect("an address"));
        assert_eq!(
            samples.service("web").expect("a service"),
            (addresses.into(), 8080)
        );
        let (policies, others) = samples.by_stage();
        let names = |samples: Vec<&Sample>| samples.iter().map(|s| s.titles()).collect::<Vec<_>>();
        assert_eq!(
            (names(policies), names(others)),
            (
                vec!["NetworkPolicy p".into()],
                vec!["Pod foo, Service web".into()]
            )
        );
        assert!(samples.pod("bar").is_err() && samples.service("foo").is_err());
    }

    #[test]
    fn the_samples_of_the_repository_will_do() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/samples");
        let samples = Samples::read(Path::new(directory)).expect("samples");
        for name in ["foo", "other", "hello-web"] {
            let pod = samples.pod(name).expect("a pod");
            assert!(
                pod.netns.starts_with("weir-demo-") && pod.addresses.len() == 2,
                "{pod:?}"
            );
        }
        let (addresses, _) = samples.service("hello-web").expect("a service");
        assert_eq!(addresses.iter().filter(|address| address.is_ipv4()).count(), 1);
        assert_eq!(addresses.len(), 2);
        let (policies, others) = samples.by_stage();
        assert!(!policies.is_empty() && !others.is_empty());
        assert!(samples.without_label("foo", "app").is_ok());
    }

    #[test]
    fn a_label_goes_and_all_else_stays() {
        let (_directory, samples) = samples();
        let (file, text) = samples.without_label("foo", "app").expect("a file");
        assert_eq!(file, "10-objects.yaml");
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join(&file), text).expect("written");
        let mut changed = Samples::read(directory.path()).expect("samples").0[0]
            .objects
            .clone();
        assert_eq!(changed[0]["metadata"]["labels"]["app"], Value::Null);
        changed[0]["metadata"]["labels"]["app"] = "foo".into();
        assert_eq!(changed, samples.0[0].objects);
        assert!(samples.without_label("foo", "none").is_err());
    }
}
