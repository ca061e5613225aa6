//! A client of the simulated API, and a simulator whose two times stand still.

use base64::Engine;
use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use windfall_simulator::{Credentials, Handle, JournalMode, ManualClock, Running, Simulator};

pub(crate) const AUDIENCE: &str = "https://account.apple.com/auth/oauth2/v2/token";

/// The moment at which every test begins.
pub(crate) fn begin() -> DateTime<Utc> {
    "2026-11-21T09:00:00Z".parse().unwrap()
}

/// A simulator, its clocks and a client with a token.
pub(crate) struct Bench {
    pub(crate) running: Running,
    pub(crate) life: ManualClock,
    pub(crate) wall: ManualClock,
    pub(crate) http: reqwest::Client,
    pub(crate) token: String,
}

/// A simulator whose journal lies in memory, without a limit, where nothing happens by itself.
pub(crate) fn quiet() -> Simulator {
    Simulator::builder().devices(50).servers(3).still().rate_limit(None).journal(JournalMode::Memory)
}

impl Bench {
    pub(crate) async fn start(builder: Simulator) -> Self {
        let (life, wall) = (ManualClock::new(begin()), ManualClock::new(begin()));
        let builder = builder.life_clock(life.source()).wall_clock(wall.source());
        let running = builder.start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut bench = Self { running, life, wall, http, token: String::new() };
        bench.renew().await;
        bench
    }

    pub(crate) fn account(&self) -> &Credentials {
        &self.running.credentials()[0]
    }

    pub(crate) fn handle(&self) -> Handle {
        self.running.handle()
    }

    /// Gets a new token for the first organization.
    pub(crate) async fn renew(&mut self) {
        let account = self.account().clone();
        self.token = self.token_of(&account).await;
    }

    pub(crate) async fn token_of(&self, account: &Credentials) -> String {
        let form = form(account, &assertion(account, &claims(account, self.wall.now())));
        let (status, body) = self.ask_token(&form).await;
        assert_eq!(status, 200, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn ask_token(&self, form: &[(String, String)]) -> (u16, Value) {
        let response = self.http.post(self.running.token_url()).form(form).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    pub(crate) async fn send(&self, path: &str) -> reqwest::Result<reqwest::Response> {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.running.url()) };
        self.http.get(url).bearer_auth(&self.token).send().await
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.send(path).await.unwrap();
        let status = response.status().as_u16();
        let body = response.bytes().await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body))))
    }

    /// Gets what must be there.
    pub(crate) async fn found(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Follows `links.next` from `path` on and returns the pages.
    pub(crate) async fn pages(&self, path: &str) -> Vec<Value> {
        let mut pages = vec![self.found(path).await];
        while let Some(next) = pages.last().and_then(|page| page["links"]["next"].as_str()).map(str::to_owned) {
            pages.push(self.found(&next).await);
        }
        pages
    }

    /// Returns the ids in the pages of a list.
    pub(crate) async fn ids(&self, path: &str) -> Vec<String> {
        self.pages(path).await.iter().flat_map(ids).collect()
    }

    /// Returns the id of a server by its name.
    pub(crate) async fn server(&self, name: &str) -> String {
        let servers = self.found("/v1/mdmServers").await;
        let found = servers["data"].as_array().unwrap().iter().find(|one| one["attributes"]["serverName"] == name);
        found.unwrap()["id"].as_str().unwrap().to_owned()
    }
}

/// Returns the ids of one page.
pub(crate) fn ids(page: &Value) -> Vec<String> {
    page["data"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap_or("").to_owned()).collect()
}

/// Claims that the token endpoint takes.
pub(crate) fn claims(account: &Credentials, now: DateTime<Utc>) -> Value {
    json!({
        "iss": account.client_id, "sub": account.client_id, "aud": AUDIENCE,
        "iat": now.timestamp(), "exp": now.timestamp() + 1200, "jti": "00000000-0000-4000-8000-0000000000d1",
    })
}

/// Signs claims with the account's key, by the library that clients use.
pub(crate) fn assertion(account: &Credentials, claims: &Value) -> String {
    signed(Some(&account.key_id), &account.private_key_pem, claims)
}

pub(crate) fn signed(kid: Option<&str>, pem: &str, claims: &Value) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::ES256) };
    let lines: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(lines).unwrap();
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_ec_der(&der)).unwrap()
}

/// A token request.
pub(crate) fn form(account: &Credentials, assertion: &str) -> Vec<(String, String)> {
    [
        ("grant_type", "client_credentials"),
        ("client_id", account.client_id.as_str()),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion),
        ("scope", account.scope.as_str()),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}
