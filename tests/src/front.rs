//! What stands in front of coordinators in production: the real Traefik, as `tidepool init traefik` sets it up,
//! and the real Redis that it may read its routes from. Both may be killed, stopped and started again.

mod authority;
mod configuration;
mod redis;
mod servers;
mod traefik;

pub use self::{
    authority::Authority,
    configuration::Places,
    redis::Redis,
    servers::{Servers, Told},
    traefik::{Ports, Traefik, program},
};
