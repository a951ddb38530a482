//! Archives of images as `docker save` makes them: a list of images, and for each its configuration and layers
//! (Docker image specification 1.2, "Combined image JSON + filesystem changeset format").

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType};

use super::tree::{Tree, append_file, header};

/// The beginning of Unix time: images do not tell when they were made.
const EPOCH: &str = "1970-01-01T00:00:00Z";

/// An image of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Of the archive's file.
    pub name: String,
    /// Full references, such as `registry.k8s.io/pause:3.10.2`.
    pub tags: Vec<String>,
    /// How it is run: `config` of the OCI image configuration, as `{"Entrypoint": ["/pause"]}`.
    pub config: Value,
    pub tree: Tree,
}

impl Image {
    /// All that decides what the archive holds.
    ///
    /// # Errors
    /// As [`Tree::contents`].
    pub fn contents(&self) -> Result<String> {
        let tags = self.tags.join(" ");
        Ok(format!("{tags}\n{}\n{}", self.config, self.tree.contents()?))
    }
}

/// Writes an image's archive. Nobody finds one that is half-written.
///
/// # Errors
/// A file of the image cannot be read, or the archive not be written.
pub fn write(image: &Image, to: &Path) -> Result<()> {
    let layer = to.with_extension("layer");
    let fresh = to.with_extension("new");
    let digest = write_layer(&image.tree, &layer)?;
    let archive = File::create(&fresh).with_context(|| format!("creating {}", fresh.display()))?;
    write_archive(image, &layer, &digest, BufWriter::new(archive))?;
    fs::remove_file(&layer).with_context(|| format!("removing {}", layer.display()))?;
    fs::rename(&fresh, to).with_context(|| format!("renaming {}", fresh.display()))
}

/// The digest of what was written.
fn write_layer(tree: &Tree, to: &Path) -> Result<String> {
    let file = File::create(to).with_context(|| format!("creating {}", to.display()))?;
    tree.write(BufWriter::new(file))?;
    let mut written = BufReader::new(File::open(to)?);
    let mut hash = Hashing(Sha256::new());
    io::copy(&mut written, &mut hash).with_context(|| format!("reading {}", to.display()))?;
    Ok(hex(&hash.0.finalize()))
}

struct Hashing(Sha256);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_archive(image: &Image, layer: &Path, digest: &str, to: impl Write) -> Result<()> {
    let configuration = configuration(image, digest).to_string();
    let configuration_name = format!("{}.json", hex(&Sha256::digest(&configuration)));
    let layer_name = format!("{digest}.tar");
    let manifest = json!([{
        "Config": configuration_name,
        "RepoTags": image.tags,
        "Layers": [layer_name],
    }]);
    let mut builder = Builder::new(to);
    append(&mut builder, "manifest.json", manifest.to_string().as_bytes())?;
    append(&mut builder, &configuration_name, configuration.as_bytes())?;
    append_file(&mut builder, &layer_name, 0o644, layer)?;
    builder
        .into_inner()
        .and_then(|mut to| to.flush())
        .context("writing an archive")
}

fn append<W: Write>(builder: &mut Builder<W>, path: &str, content: &[u8]) -> Result<()> {
    let mut header = header(EntryType::Regular, 0o644, content.len() as u64);
    builder
        .append_data(&mut header, path, content)
        .with_context(|| format!("writing {path}"))
}

fn configuration(image: &Image, layer_digest: &str) -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "architecture": architecture,
        "os": "linux",
        "created": EPOCH,
        "config": image.config,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
        "history": [{ "created": EPOCH, "created_by": "weir-e2e" }],
    })
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::*;

    fn files(archive: impl io::Read) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        let mut files = BTreeMap::new();
        for entry in archive.entries().expect("an archive") {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("its content");
            files.insert(path, content);
        }
        files
    }

    fn json_of(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).expect("JSON")
    }

    #[test]
    fn names_in_the_archive_lead_from_the_tag_to_the_layer() {
        let mut tree = Tree::default();
        tree.text("etc/motd", "hello\n");
        let image = Image {
            name: "hello".to_owned(),
            tags: vec!["example.org/hello:1".to_owned()],
            config: json!({"Cmd": ["cat", "/etc/motd"]}),
            tree,
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("hello.tar");
        write(&image, &path).expect("written");
        let archive = files(File::open(&path).expect("the archive"));

        let manifest = json_of(&archive["manifest.json"]);
        let configuration_name = manifest[0]["Config"].as_str().expect("a name");
        let layer_name = manifest[0]["Layers"][0].as_str().expect("a name");
        assert_eq!(
            manifest,
            json!([{
                "Config": configuration_name,
                "RepoTags": ["example.org/hello:1"],
                "Layers": [layer_name],
            }])
        );
        let configuration = &archive[configuration_name];
        assert_eq!(
            configuration_name,
            format!("{}.json", hex(&Sha256::digest(configuration)))
        );
        let layer_digest = hex(&Sha256::digest(&archive[layer_name]));
        assert_eq!(layer_name, format!("{layer_digest}.tar"));
        let configuration = json_of(configuration);
        assert_eq!(
            configuration["rootfs"],
            json!({"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]})
        );
        assert_eq!(configuration["config"], json!({"Cmd": ["cat", "/etc/motd"]}));
        let layer = files(archive[layer_name].as_slice());
        assert_eq!(
            layer,
            BTreeMap::from([
                ("etc/".to_owned(), Vec::new()),
                ("etc/motd".to_owned(), b"hello\n".to_vec())
            ])
        );
        assert_eq!(archive.len(), 3);
        let left: Vec<_> = fs::read_dir(folder.path()).expect("the folder").collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn the_same_image_is_the_same_bytes() {
        let image = Image {
            name: "empty".to_owned(),
            tags: vec!["example.org/empty:1".to_owned()],
            config: json!({}),
            tree: Tree::default(),
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [first, second] = ["first", "second"].map(|name| {
            let path = folder.path().join(name);
            write(&image, &path).expect("written");
            fs::read(path).expect("the archive")
        });
        assert_eq!(first, second);
    }
}
