//! What follows from the API's objects alone; made anew only when those have changed.

use std::sync::Arc;

use weir_api::DataplaneSettings;
use weir_api::node_dataplane::RefusedSetting;

use crate::address_book::{AddressBook, address_book};
use crate::node_spec::{NodeSpec, node_spec, typed};
use crate::report::Behind;
use crate::services::{ServicePort, ServiceProblem, service_ports};
use crate::watch::{Known, OwnDataplane};

#[derive(Debug, Default)]
pub(super) struct Derived {
    pub(super) book: AddressBook,
    pub(super) services: Vec<ServicePort>,
    pub(super) service_problems: Vec<ServiceProblem>,
    /// The spec in force. One that is gone stays in force.
    pub(super) current: Option<Current>,
    /// The last spec that was told, if it is not the one in force.
    next: Option<Result<Current, String>>,
    versions: Versions,
}

/// A spec.
#[derive(Debug, Clone)]
pub(super) struct Current {
    pub(super) generation: i64,
    pub(super) spec: Arc<NodeSpec>,
    pub(super) settings: DataplaneSettings,
    pub(super) refused: Vec<RefusedSetting>,
}

/// Of the objects that were read.
#[derive(Debug, Default)]
struct Versions {
    book: (u64, u64),
    services: (u64, u64),
    spec: u64,
}

impl Derived {
    /// Takes over what was told since the last time.
    pub(super) fn follow(&mut self, known: &Known, node: &str) {
        let versions = (known.identity_slices.version, known.address_slices.version);
        if self.versions.book != versions {
            self.versions.book = versions;
            self.book = address_book(known.identity_slices(), known.address_slices(), &self.book);
        }
        let versions = (known.services.version, known.endpoint_slices.version);
        if self.versions.services != versions {
            self.versions.services = versions;
            let services = known.services.objects.values().map(|service| &**service);
            let slices = known.endpoint_slices.objects.values().map(|slice| &**slice);
            (self.services, self.service_problems) = service_ports(services, slices);
        }
        if self.versions.spec != known.dataplane.version {
            self.versions.spec = known.dataplane.version;
            self.next = known.dataplane.objects.get(node).map(read);
        }
        self.advance(known.is_whole());
    }

    /// A spec comes into force when the address book has what it relies on.
    fn advance(&mut self, whole: bool) {
        let reached = self.book.revision;
        if let Some(Ok(next)) = &self.next
            && whole
            && reached.is_some_and(|reached| reached >= next.spec.address_book)
        {
            self.current = Some(next.clone());
            self.next = None;
        }
    }

    /// Why the last spec that was told is not in force.
    pub(super) fn waits_for(&self) -> Option<Behind> {
        self.next.as_ref().map(|next| match next {
            Ok(next) => Behind::AddressBook {
                needed: next.spec.address_book,
                reached: self.book.revision,
            },
            Err(error) => Behind::NotUnderstood(error.clone()),
        })
    }
}

fn read(object: &OwnDataplane) -> Result<Current, String> {
    let (spec, refused) = typed(&object.spec)?;
    Ok(Current {
        generation: object.generation,
        spec: Arc::new(node_spec(&spec)),
        settings: spec.settings,
        refused,
    })
}
