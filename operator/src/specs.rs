//! Specs of NodeDataplanes that have been read, so that each is read once however often it is handed out.
//!
//! An object comes back with its whole spec when it was written, when the watch tells of that, and at each change of
//! its status. The API server raises the generation with every change of a spec, so UID and generation stand for one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::Value;

use crate::existing::Held;

/// Whenever there are a multiple of so many, those that nobody holds any more are forgotten.
const SWEEP: usize = 128;

/// Shared by everything that takes in objects. It keeps nothing alive.
#[derive(Debug, Clone, Default)]
pub struct Specs(Arc<Mutex<Known>>);

/// By UID, the generation and what was read.
type Known = BTreeMap<String, (i64, Weak<Held>)>;

impl Specs {
    /// The spec of an object, read now or before.
    #[must_use]
    pub fn read(&self, uid: &str, generation: i64, spec: &Value) -> Arc<Held> {
        if let Some(held) = self.known(uid, generation) {
            return held;
        }
        let held = Arc::new(Held::read(spec));
        let mut specs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if specs.len().is_multiple_of(SWEEP) {
            specs.retain(|_, (_, held)| held.strong_count() > 0);
        }
        if specs.get(uid).is_none_or(|(known, _)| *known <= generation) {
            specs.insert(uid.to_owned(), (generation, Arc::downgrade(&held)));
        }
        held
    }

    fn known(&self, uid: &str, generation: i64) -> Option<Arc<Held>> {
        let specs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, held) = specs.get(uid)?;
        (*known == generation).then(|| held.upgrade()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_generation_is_read_once_and_another_one_anew() {
        let specs = Specs::default();
        let first = specs.read("u", 1, &json!({"addressBook": 3}));
        assert!(Arc::ptr_eq(
            &first,
            &specs.read("u", 1, &json!({"addressBook": 4}))
        ));
        assert_eq!(specs.read("u", 2, &json!({"addressBook": 5})).address_book, 5);
        assert_eq!(specs.read("other", 1, &json!({"addressBook": 6})).address_book, 6);
    }

    #[test]
    fn what_nobody_holds_is_read_anew() {
        let specs = Specs::default();
        drop(specs.read("u", 1, &json!({"addressBook": 3})));
        assert_eq!(specs.read("u", 1, &json!({"addressBook": 4})).address_book, 4);
    }
}
