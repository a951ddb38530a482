//! Certificate authorities and what they issue. All keys are ECDSA P-256; all certificates are valid from rcgen's
//! default beginning to its end, long before and after any test.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SanType,
};

/// The group that may do everything (Kubernetes, "Using RBAC Authorization").
pub const MASTERS: &str = "system:masters";

/// Signs the certificates of one trust domain.
#[derive(Debug)]
pub struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate's common name: for the API server, the user.
    pub name: String,
    pub certificate: String,
    pub key: String,
}

/// A key that is trusted by itself, in PEM.
#[derive(Debug)]
pub struct SigningKey {
    pub public: String,
    pub private: String,
}

impl Authority {
    /// Makes a CA of that common name.
    ///
    /// # Errors
    /// No key can be made.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate().context("making a key")?;
        let certificate = params
            .self_signed(&key)
            .with_context(|| format!("signing the certificate of {name}"))?;
        Ok(Self {
            certificate,
            issuer: Issuer::new(params, key),
        })
    }

    /// Its certificate, in PEM.
    #[must_use]
    pub fn certificate(&self) -> String {
        pem("CERTIFICATE", self.certificate.der())
    }

    /// Its key, in PEM.
    #[must_use]
    pub fn key(&self) -> String {
        private(self.issuer.key())
    }

    /// A certificate for a client or a server: `group` is what the API server takes for a client's group, `names` and
    /// `addresses` are those that a server is reached at.
    ///
    /// # Errors
    /// A name is not one that a certificate can hold.
    pub fn issue(
        &self,
        name: &str,
        group: Option<&str>,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<Identity> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        for dns in names {
            let dns = (*dns)
                .try_into()
                .with_context(|| format!("{dns} in a certificate"))?;
            params.subject_alt_names.push(SanType::DnsName(dns));
        }
        let addresses = addresses.iter().copied().map(SanType::IpAddress);
        params.subject_alt_names.extend(addresses);
        let key = KeyPair::generate().context("making a key")?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .with_context(|| format!("signing the certificate of {name}"))?;
        Ok(Identity {
            name: name.to_owned(),
            certificate: pem("CERTIFICATE", certificate.der()),
            key: private(&key),
        })
    }
}

impl SigningKey {
    /// Makes one, as for the tokens of service accounts.
    ///
    /// # Errors
    /// No key can be made.
    pub fn new() -> Result<Self> {
        let key = KeyPair::generate().context("making a key")?;
        Ok(Self {
            public: pem("PUBLIC KEY", &key.subject_public_key_info()),
            private: private(&key),
        })
    }
}

/// PKCS #8.
fn private(key: &KeyPair) -> String {
    pem("PRIVATE KEY", key.serialized_der())
}

fn pem(label: &str, der: &[u8]) -> String {
    pem::encode(&pem::Pem::new(label, der))
}
