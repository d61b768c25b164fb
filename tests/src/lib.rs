//! End-to-end tests against real parts, and what they need: a whole Tidepool in a temporary directory,
//! a stub gateway for volume, a browser.

pub mod acceptance;
pub mod api;
pub mod bench;
pub mod browser;
pub mod chaos;
pub mod customer;
pub mod deployment;
pub mod docker;
pub mod doors;
pub mod evidence;
pub mod fake_hetzner;
pub mod fake_provider;
pub mod front;
pub mod inside;
pub mod programs;
pub mod rack;
pub mod release;
pub mod stub;
