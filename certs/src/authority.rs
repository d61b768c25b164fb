//! The authority: a root, and the issuing authority that does the daily work.
//!
//! Both, with their keys, are one PEM file in a directory of the coordinator: root, root's key, issuing,
//! issuing's key. One file, because it is replaced whole or not at all. It belongs in every backup:
//! without it every server must be replaced, and a file that cannot be read is an error, never a reason
//! to make a new authority.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tidepool_shared::id::ServerId;
use time::OffsetDateTime;

use crate::{
    COORDINATOR_NAME,
    door::{self, Edge},
    leaf::URI_PREFIX,
    request::CheckedRequest,
    secret_file,
};

/// How long an agent's certificate lives.
pub const LEAF_LIFE: Duration = Duration::from_hours(24);

/// How long the coordinator's own certificate lives. It is made anew at every start and every day.
pub const COORDINATOR_LIFE: Duration = Duration::from_hours(30 * 24);

/// How long the certificate of a server's door lives. Longer than a link's: an edge must reach a server whose
/// link has been away for days.
pub const DOOR_LIFE: Duration = Duration::from_hours(7 * 24);

/// Certificates begin this long before they are made, for machines whose clocks are behind.
const BACKDATED: Duration = Duration::from_mins(10);

const ROOT_LIFE: Duration = Duration::from_hours(20 * 365 * 24);
const ISSUING_LIFE: Duration = Duration::from_hours(10 * 365 * 24);

/// Root and issuing authority, with the issuing one's key.
pub struct Authority {
    root: CertificateDer<'static>,
    root_pem: String,
    issuing: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority(…)")
    }
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("use authority file `{path}`")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("authority file `{0}` is damaged: restore it from a backup")]
    Unreadable(PathBuf),
    #[error("make authority")]
    Make(#[from] IssueError),
}

/// Why a certificate was not made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("the validity does not fit a calendar")]
    Validity,
    #[error("no random serial number to be had")]
    Random,
    #[error("sign certificate")]
    Sign(#[source] rcgen::Error),
}

/// A certificate chain, leaf first, without the root.
pub type Chain = Vec<CertificateDer<'static>>;

impl Authority {
    /// Reads the authority in `dir`, or makes one if there is none.
    pub fn open_or_create(dir: &Path, now: OffsetDateTime) -> Result<Self, OpenError> {
        secret_file::create_dir(dir).map_err(|source| OpenError::File {
            path: dir.to_owned(),
            source,
        })?;
        let path = dir.join("authority.pem");
        if let Some(authority) = Self::open(&path)? {
            return Ok(authority);
        }
        Self::create(&path, now)?;
        Self::open(&path)?.ok_or(OpenError::Unreadable(path))
    }

    /// Reads the authority in `dir`, if there is one.
    pub fn find(dir: &Path) -> Result<Option<Self>, OpenError> {
        Self::open(&dir.join("authority.pem"))
    }

    /// The root certificate, which agents are given.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The root certificate in PEM, as it travels in user data.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// A certificate and key for the coordinator's end of the link.
    pub fn coordinator(
        &self,
        now: OffsetDateTime,
    ) -> Result<(Chain, PrivateKeyDer<'static>), IssueError> {
        let key = new_key()?;
        let name = COORDINATOR_NAME
            .try_into()
            .map_err(IssueError::Sign)
            .map(SanType::DnsName)?;
        let names = vec![name];
        let mut params = leaf_params("Tidepool coordinator", names, now, COORDINATOR_LIFE)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let chain = self.sign(&params, &key)?;
        Ok((chain, PrivateKeyDer::Pkcs8(key.serialize_der().into())))
    }

    /// A certificate for an agent. Of the request only the public key is taken.
    pub fn issue(
        &self,
        request: &CheckedRequest,
        server: ServerId,
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<Chain, IssueError> {
        let name = format!("{URI_PREFIX}{server}")
            .try_into()
            .map_err(IssueError::Sign)
            .map(SanType::URI)?;
        let mut params = leaf_params(&server.to_string(), vec![name], now, life)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params, &request.public_key)
    }

