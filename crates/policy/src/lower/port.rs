//! Port numbers, ranges and names as people write them.

use super::{NotUnderstood, Report};
use crate::problem::Code;

/// A port number, 1 to 65535.
pub(super) fn number(value: i32, path: &str, report: &mut Report) -> Result<u16, NotUnderstood> {
    match u16::try_from(value) {
        Ok(port) if port != 0 => Ok(port),
        Ok(_) | Err(_) => {
            report.add(
                Code::InvalidPort,
                path,
                format!("{value} is not a port of 1 to 65535"),
            );
            Err(NotUnderstood)
        }
    }
}

/// A port range whose ends are both included. `path` is that of the last port.
pub(super) fn range(
    first: u16,
    last: u16,
    path: &str,
    report: &mut Report,
) -> Result<(u16, u16), NotUnderstood> {
    if first > last {
        let message = format!("the range ends at {last}, before it begins at {first}");
        report.add(Code::InvalidPortRange, path, message);
        return Err(NotUnderstood);
    }
    Ok((first, last))
}

/// The name of a container port: at most 15 characters (RFC 6335, section 5.1).
pub(super) fn name(name: &str, path: &str, report: &mut Report) -> Result<String, NotUnderstood> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let valid = (1..=15).contains(&name.len())
        && name.bytes().all(allowed)
        && name.bytes().any(|byte| byte.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--");
    if valid {
        return Ok(name.to_owned());
    }
    let message = if name.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() {
        format!("{name:?} is a text; write the number {name} without quotes, or the name of a container port")
    } else {
        format!("{name:?} cannot be the name of a container port")
    };
    report.add(Code::InvalidPort, path, message);
    Err(NotUnderstood)
}
