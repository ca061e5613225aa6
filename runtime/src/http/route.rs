//! How requests get to a host: directly, or through the proxy that the environment names. One rule for Apple's API and for
//! schema registries.
//!
//! | where the request goes | way |
//! | --- | --- |
//! | this machine | directly: a proxy elsewhere would ask itself, and would see what is sent |
//! | a host that `NO_PROXY` names | directly |
//! | another host by plain http, with credentials | directly: a proxy would see the credentials |
//! | another host by https | `HTTPS_PROXY`, else `ALL_PROXY`; the proxy carries TLS that it cannot open |
//! | another host by plain http | `HTTP_PROXY`, else `ALL_PROXY` |
//!
//! Each variable may also be written in lower case. A proxy speaks http, https, socks4, socks4a, socks5 or socks5h.

use std::fmt;
use std::net::IpAddr;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{Client, ClientBuilder};
use url::Url;

use crate::diagnose::{Diagnose, Diagnosis, Kind};

/// Schemes of proxies that the client serves.
const SCHEMES: [&str; 6] = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];
const FOR_HTTP: [&str; 4] = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
const FOR_HTTPS: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
const FOR_NONE: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// A proxy, and the variable that names it. Shown without user name and password.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Proxy {
    variable: &'static str,
    url: Url,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { variable, url } = self;
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or(1080);
        write!(f, "the proxy `{}://{host}:{port}` of the variable `{variable}`", url.scheme())
    }
}

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// A variable names something that is no proxy we can use.
    #[error("the environment variable `{variable}` {why}")]
    Proxy {
        /// The variable.
        variable: &'static str,
        /// What is wrong with it; its value may hold a password and is not shown.
        why: String,
    },
    /// TLS cannot be set up, for instance without any root certificate on this machine.
    #[error("no HTTP client can be made")]
    Client(#[source] reqwest::Error),
}

impl Diagnose for RouteError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Proxy { .. } => Kind::Configuration.help(
                "write the proxy as `http://host:port` or `socks5h://host:port`, or name the host in `NO_PROXY` to reach it directly",
            ),
            Self::Client(_) => Kind::Refused.help(
                "install the system's root certificates (package `ca-certificates`), or name them in `SSL_CERT_FILE`",
            ),
        }
    }
}

/// A request that brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It was sent directly.
    #[error(transparent)]
    Direct(reqwest::Error),
    /// It was sent through a proxy.
    #[error("the request went through {proxy}")]
    Proxied {
        /// The proxy and its variable.
        proxy: String,
        /// What happened.
        source: reqwest::Error,
    },
}

impl RequestError {
    /// Returns what the client says.
    pub fn client(&self) -> &reqwest::Error {
        match self {
            Self::Direct(source) | Self::Proxied { source, .. } => source,
        }
    }
}

/// The way to one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route(Option<Proxy>);

impl Route {
    /// Finds the way to the host of `url` in this process's environment. `credentials` says whether requests will carry any.
    ///
    /// # Errors
    /// [`RouteError::Proxy`] when the variable that counts names no proxy we can use.
    pub fn to(url: &Url, credentials: bool) -> Result<Self, RouteError> {
        Self::by(url, credentials, |name| std::env::var(name).ok())
    }

    fn by(url: &Url, credentials: bool, variable: impl Fn(&str) -> Option<String>) -> Result<Self, RouteError> {
        let set = |names: &[&'static str]| {
            names.iter().find_map(|name| Some((*name, variable(name).filter(|value| !value.trim().is_empty())?)))
        };
        let plain = url.scheme() == "http";
        if loopback(url) || (plain && credentials) {
            return Ok(Self::default());
        }
        let Some((name, value)) = set(if plain { &FOR_HTTP } else { &FOR_HTTPS }) else { return Ok(Self::default()) };
        let exceptions = set(&FOR_NONE).map(|(_, value)| value).unwrap_or_default();
        let matcher = Matcher::builder().all("http://proxy".to_owned()).no(exceptions).build();
        if url.as_str().parse().is_ok_and(|uri| matcher.intercept(&uri).is_none()) {
            return Ok(Self::default());
        }
        proxy(name, value.trim()).map(|proxy| Self(Some(proxy)))
    }

