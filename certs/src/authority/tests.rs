use std::{fs, os::unix::fs::PermissionsExt as _};

use time::macros::datetime;

use super::*;
use crate::{leaf::Leaf, request::AgentKey};

const NOW: OffsetDateTime = datetime!(2026-11-23 12:00 UTC);

fn server() -> ServerId {
    "srv_00000000000000000000000007".parse().unwrap()
}

fn issued(authority: &Authority) -> Chain {
    let request = AgentKey::generate().unwrap().request().unwrap();
    let request = CheckedRequest::check(&request).unwrap();
    authority.issue(&request, server(), LEAF_LIFE, NOW).unwrap()
}

#[test]
fn an_authority_reads_back_as_itself() {
    let dir = tempfile::tempdir().unwrap();
    let first = Authority::open_or_create(dir.path(), NOW).unwrap();
    let second = Authority::open_or_create(dir.path(), NOW + Duration::from_hours(1)).unwrap();
    assert_eq!(first.root(), second.root());
    assert_eq!(first.issuing, second.issuing);
    assert_eq!(issued(&first)[1], issued(&second)[1]);
}

#[test]
fn its_file_is_for_their_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    Authority::open_or_create(dir.path(), NOW).unwrap();
    let modes: Vec<u32> = fs::read_dir(dir.path())
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().permissions().mode() & 0o777)
        .collect();
    assert_eq!(modes, vec![0o600]);
}

#[test]
fn a_damaged_authority_is_not_replaced_by_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    Authority::open_or_create(dir.path(), NOW).unwrap();
    let path = dir.path().join("authority.pem");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(
        Authority::open_or_create(dir.path(), NOW),
        Err(OpenError::Unreadable(_))
    ));
}

#[test]
fn a_leaf_names_its_server_and_lives_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open_or_create(dir.path(), NOW).unwrap();
    let leaf = Leaf::read(&issued(&authority)[0]).unwrap();
    assert_eq!(leaf.server, server());
    assert_eq!(leaf.life.ends, NOW + LEAF_LIFE);
    assert_eq!(leaf.life.begins, NOW - BACKDATED);
}

#[test]
fn two_leaves_have_two_serials() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open_or_create(dir.path(), NOW).unwrap();
    let serial = || Leaf::read(&issued(&authority)[0]).unwrap().serial;
    assert_ne!(serial(), serial());
}

#[test]
fn what_a_request_asks_for_is_not_granted() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open_or_create(dir.path(), NOW).unwrap();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut wish = CertificateParams::new(vec![COORDINATOR_NAME.to_owned()]).unwrap();
    wish.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let request = wish.serialize_request(&key).unwrap();
    let request = CheckedRequest::check(request.der()).unwrap();
    let chain = authority.issue(&request, server(), LEAF_LIFE, NOW).unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    assert!(!parsed.is_ca());
    assert_eq!(Leaf::read(&chain[0]).unwrap().server, server());
}
