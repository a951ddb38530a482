//! Making the socket.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;

use tokio::net::UnixListener;

use super::ServeError;

/// Made with all above it, for root alone. One that is there stays as it is.
pub(super) fn create_directory(path: &Path) -> Result<(), ServeError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(at(path))
}

/// The socket appears at its path with its mode set and ready to be connected to. It replaces that of another agent,
/// which is not connected to any more; a file of another kind is refused.
pub(super) fn listen(path: &Path) -> Result<UnixListener, ServeError> {
    if is_socket(path)? == Some(false) {
        let occupied = io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket");
        return Err(at(path)(occupied));
    }
    let mut new = path.as_os_str().to_owned();
    new.push("~");
    let new = Path::new(&new);
    if is_socket(new)? == Some(true) {
        fs::remove_file(new).map_err(at(new))?;
    }
    let listener = StdListener::bind(new).map_err(at(new))?;
    fs::set_permissions(new, Permissions::from_mode(0o600)).map_err(at(new))?;
    fs::rename(new, path).map_err(at(path))?;
    listener
        .set_nonblocking(true)
        .and_then(|()| UnixListener::from_std(listener))
        .map_err(at(path))
}

/// `None` where there is nothing.
fn is_socket(path: &Path) -> Result<Option<bool>, ServeError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata.file_type().is_socket())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path)(error)),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ServeError {
    let path = path.to_owned();
    move |source| ServeError { path, source }
}
