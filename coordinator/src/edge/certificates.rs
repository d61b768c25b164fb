//! Certificates of customers' own names: read from the store, opened once, swapped as a whole.
//!
//! Each is kept for as long as its mark in the store is the same. One that does not open is no certificate,
//! of its name only, and is tried again at each look.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tidepool_certs::sealed::{MasterKeys, NoKeys, NotOpened};
use tidepool_shared::{id::InstanceId, sealed_place::SealedPlace};
use tokio::{sync::Mutex, task::spawn_blocking};

use crate::{
    causes::chain,
    model::{Certificate, CertificateMark},
    store::{CertificateStore, Stored},
};

/// Why a certificate is none.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("read the master keys")]
    MasterKeys(#[source] NoKeys),
    #[error("open its key")]
    Sealed(#[source] NotOpened),
    #[error("read it")]
    Pem(#[source] rustls::pki_types::pem::Error),
    #[error("take its key")]
    Key(#[source] rustls::Error),
    #[error("key and certificate belong together")]
    Mismatch(#[source] rustls::Error),
    #[error("a task panicked")]
    Panicked(#[source] tokio::task::JoinError),
}

/// A certificate that is in use.
#[derive(Clone)]
struct Known {
    mark: CertificateMark,
    key: Arc<CertifiedKey>,
}

/// All of them, by name.
pub(super) struct Certificates {
    pub(super) store: Arc<dyn CertificateStore>,
    master_keys: PathBuf,
    known: ArcSwap<HashMap<String, Known>>,
    /// Serialises looks.
    looking: Mutex<()>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates")
            .field("count", &self.known.load().len())
            .finish_non_exhaustive()
    }
}

impl Certificates {
    pub(super) fn new(store: Arc<dyn CertificateStore>, master_keys: PathBuf) -> Self {
        Self {
            store,
            master_keys,
            known: ArcSwap::default(),
            looking: Mutex::default(),
        }
    }

    /// Takes in what the store has, of one instance or of all.
    pub(super) async fn look(&self, instance: Option<InstanceId>) -> Stored<()> {
        let _looking = self.looking.lock().await;
        let marks = self.store.certificate_marks(instance).await?;
        let before = self.known.load_full();
        let is_asked = |known: &Known| instance.is_none_or(|asked| known.mark.instance == asked);
        let mut next: HashMap<String, Known> = before
            .iter()
            .filter(|(_, known)| !is_asked(known))
            .map(|(name, known)| (name.clone(), known.clone()))
            .collect();
        for mark in marks {
            let known = before.get(&mark.name).filter(|known| known.mark == mark);
            let known = match known {
                Some(known) => Some(known.clone()),
                None => self.read(mark).await?,
            };
            next.extend(known.map(|known| (known.mark.name.clone(), known)));
        }
        self.known.store(Arc::new(next));
        Ok(())
    }

    async fn read(&self, mark: CertificateMark) -> Stored<Option<Known>> {
        let found = self.store.certificate(&mark.name, mark.instance).await?;
        let Some(certificate) = found else {
            return Ok(None);
        };
        let path = self.master_keys.clone();
        let opened = spawn_blocking(move || open(&path, &certificate)).await;
        match opened.map_err(Unusable::Panicked).flatten() {
            Ok(key) => Ok(Some(Known {
                mark,
                key: Arc::new(key),
            })),
            Err(error) => {
                tracing::error!(instance.id = %mark.instance, domain = mark.name, error = %chain(&error), "a certificate is not usable");
                Ok(None)
            }
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?.to_ascii_lowercase();
        let known = self.known.load();
        known.get(&name).map(|known| Arc::clone(&known.key))
    }
}

fn open(path: &Path, certificate: &Certificate) -> Result<CertifiedKey, Unusable> {
    let place = SealedPlace::DomainKey {
        instance: certificate.instance.to_string(),
        name: certificate.name.clone(),
    };
    let keys = MasterKeys::read(path).map_err(Unusable::MasterKeys)?;
    let key = keys
        .open(&certificate.sealed_key, &place.to_string())
        .map_err(Unusable::Sealed)?;
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).map_err(Unusable::Pem)?;
    let key = any_supported_type(&key).map_err(Unusable::Key)?;
    let chain = CertificateDer::pem_slice_iter(certificate.chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(Unusable::Pem)?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(Unusable::Mismatch)?;
    Ok(certified)
}
