//! Which of the files' words about an object counts.
//!
//! - An object that is in force stays so where it stands: what another file says of it too is a duplicate. A file of
//!   which something cannot be told what it is may have it still.
//! - When its file has it no more, what is left counts, if that is one thing.
//! - Of a policy that was not in force before, there is none in force as long as two copies of it differ: which of them
//!   closes what the other opens, nobody knows. Of other objects the first by the names of the files counts.

use std::collections::BTreeMap;

use crate::manifests::history::{Collection, Scope, Stored};
use crate::manifests::object::{Object, ObjectKey};
use crate::manifests::objects::Origin;
use crate::manifests::parse::Parsed;

/// All that is said of objects, by object.
pub(super) type Claims<'a> = BTreeMap<&'a ObjectKey, (Vec<Claim<'a>>, Chosen<'a>)>;

/// A place where a file has an object.
pub(super) struct Claim<'a> {
    pub origin: Origin,
    /// `None` where it cannot be read.
    pub object: Option<&'a Object>,
}

/// What counts of an object.
#[derive(Clone, Copy)]
pub(super) enum Chosen<'a> {
    /// The claim with this index, and what it says.
    Claim(usize, &'a Object),
    /// The version that was in force before.
    Earlier(&'a Stored),
    Nothing,
}

/// What the files say, and what of that counts, `earlier` having been in force before. What was in force and is gone
/// is left out.
pub(super) fn claims<'a>(files: &[&'a Parsed], earlier: &'a Collection) -> Claims<'a> {
    let by_name: BTreeMap<Option<&str>, &Parsed> = files
        .iter()
        .map(|&parsed| (parsed.file.as_deref(), parsed))
        .collect();
    let may_have = |file, key: &ObjectKey| {
        let refusals = by_name.get(&file).into_iter().flat_map(|parsed| &parsed.refusals);
        refusals.into_iter().any(|refusal| refusal.may_be(key))
    };
    let claims = gather(files, earlier).into_iter().filter_map(|(key, claims)| {
        let chosen = match earlier.get(key) {
            None => choose_new(key, &claims),
            Some(earlier) => {
                let file = earlier.origin.file.as_str();
                choose(earlier, &claims, || {
                    may_have(Some(file), key) || may_have(None, key)
                })?
            }
        };
        Some((key, (claims, chosen)))
    });
    claims.collect()
}

fn gather<'a>(files: &[&'a Parsed], earlier: &'a Collection) -> BTreeMap<&'a ObjectKey, Vec<Claim<'a>>> {
    let mut claims: BTreeMap<&ObjectKey, Vec<Claim<'_>>> =
        earlier.keys().map(|key| (key, Vec::new())).collect();
    for &parsed in files {
        let mut add = |key, document, line, object| {
            let file = parsed.file.clone().unwrap_or_default();
            let origin = Origin { file, document, line };
            claims.entry(key).or_default().push(Claim { origin, object });
        };
        for entry in &parsed.entries {
            add(&entry.key, entry.document, entry.line, Some(&entry.object));
        }
        for refusal in &parsed.refusals {
            if let Some(key) = &refusal.object {
                add(key, refusal.document, None, None);
            }
        }
    }
    claims
}

fn choose_new<'a>(key: &ObjectKey, claims: &[Claim<'a>]) -> Chosen<'a> {
    let chosen = if Scope::of(key) == Scope::Nothing {
        find(claims, |_, _| true)
    } else {
        unanimous(claims, |_| true)
    };
    chosen.unwrap_or(Chosen::Nothing)
}

/// `None` where the object is gone.
fn choose<'a>(
    earlier: &'a Stored,
    claims: &[Claim<'a>],
    may_be_there: impl Fn() -> bool,
) -> Option<Chosen<'a>> {
    let is_there = |claim: &Claim<'_>| claim.origin.file == earlier.origin.file;
    let stays = claims.iter().any(is_there);
    if !stays && may_be_there() {
        return Some(Chosen::Earlier(earlier));
    }
    if claims.is_empty() {
        return None;
    }
    let counts = |claim: &Claim<'_>| is_there(claim) || !stays;
    let chosen = find(claims, |claim, object| counts(claim) && *object == earlier.object)
        .or_else(|| unanimous(claims, counts));
    Some(chosen.unwrap_or(Chosen::Earlier(earlier)))
}

fn find<'a>(claims: &[Claim<'a>], wanted: impl Fn(&Claim<'a>, &Object) -> bool) -> Option<Chosen<'a>> {
    claims.iter().enumerate().find_map(|(index, claim)| {
        let object = claim.object.filter(|object| wanted(claim, object))?;
        Some(Chosen::Claim(index, object))
    })
}

/// The first of those that count, if all of them say the same.
fn unanimous<'a>(claims: &[Claim<'a>], counts: impl Fn(&Claim<'a>) -> bool) -> Option<Chosen<'a>> {
    let mut counting = claims
        .iter()
        .filter(|claim| counts(claim))
        .map(|claim| claim.object);
    let first = counting.next()??;
    counting
        .all(|object| object == Some(first))
        .then(|| find(claims, |claim, _| counts(claim)))?
}