    /// Makes a client whose requests take this way.
    ///
    /// # Errors
    /// [`RouteError::Client`].
    pub fn client(&self, builder: ClientBuilder) -> Result<Client, RouteError> {
        let builder = builder.no_proxy();
        let builder = match &self.0 {
            Some(proxy) => builder.proxy(reqwest::Proxy::all(proxy.url.as_str()).map_err(RouteError::Client)?),
            None => builder,
        };
        builder.build().map_err(RouteError::Client)
    }

    /// Says which way a request went that failed; the URL, which may name a device, is left out.
    #[must_use]
    pub fn failed(&self, source: reqwest::Error) -> RequestError {
        let source = source.without_url();
        match &self.0 {
            Some(proxy) => RequestError::Proxied { proxy: proxy.to_string(), source },
            None => RequestError::Direct(source),
        }
    }
}

fn proxy(variable: &'static str, value: &str) -> Result<Proxy, RouteError> {
    let refused = |why: String| RouteError::Proxy { variable, why };
    let full = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    let url = Url::parse(&full).map_err(|error| refused(format!("is no URL of a proxy: {error}")))?;
    if !SCHEMES.contains(&url.scheme()) {
        return Err(refused(format!("names a proxy by `{}://`, which is not served", url.scheme())));
    }
    if url.host_str().unwrap_or_default().is_empty() {
        return Err(refused("names a proxy without a host".to_owned()));
    }
    Ok(Proxy { variable, url })
}

/// Returns whether a URL's host is this machine.
pub fn loopback(url: &Url) -> bool {
    url.host_str().is_some_and(loopback_host)
}

/// Returns whether a host's name is this machine; an IPv6 address may stand in brackets.
pub(crate) fn loopback_host(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXIES: [(&str, &str); 3] = [
        ("HTTP_PROXY", "http://user:hunter2@plain.example:3128"),
        ("HTTPS_PROXY", "http://tls.example:3128"),
        ("NO_PROXY", "direct.example, 10.0.0.0/8"),
    ];

    fn way(url: &str, credentials: bool, variables: &[(&str, &str)]) -> Result<Option<String>, RouteError> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Route::by(&Url::parse(url).unwrap(), credentials, variable).map(|route| route.0.map(|proxy| proxy.to_string()))
    }

    #[test]
    fn this_machine_is_reached_directly_whatever_the_environment_says() {
        let all = [("ALL_PROXY", "http://proxy.example:3128"), ("HTTP_PROXY", "http://proxy.example:3128")];
        for url in ["http://127.0.0.1:8081", "http://localhost:8081", "http://[::1]:8081", "https://127.8.8.8"] {
            assert_eq!(way(url, true, &all).unwrap(), None, "{url}");
        }
    }

    #[test]
    fn each_scheme_has_its_variable_and_no_password_of_a_proxy_is_shown() {
        let shown = way("http://registry.example", false, &PROXIES).unwrap().unwrap();
        assert_eq!(shown, "the proxy `http://plain.example:3128` of the variable `HTTP_PROXY`");
        let shown = way("https://registry.example", true, &PROXIES).unwrap().unwrap();
        assert_eq!(shown, "the proxy `http://tls.example:3128` of the variable `HTTPS_PROXY`");
        let shown = way("https://registry.example", true, &[("all_proxy", "proxy.example")]).unwrap().unwrap();
        assert_eq!(shown, "the proxy `http://proxy.example:80` of the variable `all_proxy`");
        assert_eq!(way("https://registry.example", true, &[("HTTPS_PROXY", " ")]).unwrap(), None, "blank is unset");
    }

    #[test]
    fn credentials_in_clear_and_hosts_that_are_excepted_meet_no_proxy() {
        assert_eq!(way("http://registry.example", true, &PROXIES).unwrap(), None);
        for url in ["https://direct.example", "https://a.direct.example", "https://10.1.2.3"] {
            assert_eq!(way(url, false, &PROXIES).unwrap(), None, "{url}");
        }
    }

    #[test]
    fn socks_is_served_and_what_is_not_served_is_refused_by_the_variables_name() {
        let shown = way("https://a.example", false, &[("ALL_PROXY", "socks5h://127.0.0.1")]).unwrap().unwrap();
        assert_eq!(shown, "the proxy `socks5h://127.0.0.1:1080` of the variable `ALL_PROXY`");
        for value in ["ftp://u:hunter2@proxy", "http://", "http://u:hunter2@[proxy"] {
            let error = way("https://a.example", false, &[("https_proxy", value)]).unwrap_err();
            let told = error.told();
            assert!(told.contains("`https_proxy`") && !told.contains("hunter2"), "{told}");
        }
    }
}
