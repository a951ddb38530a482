//! Container images, made here and pulled from nowhere, as archives that containerd imports.

mod agnhost;
pub mod archive;
mod busybox;
mod coredns;
mod pause;
mod shared_libraries;
pub mod tree;

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::places;
use crate::progress::Progress;
use archive::Image;

/// The image that keeps a pod's namespaces, as containerd is told.
pub const PAUSE: &str = pause::TAG;

/// Upstream's image for tests of the network.
pub const AGNHOST: &str = agnhost::TAG;

/// Makes the archives of every image that a cluster needs and that is not there as it should be. Their paths.
///
/// # Errors
/// A tool that goes into an image is not installed here; the error names it.
pub fn ensure(progress: Progress) -> Result<Vec<PathBuf>> {
    let folder = places::root()?.join("images");
    places::create_dir(&folder, 0o755)?;
    let images = [
        pause::image()?,
        agnhost::image()?,
        busybox::image()?,
        coredns::image()?,
    ];
    images
        .iter()
        .map(|image| archive(image, &folder, progress))
        .collect()
}

/// An archive is made anew when what goes into it has changed, which is on record beside it.
fn archive(image: &Image, folder: &std::path::Path, progress: Progress) -> Result<PathBuf> {
    let archive = folder.join(format!("{}.tar", image.name));
    let record = folder.join(format!("{}.contents", image.name));
    let contents = image.contents()?;
    if !archive.is_file() || places::read(&record).unwrap_or_default() != contents {
        progress.say(format_args!("making the image {}", image.tags[0]));
        archive::write(image, &archive).with_context(|| format!("making the image {}", image.name))?;
        places::write(&record, contents)?;
    }
    Ok(archive)
}
