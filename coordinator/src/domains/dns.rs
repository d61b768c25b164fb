//! What DNS says of a name: whether its owner has said that it is an instance's, and whether it leads here.
//!
//! Asked of a recursive resolver, at each look anew. An error is never a no: a customer's name is not given
//! up because a resolver was away.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use domain::{
    base::{Message, Name, Rtype, iana::Rcode},
    rdata::{A, Aaaa, Txt},
    resolv::stub::{
        Answer as Found, StubResolver,
        conf::{ResolvConf, ServerConf, Transport},
    },
};
use futures_util::try_join;

/// For one question, with its repetitions.
const PATIENCE: Duration = Duration::from_secs(10);
/// Records of one name that are looked at.
const RECORDS_MAX: usize = 64;

/// Below which name of a domain its owner says whose it is.
pub const PROOF_LABEL: &str = "_tidepool";

/// What the record must say.
pub fn proof_value(token: &str) -> String {
    format!("tidepool={token}")
}

/// An answer to one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    Yes,
    /// And why not, for people.
    No(String),
    /// DNS did not answer.
    Nothing(String),
}

/// What was seen of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) is_proven: Said,
    pub(super) leads_here: Said,
    /// All that its owner says, to settle between several who ask for it.
    pub(super) proofs: BTreeSet<String>,
}

/// Why DNS could not be asked or understood.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("`{0}` is no name")]
    Name(String),
    #[error("DNS does not answer")]
    Silence(#[source] tokio::time::error::Elapsed),
    #[error("DNS does not answer")]
    Ask(#[source] std::io::Error),
    #[error("DNS answers with {0}")]
    Refused(Rcode),
    #[error("DNS answers with nonsense")]
    Unreadable(#[source] domain::base::wire::ParseError),
}

/// Asks about domains.
pub(super) struct Dns {
    resolver: StubResolver,
    /// Where domains must lead.
    target: String,
}

impl Dns {
    /// By this resolver, or by the machine's own.
    pub(super) fn new(resolver: Option<SocketAddr>, target: String) -> Self {
        let resolver = match resolver {
            Some(address) => {
                let mut conf = ResolvConf::new();
                conf.servers
                    .push(ServerConf::new(address, Transport::UdpTcp));
                StubResolver::from_conf(conf)
            }
            None => StubResolver::new(),
        };
        Self { resolver, target }
    }

    pub(super) async fn look(&self, name: &str, token: &str) -> Look {
        let place = format!("{PROOF_LABEL}.{name}");
        let (proofs, leads_here) = tokio::join!(self.texts(&place), self.leads_here(name));
        let (proofs, is_proven) = match proofs {
            Ok(proofs) if proofs.contains(&proof_value(token)) => (proofs, Said::Yes),
            Ok(proofs) => {
                let why = format!("{place} has no TXT record with its token");
                (proofs, Said::No(why))
            }
            Err(error) => (BTreeSet::new(), Said::Nothing(error.to_string())),
        };
        Look {
            is_proven,
            leads_here: leads_here.unwrap_or_else(|error| Said::Nothing(error.to_string())),
            proofs,
        }
    }

    /// Whether every address of a name is one of ours: one that is not would get some of its visitors.
    async fn leads_here(&self, name: &str) -> Result<Said, NoAnswer> {
        let (its, ours) = try_join!(self.addresses(name), self.addresses(&self.target))?;
        if ours.is_empty() {
            return Ok(Said::Nothing(format!("{} has no address", self.target)));
        }
        if its.is_empty() {
            return Ok(Said::No(format!("{name} has no address")));
        }
        Ok(match its.difference(&ours).next() {
            Some(other) => Said::No(format!(
                "{name} leads to {other}, which is no address of {}",
                self.target
            )),
            None => Said::Yes,
        })
    }

    async fn addresses(&self, name: &str) -> Result<BTreeSet<std::net::IpAddr>, NoAnswer> {
        let (four, six) = try_join!(self.ask(name, Rtype::A), self.ask(name, Rtype::AAAA))?;
        let mut addresses = BTreeSet::new();
        let records = message(&four).answer().map_err(NoAnswer::Unreadable)?;
        for record in records.limit_to::<A>().take(RECORDS_MAX) {
            let record = record.map_err(NoAnswer::Unreadable)?;
            addresses.insert(record.data().addr().into());
        }
        let records = message(&six).answer().map_err(NoAnswer::Unreadable)?;
        for record in records.limit_to::<Aaaa>().take(RECORDS_MAX) {
            let record = record.map_err(NoAnswer::Unreadable)?;
            addresses.insert(record.data().addr().into());
        }
        Ok(addresses)
    }

    async fn texts(&self, name: &str) -> Result<BTreeSet<String>, NoAnswer> {
        let found = self.ask(name, Rtype::TXT).await?;
        let mut texts = BTreeSet::new();
        let records = message(&found).answer().map_err(NoAnswer::Unreadable)?;
        for record in records.limit_to::<Txt<_>>().take(RECORDS_MAX) {
            let record = record.map_err(NoAnswer::Unreadable)?;
            let text: Vec<u8> = record.data().iter().flatten().copied().collect();
            texts.insert(String::from_utf8_lossy(&text).into_owned());
        }
        Ok(texts)
    }

    async fn ask(&self, name: &str, rtype: Rtype) -> Result<Found, NoAnswer> {
        let no_name = || NoAnswer::Name(name.to_owned());
        let question: Name<Vec<u8>> = name.parse().map_err(|_| no_name())?;
        let asking = self.resolver.query((question, rtype));
        let found = tokio::time::timeout(PATIENCE, asking).await;
        let found = found.map_err(NoAnswer::Silence)?.map_err(NoAnswer::Ask)?;
        match message(&found).header().rcode() {
            Rcode::NOERROR | Rcode::NXDOMAIN => Ok(found),
            refused => Err(NoAnswer::Refused(refused)),
        }
    }
}

fn message(found: &Found) -> &Message<bytes::Bytes> {
    found.as_ref()
}
