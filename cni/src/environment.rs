//! What the runtime asks, by the environment: the variables `CNI_*`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::CniError;
use crate::error::code;
use crate::protocol::Pod;

/// A verb with the variables it needs, all of them checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    Add {
        container_id: String,
        netns: PathBuf,
        ifname: String,
        pod: Pod,
    },
    Del {
        container_id: String,
        ifname: String,
    },
    Check {
        container_id: String,
        netns: PathBuf,
        ifname: String,
    },
    Gc,
    Status,
    Version,
}

/// Bytes of a container's id: what fits into a file name beside an interface's. The specification names no limit;
/// containerd's and CRI-O's have 64.
pub const MAX_CONTAINER_ID: usize = 200;

/// Bytes of an interface's name, as the kernel has it (`IFNAMSIZ` less the zero).
pub const MAX_IFNAME: usize = 15;

impl Invocation {
    /// `variable` gives the value of a variable. An empty value is as none. Fails with code 4, and names the variable.
    pub fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Invocation, CniError> {
        let variables = Variables(&variable);
        match variables.required("CNI_COMMAND")?.as_str() {
            "ADD" => {
                variables.all_set(&["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"])?;
                Ok(Invocation::Add {
                    container_id: variables.container_id()?,
                    netns: variables.netns()?,
                    ifname: variables.ifname()?,
                    pod: pod(&variables.required("CNI_ARGS")?)?,
                })
            }
            "DEL" => {
                variables.all_set(&["CNI_CONTAINERID", "CNI_IFNAME"])?;
                Ok(Invocation::Del {
                    container_id: variables.container_id()?,
                    ifname: variables.ifname()?,
                })
            }
            "CHECK" => {
                variables.all_set(&["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"])?;
                Ok(Invocation::Check {
                    container_id: variables.container_id()?,
                    netns: variables.netns()?,
                    ifname: variables.ifname()?,
                })
            }
            "GC" => Ok(Invocation::Gc),
            "STATUS" => Ok(Invocation::Status),
            "VERSION" => Ok(Invocation::Version),
            other => Err(invalid(format!(
                "CNI_COMMAND: {other:?} is none of ADD, DEL, CHECK, GC, STATUS and VERSION"
            ))),
        }
    }
}

struct Variables<'a>(&'a dyn Fn(&str) -> Option<OsString>);

impl Variables<'_> {
    fn get(&self, name: &str) -> Option<OsString> {
        self.0(name).filter(|value| !value.is_empty())
    }

    /// One error for all that are missing.
    fn all_set(&self, names: &[&str]) -> Result<(), CniError> {
        let missing: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| self.get(name).is_none())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(invalid(format!("not set: {}", missing.join(", "))))
    }

    fn required(&self, name: &str) -> Result<String, CniError> {
        let value = self
            .get(name)
            .ok_or_else(|| invalid(format!("not set: {name}")))?;
        value
            .into_string()
            .map_err(|value| invalid(format!("{name}: {value:?} is not UTF-8")))
    }

    fn container_id(&self) -> Result<String, CniError> {
        let id = self.required("CNI_CONTAINERID")?;
        check_container_id(&id).map_err(|why| invalid(format!("CNI_CONTAINERID: {id:?} {why}")))?;
        Ok(id)
    }

    fn ifname(&self) -> Result<String, CniError> {
        let name = self.required("CNI_IFNAME")?;
        check_ifname(&name).map_err(|why| invalid(format!("CNI_IFNAME: {name:?} {why}")))?;
        Ok(name)
    }

    fn netns(&self) -> Result<PathBuf, CniError> {
        let path = self.required("CNI_NETNS")?;
        if !Path::new(&path).is_absolute() {
            return Err(invalid(format!("CNI_NETNS: {path:?} is not an absolute path")));
        }
        Ok(path.into())
    }
}

/// A letter or digit, and then letters, digits, `_`, `.` and `-`; at most [`MAX_CONTAINER_ID`] bytes. Otherwise says
/// what is wrong, to be put after the value.
pub fn check_container_id(id: &str) -> Result<(), String> {
    if id.len() > MAX_CONTAINER_ID {
        return Err(format!("is longer than {MAX_CONTAINER_ID} bytes"));
    }
    if !is_identifier(id) {
        return Err("is not a letter or digit followed by letters, digits, '_', '.' and '-'".into());
    }
    Ok(())
}

