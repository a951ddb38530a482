//! Putting the plugin where the container runtime looks for it.
//!
//! The configuration is what makes the runtime call the plugin, and the kubelet call the node's network ready; so
//! the binary comes before it, and the agent writes it once it answers. Runtimes read the directory whenever it
//! changes, and take the first file by name. Both files appear whole, or not at all.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use weir_cni::config::PLUGIN_TYPE;
use weir_cni::plugin::NETWORK;

use super::durable;

/// The file's name: early among those of other plugins.
pub const CONFLIST: &str = "05-weir.conflist";

/// The version of the CNI specification that the runtime is asked to speak. 1.1.0 would have two costs. containerd
/// before 2.0 does not speak it, and would start no pod. And from 1.1.0 on containerd asks for `STATUS`, and what
/// fails it makes the kubelet report the node as not ready: pods that run would leave their Services, and be evicted
/// after a while, because an agent is away whom their traffic does not need. What 1.1.0 would bring is `GC`, and the
/// agent does that by itself.
pub const SPEC_VERSION: &str = "1.0.0";

#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct InstallError {
    pub path: PathBuf,
    pub source: io::Error,
}

/// Copies the plugin into the runtime's directory of plugins, which must exist, under the name that the configuration
/// calls it by. Changes nothing where the same bytes are there, and returns whether it did. A plugin that runs
/// meanwhile goes on with the file it was started from.
pub fn install_plugin(binary: &Path, bin_dir: &Path) -> Result<bool, InstallError> {
    let bytes = fs::read(binary).map_err(at(binary))?;
    replace_if_different(&bin_dir.join(PLUGIN_TYPE), &bytes, 0o755)
}

/// Writes the network configuration list, in a directory that must exist, for an agent that listens at `socket` as
/// the runtime sees it. Returns whether it was not there already.
pub fn write_conflist(conf_dir: &Path, socket: &Path) -> Result<bool, InstallError> {
    replace_if_different(&conf_dir.join(CONFLIST), conflist(socket).as_bytes(), 0o644)
}

/// Removes the configuration, and returns whether it was there. From then on the runtime starts no pods with our
/// plugin and cannot take down those it has: their end waits for another configuration.
pub fn remove_conflist(conf_dir: &Path) -> Result<bool, InstallError> {
    let path = conf_dir.join(CONFLIST);
    durable::remove(&path).map_err(at(&path))
}

/// Removes the plugin, and returns whether it was there.
pub fn remove_plugin(bin_dir: &Path) -> Result<bool, InstallError> {
    let path = bin_dir.join(PLUGIN_TYPE);
    durable::remove(&path).map_err(at(&path))
}

fn conflist(socket: &Path) -> String {
    let list = json!({
        "cniVersion": SPEC_VERSION,
        "name": NETWORK,
        "plugins": [{ "type": PLUGIN_TYPE, "socket": socket.to_string_lossy() }],
    });
    format!("{list:#}\n")
}

fn replace_if_different(path: &Path, bytes: &[u8], mode: u32) -> Result<bool, InstallError> {
    let is_same = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        metadata => {
            let metadata = metadata.map_err(at(path))?;
            metadata.is_file()
                && metadata.mode() & 0o7777 == mode
                && fs::read(path).map_err(at(path))? == bytes
        }
    };
    if !is_same {
        durable::replace(path, bytes, mode).map_err(at(path))?;
    }
    Ok(!is_same)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError { path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").mode() & 0o7777
    }

    fn inode(path: &Path) -> u64 {
        fs::metadata(path).expect("there").ino()
    }

    #[test]
    fn the_plugin_is_replaced_only_by_another() {
        let dir = tempfile::tempdir().expect("a directory");
        let binary = dir.path().join("built");
        let bin_dir = dir.path().join("bin");
        fs::create_dir(&bin_dir).expect("created");
        let installed = bin_dir.join("weir-cni");
        fs::write(&binary, "one").expect("written");

        assert!(install_plugin(&binary, &bin_dir).expect("installed"));
        assert_eq!(fs::read_to_string(&installed).expect("read"), "one");
        assert_eq!(mode(&installed), 0o755);

        let before = inode(&installed);
        assert!(!install_plugin(&binary, &bin_dir).expect("the same"));
        assert_eq!(inode(&installed), before);

        fs::set_permissions(&installed, fs::Permissions::from_mode(0o644)).expect("changed");
        assert!(install_plugin(&binary, &bin_dir).expect("mended"));
        assert_eq!(mode(&installed), 0o755);

        fs::write(&binary, "two").expect("written");
        let running = fs::File::open(&installed).expect("opened");
        assert!(install_plugin(&binary, &bin_dir).expect("installed"));
        assert_eq!(fs::read_to_string(&installed).expect("read"), "two");
        assert_eq!(io::read_to_string(running).expect("read"), "one");
        assert_eq!(fs::read_dir(&bin_dir).expect("read").count(), 1);
    }

    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (binary, other, installed) = (
            dir.path().join("built"),
            dir.path().join("other"),
            dir.path().join("weir-cni"),
        );
        fs::write(&binary, "ours").expect("written");
        fs::write(&other, "theirs").expect("written");
        symlink(&other, &installed).expect("linked");
        assert!(install_plugin(&binary, dir.path()).expect("installed"));
        assert_eq!(fs::read_to_string(&installed).expect("read"), "ours");
        assert_eq!(fs::read_to_string(&other).expect("read"), "theirs");
    }

    #[test]
    fn the_configuration_comes_and_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("05-weir.conflist");
        let socket = Path::new("/run/weir/cni.sock");
        assert!(write_conflist(dir.path(), socket).expect("written"));
        let expected = "{\n  \"cniVersion\": \"1.0.0\",\n  \"name\": \"weir\",\n  \"plugins\": [\n    {\n      \
                        \"socket\": \"/run/weir/cni.sock\",\n      \"type\": \"weir-cni\"\n    }\n  ]\n}\n";
        assert_eq!(fs::read_to_string(&file).expect("read"), expected);
        assert_eq!(mode(&file), 0o644);
        assert!(!write_conflist(dir.path(), socket).expect("the same"));
        assert!(write_conflist(dir.path(), Path::new("/run/other.sock")).expect("another"));
        assert!(remove_conflist(dir.path()).expect("removed"));
        assert!(!remove_conflist(dir.path()).expect("not there"));
        assert_eq!(fs::read_dir(dir.path()).expect("read").count(), 0);
    }

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let absent = dir.path().join("absent");
        let error = install_plugin(&absent, dir.path()).expect_err("no binary");
        assert_eq!(error.path, absent);
        let error = write_conflist(&absent, Path::new("/run/s")).expect_err("no directory");
        assert_eq!(error.path, absent.join("05-weir.conflist"));
    }
}
