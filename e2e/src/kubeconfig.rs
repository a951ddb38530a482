//! Kubeconfig files, in JSON, which is YAML too.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::pki::Identity;

/// A kubeconfig with everything in it: it names no other file.
///
/// `server` is a URL such as `https://[fd00::1]:6443`, `authority` the PEM of the CA that vouches for it.
#[must_use]
pub fn kubeconfig(server: &str, authority: &str, client: &Identity) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "weir",
        "clusters": [{
            "name": "weir",
            "cluster": {
                "server": server,
                "certificate-authority-data": STANDARD.encode(authority),
            },
        }],
        "users": [{
            "name": client.name,
            "user": {
                "client-certificate-data": STANDARD.encode(&client.certificate),
                "client-key-data": STANDARD.encode(&client.key),
            },
        }],
        "contexts": [{
            "name": "weir",
            "context": { "cluster": "weir", "user": client.name },
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_everything_itself() {
        let client = Identity {
            name: "admin".to_owned(),
            certificate: "C".to_owned(),
            key: "K".to_owned(),
        };
        let expected = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "weir",
            "clusters": [{"name": "weir", "cluster": {
                "server": "https://h:1", "certificate-authority-data": "QQ==",
            }}],
            "users": [{"name": "admin", "user": {
                "client-certificate-data": "Qw==", "client-key-data": "Sw==",
            }}],
            "contexts": [{"name": "weir", "context": {"cluster": "weir", "user": "admin"}}],
        });
        assert_eq!(kubeconfig("https://h:1", "A", &client), expected);
    }
}
