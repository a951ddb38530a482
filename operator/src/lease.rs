//! Which replica leads: the one that holds the Lease.
//!
//! The holder renews the Lease every two seconds. Another replica takes it when it has not seen it change, by its own
//! clock, for as long as the Lease says. A holder that could not renew for two thirds of that time gives up before.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};

/// How long a Lease is good after it was renewed, in seconds.
const LEASE_SECONDS: i32 = 15;
/// After so long without a renewal the holder stops leading.
const GIVE_UP: Duration = Duration::from_secs(10);
const RENEW_EVERY: Duration = Duration::from_secs(2);

/// One replica's part in the election.
#[derive(Debug, Clone)]
pub struct Election {
    leases: Api<Lease>,
    name: String,
    identity: String,
}

/// What a replica has seen of a Lease that another one holds.
#[derive(Debug, Clone)]
struct Sighting {
    version: Option<String>,
    since: Instant,
}

impl Election {
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
        }
    }

    /// Waits until this replica holds the Lease. `answered` is called whenever the API server has answered.
    pub async fn acquire(&self, answered: impl Fn()) {
        let mut sighting = None;
        loop {
            match self.try_acquire(&mut sighting).await {
                Ok(true) => return,
                Ok(false) => answered(),
                Err(error) => tracing::warn!(%error, "the Lease cannot be read or written"),
            }
            sleep(RENEW_EVERY).await;
        }
    }

    /// Renews the Lease, and returns when it is lost.
    pub async fn hold(&self) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < GIVE_UP {
            sleep(RENEW_EVERY).await;
            match timeout(RENEW_EVERY * 2, self.renew()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!(%error, "the Lease could not be renewed"),
                Err(_) => tracing::warn!("the API server does not answer in time to renew the Lease"),
            }
        }
    }

    /// Lets another replica take over at once.
    ///
    /// # Errors
    /// When the API server refuses or does not answer; the Lease then runs out by itself.
    pub async fn release(&self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.leases.get_opt(&self.name).await? else {
            return Ok(());
        };
        if holder(&lease) == Some(self.identity.as_str()) {
            let spec = lease.spec.get_or_insert_default();
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
            self.leases
                .replace(&self.name, &PostParams::default(), &lease)
                .await?;
        }
        Ok(())
    }

    async fn try_acquire(&self, sighting: &mut Option<Sighting>) -> Result<bool, kube::Error> {
        let Some(lease) = self.leases.get_opt(&self.name).await? else {
            return self.create().await;
        };
        if holder(&lease).is_none_or(|holder| holder == self.identity) || is_stale(&lease, sighting) {
            return self.take(lease).await;
        }
        Ok(false)
    }

    async fn create(&self) -> Result<bool, kube::Error> {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(self.spec(None)),
        };
        won(self.leases.create(&PostParams::default(), &lease).await)
    }

    async fn renew(&self) -> Result<bool, kube::Error> {
        match self.leases.get_opt(&self.name).await? {
            Some(lease) if holder(&lease) == Some(self.identity.as_str()) => self.take(lease).await,
            Some(_) | None => Ok(false),
        }
    }

    /// Writes the Lease on condition that nobody else has since it was read.
    async fn take(&self, mut lease: Lease) -> Result<bool, kube::Error> {
        lease.spec = Some(self.spec(lease.spec.as_ref()));
        won(self
            .leases
            .replace(&self.name, &PostParams::default(), &lease)
            .await)
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or_default();
        let held = before.filter(|spec| spec.holder_identity.as_deref() == Some(self.identity.as_str()));
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            acquire_time: held
                .and_then(|spec| spec.acquire_time.clone())
                .or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if before.is_some() && held.is_none() {
                transitions + 1
            } else {
                transitions
            }),
            ..LeaseSpec::default()
        }
    }
}

/// A conflict means that another replica was faster.
fn won(result: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    (!holder.is_empty()).then_some(holder)
}

/// Whether the Lease has stayed as it is for as long as it is good.
fn is_stale(lease: &Lease, sighting: &mut Option<Sighting>) -> bool {
    let version = lease.metadata.resource_version.clone();
    let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
    let good_for = Duration::from_secs(u64::try_from(seconds.unwrap_or(LEASE_SECONDS)).unwrap_or_default());
    match sighting {
        Some(known) if known.version == version => known.since.elapsed() > good_for,
        Some(_) | None => {
            *sighting = Some(Sighting {
                version,
                since: Instant::now(),
            });
            false
        }
    }
}
