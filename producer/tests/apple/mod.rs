//! Apple's edge: keys, tokens, requests and answers, against a server that says what each test tells it to, and
//! against the simulator.

mod answers;
mod clock;
mod configuration;
mod keys;
mod requests;
mod server;
mod silence;
mod simulated;
mod tls;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use url::Url;
use uuid::Uuid;
use windfall_producer::apple::auth::Account;
use windfall_producer::apple::client::{AppleDirectory, Options};
use windfall_producer::apple::key::SigningKey;
use windfall_producer::budget::{Limit, LimiterState};

use clock::PatientClock;
use server::Server;

pub(crate) const KEY: &str = include_str!("../keys/pkcs8.pem");

/// Describes an organization that is served at `url`.
fn options(url: &str) -> Options {
    Options {
        org: "acme".to_owned(),
        api_url: Url::parse(url).unwrap(),
        account: Account {
            client_id: "BUSINESSAPI.canary".to_owned(),
            key_id: Some("key-1".to_owned()),
            scope: "business.api",
            token_url: Url::parse(url).unwrap().join("/auth/oauth2/token").unwrap(),
        },
        key: SigningKey::from_pem(KEY).unwrap(),
        limit: Limit { requests: 20, per: Duration::from_secs(60), share: 1.0 },
        page_size: 1000,
        state: LimiterState::default(),
        deadline: Duration::from_secs(20),
    }
}

fn directory_with(options: Options, clock: &Arc<PatientClock>) -> AppleDirectory {
    AppleDirectory::take_over(options, Arc::clone(clock) as _, Box::new(|| Uuid::from_u128(7))).unwrap()
}

/// An organization that is served by `server`, on a clock that never makes anybody wait.
fn directory(server: &Server) -> (AppleDirectory, Arc<PatientClock>) {
    let clock = PatientClock::new();
    (directory_with(options(&server.url()), &clock), clock)
}