/// As the kernel and libcni want it. Otherwise says what is wrong, to be put after the value.
pub fn check_ifname(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_IFNAME {
        return Err(format!("does not have 1 to {MAX_IFNAME} bytes"));
    }
    if name == "." || name == ".." {
        return Err("cannot be an interface's name".into());
    }
    if name
        .chars()
        .any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
    {
        return Err("contains '/', ':', white space or a control character".into());
    }
    Ok(())
}

/// The form of container ids and network names.
pub(crate) fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && chars.all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// What the kubelet's runtimes put into `CNI_ARGS`, beside the pod.
const OTHER_ARGUMENTS: &[&str] = &["IgnoreUnknown", "K8S_POD_INFRA_CONTAINER_ID"];

/// The pod in `CNI_ARGS`: pairs `KEY=VALUE` with semicolons between.
fn pod(arguments: &str) -> Result<Pod, CniError> {
    let (mut namespace, mut name, mut uid, mut ignore_unknown, mut unknown) = (None, None, None, false, None);
    for pair in arguments.split(';').filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(invalid(format!("CNI_ARGS: {pair:?} has no '='")));
        };
        let place = match key {
            "K8S_POD_NAMESPACE" => &mut namespace,
            "K8S_POD_NAME" => &mut name,
            "K8S_POD_UID" => &mut uid,
            "IgnoreUnknown" => {
                ignore_unknown = value == "1" || value.eq_ignore_ascii_case("true");
                continue;
            }
            key => {
                unknown = unknown.or_else(|| (!OTHER_ARGUMENTS.contains(&key)).then(|| key.to_owned()));
                continue;
            }
        };
        if place.replace(value.to_owned()).is_some() {
            return Err(invalid(format!("CNI_ARGS: {key} stands there twice")));
        }
    }
    if let Some(key) = unknown.filter(|_| !ignore_unknown) {
        return Err(invalid(format!(
            "CNI_ARGS: {key:?} is not known, and IgnoreUnknown is not 1"
        )));
    }
    Ok(Pod {
        namespace: argument("K8S_POD_NAMESPACE", namespace, is_dns_label)?,
        name: argument("K8S_POD_NAME", name, is_dns_subdomain)?,
        uid: argument("K8S_POD_UID", uid, is_uid)?,
    })
}

fn argument(key: &str, value: Option<String>, is_valid: fn(&str) -> bool) -> Result<String, CniError> {
    match value {
        None => Err(invalid(format!("CNI_ARGS: {key} is missing"))),
        Some(value) if is_valid(&value) => Ok(value),
        Some(value) => Err(invalid(format!("CNI_ARGS: {key}: {value:?} cannot be one"))),
    }
}