    /// A certificate for a server's door. Of the request only the public key is taken.
    pub fn door(
        &self,
        request: &CheckedRequest,
        server: ServerId,
        now: OffsetDateTime,
    ) -> Result<Chain, IssueError> {
        let name = |name: String| name.try_into().map(SanType::DnsName);
        let names = [door::SERVERS_NAME.to_owned(), door::name_of(server)]
            .into_iter()
            .map(name)
            .collect::<Result<_, _>>()
            .map_err(IssueError::Sign)?;
        let mut params = leaf_params(&server.to_string(), names, now, DOOR_LIFE)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params, &request.public_key)
    }

    /// A certificate and key for an edge's end of its way to servers.
    pub fn edge(&self, life: Duration, now: OffsetDateTime) -> Result<Edge, IssueError> {
        let key = new_key()?;
        let mut params = leaf_params(door::EDGE, Vec::new(), now, life)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let chain = self.sign(&params, &key)?;
        Ok(Edge { chain, key })
    }

    fn sign(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<Chain, IssueError> {
        let leaf = params
            .signed_by(key, &self.issuer)
            .map_err(IssueError::Sign)?;
        Ok(vec![leaf.into(), self.issuing.clone()])
    }

    fn open(path: &Path) -> Result<Option<Self>, OpenError> {
        let contents = secret_file::read(path).map_err(|source| OpenError::File {
            path: path.to_owned(),
            source,
        })?;
        contents
            .map(|pem| Self::parse(&pem).ok_or_else(|| OpenError::Unreadable(path.to_owned())))
            .transpose()
    }

    fn parse(pem: &[u8]) -> Option<Self> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .ok()?;
        let keys: Vec<_> = PrivateKeyDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .ok()?;
        let ([root, issuing], [_root_key, issuing_key]) = (&certificates[..], &keys[..]) else {
            return None;
        };
        let key = KeyPair::try_from(issuing_key).ok()?;
        let text = std::str::from_utf8(pem).ok()?;
        let root_end = text.find(END_OF_CERTIFICATE)? + END_OF_CERTIFICATE.len();
        Some(Self {
            root: root.clone(),
            root_pem: format!("{}\n", text.get(..root_end)?),
            issuing: issuing.clone(),
            issuer: Issuer::from_ca_cert_der(issuing, key).ok()?,
        })
    }

    fn create(path: &Path, now: OffsetDateTime) -> Result<(), OpenError> {
        let root_key = new_key()?;
        let root_params = authority_params("Tidepool root", 1, now, ROOT_LIFE)?;
        let root = root_params
            .self_signed(&root_key)
            .map_err(IssueError::Sign)?;
        let root_key_pem = root_key.serialize_pem();
        let issuing_key = new_key()?;
        let issuing = authority_params("Tidepool issuing", 0, now, ISSUING_LIFE)?
            .signed_by(&issuing_key, &Issuer::new(root_params, root_key))
            .map_err(IssueError::Sign)?;
        let contents = [
            root.pem(),
            root_key_pem,
            issuing.pem(),
            issuing_key.serialize_pem(),
        ]
        .concat();
        secret_file::write(path, contents.as_bytes()).map_err(|source| OpenError::File {
            path: path.to_owned(),
            source,
        })
    }
}

const END_OF_CERTIFICATE: &str = "-----END CERTIFICATE-----";

fn new_key() -> Result<KeyPair, IssueError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IssueError::Sign)
}

fn named(name: &str, now: OffsetDateTime, life: Duration) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, name.to_owned());
    params.not_before = now
        .checked_sub(BACKDATED.try_into().map_err(|_| IssueError::Validity)?)
        .ok_or(IssueError::Validity)?;
    params.not_after = now
        .checked_add(life.try_into().map_err(|_| IssueError::Validity)?)
        .ok_or(IssueError::Validity)?;
    params.serial_number = Some(random_serial()?);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn authority_params(
    name: &str,
    depth: u8,
    now: OffsetDateTime,
    life: Duration,
) -> Result<CertificateParams, IssueError> {
    let mut params = named(name, now, life)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(depth));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf_params(
    name: &str,
    alternatives: Vec<SanType>,
    now: OffsetDateTime,
    life: Duration,
) -> Result<CertificateParams, IssueError> {
    let mut params = named(name, now, life)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.subject_alt_names = alternatives;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

/// 127 random bits: positive in DER whatever they are.
fn random_serial() -> Result<SerialNumber, IssueError> {
    let mut bytes = [0u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| IssueError::Random)?;
    let [first, ..] = &mut bytes;
    *first &= 0x7f;
    Ok(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
#[path = "authority/tests.rs"]
mod tests;
