//! Making a server without ever leaking one.
//!
//! The one `POST` that makes it also labels it, protects it by the firewall and tells it how to enrol,
//! so that there is no moment in which it is somebody's, open or mute. A `POST` whose outcome is in
//! doubt is followed by a look for the name: ours is adopted; none means that the first call may still
//! land, so it is waited and looked again, and then the same name is sent again, which can make no
//! second server.

use tidepool_shared::user_data::UserData;

use super::{
    HetznerCloud,
    api::Twice,
    call::{Answer, Call, CallFailed},
    code::Meaning,
    image,
    request::{CreateServer, EnabledNet, FirewallRef},
    trouble::Trouble,
    wire::Server,
};
use crate::cloud::{CloudServer, Order};

/// How often the `POST` is sent before it is left to a later order of the same name.
const SENDS: u32 = 3;

/// Looks for a server whose `POST` is in doubt, before it is sent again.
const LOOKS: u32 = 4;

/// Seconds between two of these looks. Together longer than a request lives in Hetzner's gateways.
const LOOK_INTERVAL: u32 = 10;

/// Seconds after which a server whose `POST` was sent by somebody who is dead does not appear any more: three
/// times what [`look_for`](HetznerCloud::look_for) waits.
pub(super) const LATEST_APPEARANCE: u32 = 3 * (LOOKS - 1) * LOOK_INTERVAL;

/// What Hetzner takes.
const USER_DATA_MAX: usize = 32 << 10;

impl HetznerCloud {
    pub(super) async fn make(&self, order: &Order) -> Result<CloudServer, Trouble> {
        let labels = self.mark.with(&order.labels)?;
        let user_data = UserData {
            admission: Some(self.settings.admission()),
            ..order.user_data.clone()
        };
        let user_data = serde_json::to_string(&user_data).map_err(Trouble::UserDataJson)?;
        if user_data.len() > USER_DATA_MAX {
            return Err(Trouble::UserData(user_data.len()));
        }
        // Before anything is asked: who is held back tries again soon, and would spend what is refilled.
        self.check_budget()?;
        if let Some(made) = self.find_server(&order.name).await? {
            return Ok(made);
        }
        let _turn = self.creations.acquire().await;
        self.check_budget()?;
        let body = CreateServer {
            name: &order.name,
            server_type: &order.placement.server_type,
            location: &order.placement.location,
            image: match &order.image {
                Some(id) => image::id(id)?,
                None => self.image_for(&order.placement.server_type).await?,
            },
            labels: &labels,
            user_data: &user_data,
            firewalls: [FirewallRef {
                firewall: self.firewall_for_creation().await?,
            }],
            public_net: EnabledNet {
                enable_ipv4: true,
                enable_ipv6: true,
            },
            ssh_keys: self.settings.ssh_key.as_deref().map(|key| [key]),
            start_after_create: true,
        };
        let call = Call::post("servers", &body)?;
        let made = self.send(&order.name, &call).await;
        if made
            .as_ref()
            .is_err_and(|trouble| trouble.means(Meaning::NotFound))
        {
            // Image, key or firewall: of these only the firewall is remembered here.
            self.forget_firewall().await;
        }
        made?.seen().ok_or(Trouble::NoAddress)
    }

    fn check_budget(&self) -> Result<(), Trouble> {
        match self.api.limiter().short_of() {
            Some(left) => Err(Trouble::HeldBack(left)),
            None => Ok(()),
        }
    }

    /// Sends the `POST` until it is known what came of it.
    async fn send(&self, name: &str, call: &Call) -> Result<Server, Trouble> {
        let mut sends = 1;
        loop {
            let sent = self.api.call(call, Twice::MakesTwo).await;
            let error = match sent.and_then(|mut answer: Answer| answer.part("server")) {
                Ok(server) => return Ok(server),
                Err(error) => error,
            };
            if !error.leaves_it_open() && !error.means(Meaning::Taken) {
                return Err(error.into());
            }
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                server.name = name,
                "the outcome of a creation is in doubt, looking for the server"
            );
            if let Some(server) = self.look_for(name).await? {
                return Ok(server);
            }
            if sends == SENDS {
                return Err(in_doubt(error));
            }
            sends += 1;
        }
    }

    /// Looks for a server that may be about to appear.
    async fn look_for(&self, name: &str) -> Result<Option<Server>, Trouble> {
        for look in 1..=LOOKS {
            if let Some(server) = self.our_server(name).await? {
                return Ok(Some(server));
            }
            if look < LOOKS {
                tokio::time::sleep(self.api.pace().seconds(LOOK_INTERVAL)).await;
            }
        }
        Ok(None)
    }
}

/// The name is taken but nothing bears it: that too may be ours, on its way in or out.
fn in_doubt(error: CallFailed) -> Trouble {
    if error.means(Meaning::Taken) {
        Trouble::InDoubt(error)
    } else {
        error.into()
    }
}