/// RFC 1123, as Kubernetes has it for namespaces.
fn is_dns_label(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len())
        && text.chars().all(is_inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// RFC 1123, as Kubernetes has it for pods: only the whole has a limit.
fn is_dns_subdomain(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.len() <= 253
        && text.split('.').all(|label| {
            !label.is_empty()
                && label.chars().all(is_inner)
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// Kubernetes makes UUIDs, and a static pod's is a hash; neither is promised.
fn is_uid(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic())
}

fn invalid(msg: String) -> CniError {
    CniError::new(code::INVALID_ENVIRONMENT, msg)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    const ADD: &[(&str, &str)] = &[
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/n"),
        ("CNI_IFNAME", "eth0"),
        (
            "CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=8c7a",
        ),
        ("CNI_PATH", "/opt/cni/bin"),
    ];

    /// Reads `ADD`'s variables with some of them replaced.
    fn read(changes: &[(&str, &str)]) -> Result<Invocation, CniError> {
        let variables: BTreeMap<&str, &str> = ADD.iter().chain(changes).copied().collect();
        Invocation::read(|name| variables.get(name).map(|value| value.into()))
    }

    #[test]
    fn reads_every_verb() {
        let (container_id, ifname, netns) =
            ("c1".to_owned(), "eth0".to_owned(), PathBuf::from("/run/netns/n"));
        let cases = [
            (
                "ADD",
                Invocation::Add {
                    container_id: container_id.clone(),
                    netns: netns.clone(),
                    ifname: ifname.clone(),
                    pod: Pod {
                        namespace: "shop".into(),
                        name: "web-0".into(),
                        uid: "8c7a".into(),
                    },
                },
            ),
            (
                "CHECK",
                Invocation::Check {
                    container_id: container_id.clone(),
                    netns,
                    ifname: ifname.clone(),
                },
            ),
            ("DEL", Invocation::Del { container_id, ifname }),
            ("GC", Invocation::Gc),
            ("STATUS", Invocation::Status),
            ("VERSION", Invocation::Version),
        ];
        for (command, expected) in cases {
            assert_eq!(read(&[("CNI_COMMAND", command)]), Ok(expected));
        }
    }

    #[test]
    fn a_del_needs_no_namespace_and_no_pod() {
        let expected = Invocation::Del {
            container_id: "c1".into(),
            ifname: "eth0".into(),
        };
        assert_eq!(
            read(&[("CNI_COMMAND", "DEL"), ("CNI_NETNS", ""), ("CNI_ARGS", "")]),
            Ok(expected)
        );
    }

    #[test]
    fn names_what_is_wrong() {
        let long = "x".repeat(201);
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[("CNI_COMMAND", "")], "not set: CNI_COMMAND"),
            (
                &[("CNI_COMMAND", "add")],
                "CNI_COMMAND: \"add\" is none of ADD, DEL, CHECK, GC, STATUS and VERSION",
            ),
            (
                &[
                    ("CNI_CONTAINERID", ""),
                    ("CNI_NETNS", ""),
                    ("CNI_IFNAME", ""),
                    ("CNI_ARGS", ""),
                ],
                "not set: CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, CNI_ARGS",
            ),
            (
                &[("CNI_CONTAINERID", "../c1")],
                "CNI_CONTAINERID: \"../c1\" is not a letter or digit followed by letters, digits, '_', '.' and '-'",
            ),
            (
                &[("CNI_NETNS", "netns")],
                "CNI_NETNS: \"netns\" is not an absolute path",
            ),
            (
                &[("CNI_IFNAME", "a/b")],
                "CNI_IFNAME: \"a/b\" contains '/', ':', white space or a control character",
            ),
            (
                &[("CNI_IFNAME", "sixteen-bytes-xx")],
                "CNI_IFNAME: \"sixteen-bytes-xx\" does not have 1 to 15 bytes",
            ),
            (
                &[("CNI_IFNAME", "..")],
                "CNI_IFNAME: \"..\" cannot be an interface's name",
            ),
            (
                &[("CNI_ARGS", "K8S_POD_NAME")],
                "CNI_ARGS: \"K8S_POD_NAME\" has no '='",
            ),
            (
                &[("CNI_ARGS", "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b")],
                "CNI_ARGS: K8S_POD_UID is missing",
            ),
            (
                &[("CNI_ARGS", "K8S_POD_NAMESPACE=a.b;K8S_POD_NAME=b;K8S_POD_UID=c")],
                "CNI_ARGS: K8S_POD_NAMESPACE: \"a.b\" cannot be one",
            ),
            (
                &[("CNI_ARGS", "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b..c;K8S_POD_UID=c")],
                "CNI_ARGS: K8S_POD_NAME: \"b..c\" cannot be one",
            ),
            (
                &[("CNI_ARGS", "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_UID=")],
                "CNI_ARGS: K8S_POD_UID: \"\" cannot be one",
            ),
            (
                &[(
                    "CNI_ARGS",
                    "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_NAME=c;K8S_POD_UID=d",
                )],
                "CNI_ARGS: K8S_POD_NAME stands there twice",
            ),
            (
                &[(
                    "CNI_ARGS",
                    "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_UID=d;IP=10.0.0.9",
                )],
                "CNI_ARGS: \"IP\" is not known, and IgnoreUnknown is not 1",
            ),
        ];
        for (changes, expected) in cases {
            assert_eq!(read(changes), Err(CniError::new(4, *expected)));
        }
        let too_long = format!("CNI_CONTAINERID: {long:?} is longer than 200 bytes");
        assert_eq!(
            read(&[("CNI_CONTAINERID", &long)]),
            Err(CniError::new(4, too_long))
        );
    }

    #[test]
    fn unknown_arguments_may_be_ignored() {
        for ignore in ["1", "true", "True"] {
            let arguments = format!(
                "IP=10.0.0.9;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_UID=d;IgnoreUnknown={ignore}"
            );
            assert!(read(&[("CNI_ARGS", &arguments)]).is_ok(), "{ignore}");
        }
    }

    #[test]
    fn a_value_that_is_no_text_is_named() {
        let result = Invocation::read(|_| Some(OsString::from_vec(vec![0xff])));
        assert_eq!(
            result,
            Err(CniError::new(4, "CNI_COMMAND: \"\\xFF\" is not UTF-8"))
        );
    }
}
