//! Certificates from a certificate authority by ACME (RFC 8555), proven by HTTP-01: the authority asks the
//! name itself for what only our account can know, and any edge answers from the store.
//!
//! Our account is made at the first order, sealed and kept; one that the authority does not know any more is
//! made anew.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, BodyWrapper, BytesResponse, ChallengeType,
    Error as AcmeError, HttpClient, Identifier, NewAccount, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use reqwest::redirect::Policy;
use tidepool_certs::sealed::{MasterKeys, NoKeys, NotOpened};
use tidepool_shared::{id::InstanceId, sealed_place::SealedPlace};
use tokio::{sync::Mutex, task::spawn_blocking};
use x509_parser::{parse_x509_certificate, pem::parse_x509_pem};

use super::DomainsSettings;
use crate::{
    ambient::{Clock, Moment},
    model::{Certificate, Validity},
    store::{Store, StoreError, Transition},
};

/// For one answer of the authority.
const ANSWER: Duration = Duration::from_secs(30);
/// For the authority to look, and again to sign.
const POLLING: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .timeout(Duration::from_mins(2));
/// How long edges answer a challenge.
const CHALLENGE: Duration = Duration::from_mins(30);
/// After the authority said that a name, or we, asked too often. Its limits are of hours and days.
const LIMITED: Duration = Duration::from_hours(3);
const ANSWER_MAX_BYTES: usize = 1024 * 1024;
/// Of what the authority says, for people.
const WORDS_MAX: usize = 300;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotIssued {
    #[error("ask the certificate authority")]
    Authority(#[source] AcmeError),
    #[error("the certificate authority offers no challenge by HTTP")]
    NoChallenge,
    #[error("the certificate authority does not accept the proof")]
    Unproven,
    #[error("too many challenges are open")]
    TooManyChallenges,
    #[error("make a key")]
    Key(#[source] rcgen::Error),
    #[error("the certificate cannot be read")]
    Unreadable,
    #[error("read the master keys")]
    MasterKeys(#[source] NoKeys),
    #[error("open the account's key")]
    Sealed(#[source] NotOpened),
    #[error("the account's key is damaged")]
    Account(#[source] serde_json::Error),
    #[error("a task panicked")]
    Panicked(#[source] tokio::task::JoinError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl NotIssued {
    /// For whoever can do something about it; holds nothing of ours.
    pub(super) fn for_people(&self) -> String {
        let why = match self {
            Self::Authority(AcmeError::Api(problem)) => problem.detail.clone(),
            Self::NoChallenge | Self::Unproven => Some(self.to_string()),
            Self::Authority(_)
            | Self::TooManyChallenges
            | Self::Key(_)
            | Self::Unreadable
            | Self::MasterKeys(_)
            | Self::Sealed(_)
            | Self::Account(_)
            | Self::Panicked(_)
            | Self::Store(_) => None,
        };
        let why = why.unwrap_or_else(|| "it was not asked or did not answer".to_owned());
        let why: String = why.chars().take(WORDS_MAX).collect();
        format!("the certificate authority gave no certificate: {why}")
    }

    /// So long the name rests at least.
    ///
    /// Other names do not: most limits of an authority are a name's own, and whoever exceeds one of those must
    /// not be able to hold everybody's orders. What our account may do is counted here
    /// ([`crate::store::ORDERS_OF_ALL`]).
    pub(super) fn rest(&self) -> Duration {
        if self.is_of_type("rateLimited") {
            LIMITED
        } else {
            Duration::ZERO
        }
    }

    /// The authority has forgotten us.
    fn is_unknown_account(&self) -> bool {
        self.is_of_type("accountDoesNotExist")
    }

    /// Whether the authority answered with this type of error.
    fn is_of_type(&self, name: &str) -> bool {
        let Self::Authority(AcmeError::Api(problem)) = self else {
            return false;
        };
        let kind = problem.r#type.as_deref();
        kind.and_then(|kind| kind.strip_prefix("urn:ietf:params:acme:error:")) == Some(name)
    }
}

/// A certificate authority and our account there.
pub(super) struct Acme {
    settings: DomainsSettings,
    http: reqwest::Client,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    account: Mutex<Option<Account>>,
}

impl Acme {
    pub(super) fn new(
        settings: DomainsSettings,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
    ) -> reqwest::Result<Self> {
        let mut http = reqwest::Client::builder()
            .connect_timeout(ANSWER)
            .timeout(ANSWER)
            .redirect(Policy::none())
            .https_only(true);
        if let Some(authority) = &settings.authority {
            http = http.tls_certs_only([authority.clone()]);
        }
        Ok(Self {
            http: http.build()?,
            settings,
            store,
            clock,
            account: Mutex::default(),
        })
    }

    /// Gets a certificate for a name, its key sealed for its place.
    pub(super) async fn order(
        &self,
        name: &str,
        instance: InstanceId,
    ) -> Result<Certificate, NotIssued> {
        let account = self.account().await?;
        let ordered = self.order_by(&account, name).await;
        let (chain, key) = match ordered {
            Err(error) if error.is_unknown_account() => {
                let account = self.new_account(Some(account.id())).await?;
                self.order_by(&account, name).await?
            }
            ordered => ordered?,
        };
        let place = SealedPlace::DomainKey {
            instance: instance.to_string(),
            name: name.to_owned(),
        };
        Ok(Certificate {
            name: name.to_owned(),
            instance,
            validity: validity(&chain).ok_or(NotIssued::Unreadable)?,
            sealed_key: self.seal(key, place).await?,
            chain,
        })
    }

    async fn order_by(&self, account: &Account, name: &str) -> Result<(String, String), NotIssued> {
        let identifiers = [Identifier::Dns(name.to_owned())];
        let order = account.new_order(&NewOrder::new(&identifiers)).await;
        let mut order = order.map_err(NotIssued::Authority)?;
        self.prove(&mut order).await?;
        let ready = order.poll_ready(&POLLING).await;
        if ready.map_err(NotIssued::Authority)? != OrderStatus::Ready {
            return Err(NotIssued::Unproven);
        }
        let key = KeyPair::generate().map_err(NotIssued::Key)?;
        let mut wish = CertificateParams::new([name.to_owned()]).map_err(NotIssued::Key)?;
        wish.distinguished_name = DistinguishedName::new();
        let wish = wish.serialize_request(&key).map_err(NotIssued::Key)?;
        let finalized = order.finalize_csr(wish.der()).await;
        finalized.map_err(NotIssued::Authority)?;
        let chain = order.poll_certificate(&POLLING).await;
        Ok((chain.map_err(NotIssued::Authority)?, key.serialize_pem()))
    }

    /// Shows the authority what it wants to see of each name that it has not seen yet.
    async fn prove(&self, order: &mut Order) -> Result<(), NotIssued> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(NotIssued::Authority)?;
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                _ => return Err(NotIssued::Unproven),
            }
            let challenge = authorization.challenge(ChallengeType::Http01);
            let mut challenge = challenge.ok_or(NotIssued::NoChallenge)?;
            let answer = challenge.key_authorization();
            let until = self.clock.now().plus(CHALLENGE);
            // It is committed before the authority is told to look.
            let kept = self
                .store
                .put_challenge(&challenge.token, answer.as_str(), until);
            if kept.await? == Transition::NotPossible {
                return Err(NotIssued::TooManyChallenges);
            }
            challenge.set_ready().await.map_err(NotIssued::Authority)?;
        }
        Ok(())
    }

    /// Our account: the one in memory, the one in the store, or a new one.
    async fn account(&self) -> Result<Account, NotIssued> {
        if let Some(account) = &*self.account.lock().await {
            return Ok(account.clone());
        }
        let directory = &self.settings.directory;
        let Some(sealed) = self.store.acme_account(directory).await? else {
            return self.new_account(None).await;
        };
        let (path, purpose) = (self.settings.master_keys.clone(), self.place().to_string());
        let opened = spawn_blocking(move || {
            let keys = MasterKeys::read(&path).map_err(NotIssued::MasterKeys)?;
            keys.open(&sealed, &purpose).map_err(NotIssued::Sealed)
        });
        let opened = opened.await.map_err(NotIssued::Panicked)??;
        let credentials: AccountCredentials =
            serde_json::from_str(opened.expose()).map_err(NotIssued::Account)?;
        let account = self.builder().from_credentials(credentials).await;
        let account = account.map_err(NotIssued::Authority)?;
        *self.account.lock().await = Some(account.clone());
        Ok(account)
    }

    /// An account in place of the one that is not known any more.
    async fn new_account(&self, unknown: Option<&str>) -> Result<Account, NotIssued> {
        // Held, so that many orders at once make one account.
        let mut held = self.account.lock().await;
        if let Some(account) = held.as_ref().filter(|it| Some(it.id()) != unknown) {
            return Ok(account.clone());
        }
        let contact = self.settings.email.as_ref();
        let contact: Vec<_> = contact
            .map(|email| format!("mailto:{email}"))
            .into_iter()
            .collect();
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let wish = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let directory = self.settings.directory.clone();
        let created = self.builder().create(&wish, directory.clone(), None).await;
        let (account, credentials) = created.map_err(NotIssued::Authority)?;
        let credentials = serde_json::to_string(&credentials).map_err(NotIssued::Account)?;
        let sealed = self.seal(credentials, self.place()).await?;
        self.store.put_acme_account(&directory, &sealed).await?;
        *held = Some(account.clone());
        Ok(account)
    }

    fn builder(&self) -> instant_acme::AccountBuilder {
        Account::builder_with_http(Box::new(Http(self.http.clone())))
    }

    fn place(&self) -> SealedPlace {
        SealedPlace::AcmeAccount(self.settings.directory.clone())
    }

    async fn seal(&self, secret: String, place: SealedPlace) -> Result<Vec<u8>, NotIssued> {
        let path = self.settings.master_keys.clone();
        let sealed = spawn_blocking(move || {
            MasterKeys::read(&path).map(|keys| keys.seal(&secret, &place.to_string()))
        });
        let sealed = sealed.await.map_err(NotIssued::Panicked)?;
        sealed.map_err(NotIssued::MasterKeys)
    }
}

/// From when until when the first certificate of a chain is good.
fn validity(chain: &str) -> Option<Validity> {
    let (_, pem) = parse_x509_pem(chain.as_bytes()).ok()?;
    let (_, certificate) = parse_x509_certificate(&pem.contents).ok()?;
    let moment = |seconds: i64| Some(Moment(seconds.checked_mul(1_000_000)?));
    Some(Validity {
        issued_at: moment(certificate.validity().not_before.timestamp())?,
        expires_at: moment(certificate.validity().not_after.timestamp())?,
    })
}

/// The client of the whole coordinator's TLS, for the library.
struct Http(reqwest::Client);

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, AcmeError>> + Send>> {
        let client = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(never) => match never {},
            };
            let asking = client
                .request(head.method, head.uri.to_string())
                .headers(head.headers)
                .body(body);
            let other = |error: reqwest::Error| AcmeError::Other(error.into());
            let mut answer = asking.send().await.map_err(other)?;
            let mut response = http::Response::new(());
            *response.status_mut() = answer.status();
            *response.headers_mut() = answer.headers().clone();
            let mut body = Vec::new();
            while let Some(piece) = answer.chunk().await.map_err(other)? {
                if body.len() + piece.len() > ANSWER_MAX_BYTES {
                    return Err(AcmeError::Str("an answer that ends"));
                }
                body.extend_from_slice(&piece);
            }
            let (parts, ()) = response.into_parts();
            Ok(BytesResponse {
                parts,
                body: Box::new(Bytes::from(body)),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use instant_acme::Problem;

    use super::*;

    fn told(kind: &str) -> NotIssued {
        let problem = Problem {
            r#type: Some(format!("urn:ietf:params:acme:error:{kind}")),
            detail: None,
            status: Some(429),
            subproblems: Vec::new(),
        };
        NotIssued::Authority(problem.into())
    }

    #[test]
    fn whoever_is_told_to_ask_less_rests_for_hours() {
        assert_eq!(told("rateLimited").rest(), LIMITED);
        assert_eq!(told("caa").rest(), Duration::ZERO);
        assert!(told("accountDoesNotExist").is_unknown_account());
        assert!(!told("rateLimited").is_unknown_account());
        assert_eq!(NotIssued::NoChallenge.rest(), Duration::ZERO);
    }
}
