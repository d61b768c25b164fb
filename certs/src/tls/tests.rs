use rustls::pki_types::UnixTime;
use time::{OffsetDateTime, macros::datetime};

use super::*;
use crate::{
    authority::{Authority, Chain, LEAF_LIFE},
    request::{AgentKey, CheckedRequest},
    tls::{provider, roots},
};

const BORN: OffsetDateTime = datetime!(2026-11-23 12:00 UTC);

fn authority(dir: &tempfile::TempDir) -> Authority {
    Authority::open_or_create(dir.path(), BORN).unwrap()
}

fn leaf(authority: &Authority) -> Chain {
    let request = AgentKey::generate().unwrap().request().unwrap();
    let request = CheckedRequest::check(&request).unwrap();
    let server = "srv_00000000000000000000000007".parse().unwrap();
    authority.issue(&request, server, LEAF_LIFE, BORN).unwrap()
}

fn verify(trusted: &Authority, chain: &Chain, at: OffsetDateTime) -> Result<(), Error> {
    let verifier = verifier(roots(trusted.root()).unwrap(), provider()).unwrap();
    let at = Duration::from_secs(at.unix_timestamp().try_into().unwrap());
    verifier
        .verify_client_cert(&chain[0], &chain[1..], UnixTime::since_unix_epoch(at))
        .map(drop)
}

#[test]
fn a_leaf_of_the_authority_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(&dir);
    assert!(verify(&authority, &leaf(&authority), BORN).is_ok());
}

#[test]
fn a_leaf_of_another_authority_is_wrong() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [ours, theirs] = dirs.each_ref().map(authority);
    assert!(verify(&ours, &leaf(&theirs), BORN).is_err());
}

#[test]
fn the_coordinators_certificate_is_not_an_agents() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(&dir);
    let (chain, _) = authority.coordinator(BORN).unwrap();
    assert!(verify(&authority, &chain, BORN).is_err());
}

#[test]
fn a_leaf_that_ended_within_the_grace_is_right_and_one_beyond_it_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(&dir);
    let chain = leaf(&authority);
    let end = BORN + LEAF_LIFE;
    assert!(verify(&authority, &chain, end + GRACE - Duration::from_mins(1)).is_ok());
    assert!(verify(&authority, &chain, end + GRACE + Duration::from_mins(1)).is_err());
}

#[test]
fn a_leaf_that_has_not_begun_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(&dir);
    let before = BORN - Duration::from_hours(1);
    assert!(verify(&authority, &leaf(&authority), before).is_err());
}
