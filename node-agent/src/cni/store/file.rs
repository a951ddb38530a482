//! The form of the files. It is read by agents of other builds: a key that is not known is ignored, and the version
//! goes up only with a change that an older agent would take for something else.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use weir_policy::snapshot::PodId;

use super::{Attachment, AttachmentId};
use crate::cni::host_ifname;

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AttachmentFile {
    version: u32,
    #[serde(flatten)]
    id: AttachmentId,
    pod: Pod,
    netns: String,
    host_ifname: String,
    addresses: Vec<IpAddr>,
    mtu: u32,
    created: String,
}

#[derive(Serialize, Deserialize)]
struct Pod {
    namespace: String,
    name: String,
    uid: String,
}

#[derive(Serialize, Deserialize)]
struct FreedFile {
    version: u32,
    addresses: Vec<IpAddr>,
}

/// The attachment must have passed [`check`].
pub(super) fn write(id: &AttachmentId, attachment: &Attachment) -> io::Result<Vec<u8>> {
    to_bytes(&AttachmentFile {
        version: VERSION,
        id: id.clone(),
        pod: Pod {
            namespace: attachment.pod.namespace.clone(),
            name: attachment.pod.name.clone(),
            uid: attachment.pod_uid.clone(),
        },
        netns: attachment.netns.to_string_lossy().into_owned(),
        host_ifname: attachment.host_ifname.clone(),
        addresses: attachment.addresses.clone(),
        mtu: attachment.mtu,
        created: attachment.created.to_string(),
    })
}

/// Otherwise says what is wrong with it.
pub(super) fn read(bytes: &[u8]) -> Result<(AttachmentId, Attachment), String> {
    check_version(bytes)?;
    let file: AttachmentFile = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let created: Timestamp = file
        .created
        .parse()
        .map_err(|error| format!("created: {error}"))?;
    let attachment = Attachment {
        pod: PodId {
            namespace: file.pod.namespace,
            name: file.pod.name,
        },
        pod_uid: file.pod.uid,
        netns: file.netns.into(),
        ifname: file.id.ifname.clone(),
        host_ifname: file.host_ifname,
        addresses: file.addresses,
        mtu: file.mtu,
        created,
    };
    check(&file.id, &attachment)?;
    Ok((file.id, attachment))
}

/// Whether the attachment fits its id and can be written. Otherwise says what is wrong.
pub(super) fn check(id: &AttachmentId, attachment: &Attachment) -> Result<(), String> {
    if attachment.ifname != id.ifname {
        return Err(format!(
            "the attachment is of {}, and its id of {}",
            attachment.ifname, id.ifname
        ));
    }
    let expected = host_ifname(&id.container_id, &id.ifname);
    if attachment.host_ifname != expected {
        return Err(format!(
            "hostIfname is {}, and that of the container is {expected}",
            attachment.host_ifname
        ));
    }
    if attachment.addresses.is_empty() {
        return Err("addresses is empty".into());
    }
    if attachment.netns.to_str().is_none() {
        return Err(format!("netns {:?} is not UTF-8", attachment.netns));
    }
    Ok(())
}

pub(super) fn write_freed(addresses: &[IpAddr]) -> io::Result<Vec<u8>> {
    to_bytes(&FreedFile {
        version: VERSION,
        addresses: addresses.to_vec(),
    })
}

pub(super) fn read_freed(bytes: &[u8]) -> Result<Vec<IpAddr>, String> {
    check_version(bytes)?;
    let file: FreedFile = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    Ok(file.addresses)
}

/// Whatever stands between quotation marks and is an address: all that can be known of a file that makes no sense.
pub(super) fn addresses_in(bytes: &[u8]) -> BTreeSet<IpAddr> {
    String::from_utf8_lossy(bytes)
        .split('"')
        .filter_map(|text| text.parse().ok())
        .collect()
}

fn check_version(bytes: &[u8]) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Versioned { version } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if version != VERSION {
        return Err(format!("version is {version}, and this agent knows {VERSION}"));
    }
    Ok(())
}

fn to_bytes(file: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(file)?;
    bytes.push(b'\n');
    Ok(bytes)
}
