//! The address of a PostgreSQL server: a URL, and what it says of TLS.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;
use url::{Url, form_urlencoded};

use crate::store::Refusal;

/// How long a connection may take; a server that is there answers within milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// When a silent connection is asked whether it still lives, so that a half-open one is noticed.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Where a PostgreSQL server is and how to talk to it.
#[derive(Clone)]
pub struct Address {
    pub(super) config: tokio_postgres::Config,
    pub(super) tls: MakeRustlsConnect,
}

impl fmt::Debug for Address {
    /// Shows hosts and database, never the password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Address")
            .field("hosts", &self.config.get_hosts())
            .field("database", &self.config.get_dbname())
            .finish_non_exhaustive()
    }
}

impl Address {
    /// Reads a URL `postgres://user@host:port/database`, with the driver's own options in its query.
    ///
    /// | `sslmode` | to this machine | elsewhere |
    /// | --- | --- | --- |
    /// | left out | no TLS | TLS, certificate and name verified |
    /// | `disable` | no TLS | no TLS |
    /// | `require`, `verify-ca`, `verify-full` | TLS, verified | TLS, verified |
    /// | `allow`, `prefer` | refused: the password could cross the network unencrypted | refused |
    ///
    /// `sslrootcert` names a PEM file of roots to trust instead of the system's.
    ///
    /// # Errors
    /// When it is no such URL, or its roots cannot be read. The error never holds the URL.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        unmistakable(text)?;
        let mut url = Url::parse(text).map_err(|error| refused(&error.to_string(), SHAPE))?;
        let asked = Tls::take_from(&mut url)?;
        let mut config: tokio_postgres::Config =
            url.as_str().parse().map_err(|_| refused("the driver does not understand it", SHAPE))?;
        let encrypt = asked.encrypt.unwrap_or_else(|| !config.get_hosts().iter().all(is_this_machine));
        config
            .application_name("windfall-sink")
            .connect_timeout(CONNECT_TIMEOUT)
            .keepalives_idle(KEEPALIVE)
            .tcp_user_timeout(KEEPALIVE * 2)
            .ssl_mode(if encrypt { SslMode::Require } else { SslMode::Disable });
        let roots = if encrypt { asked.roots()? } else { RootCertStore::empty() };
        Ok(Self { config, tls: MakeRustlsConnect::new(client_config(roots)?) })
    }
}

const SHAPE: &str = "write it as `postgres://user@host:5432/database`";
const ENCODE: &str = "write these signs of the password, and `%` itself, as a percent sign and two hex digits: `/` %2F, `?` %3F, `#` %23, `@` %40, `%` %25";

fn refused(reason: &str, help: &str) -> Refusal {
    Refusal::Address { reason: reason.to_owned(), help: help.to_owned() }
}

/// Refuses what the parsers would take apart in another way than it was meant, above all a password with signs in it.
fn unmistakable(text: &str) -> Result<(), Refusal> {
    let Some(("postgres" | "postgresql", rest)) = text.split_once("://") else {
        return Err(refused("it does not begin with `postgres://`", SHAPE));
    };
    let (authority, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let path = behind.split('?').next().unwrap_or_default();
    if path.contains(['@', '#']) || (user.is_empty() && behind.contains('@')) {
        return Err(refused("its user or password holds a `/`, `?` or `#` that is not encoded", ENCODE));
    }
    let encoded = |piece: &str| piece.len() >= 2 && piece.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    if user.contains('@') || !user.split('%').skip(1).all(encoded) {
        return Err(refused("its user or password holds a `@` or `%` that is not encoded", ENCODE));
    }
    match hosts {
        "" if !behind.contains("host=") => Err(refused("it names no host", SHAPE)),
        _ if hosts.contains(',') => Err(refused(
            "it names more than one host",
            "write one host, or a name or proxy that always leads to the primary",
        )),
        _ => Ok(()),
    }
}

fn is_this_machine(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        Host::Unix(_) => true,
    }
}

/// What the URL's query says of TLS.
struct Tls {
    encrypt: Option<bool>,
    root_file: Option<PathBuf>,
}

impl Tls {
    /// Takes `sslmode` and `sslrootcert` out of the query, which the driver would refuse.
    fn take_from(url: &mut Url) -> Result<Self, Refusal> {
        let mut tls = Self { encrypt: None, root_file: None };
        let mut others = form_urlencoded::Serializer::new(String::new());
        // In a database URL, unlike in a form, a plus sign is a plus sign and a space is `%20`.
        let query = url.query().unwrap_or_default().replace('+', "%2B");
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match (name.as_ref(), value.as_ref()) {
                ("sslmode", "disable") => tls.encrypt = Some(false),
                ("sslmode", "require" | "verify-ca" | "verify-full") => tls.encrypt = Some(true),
                ("sslmode", _) => {
                    return Err(refused(
                        "its `sslmode` may send the password in the clear",
                        "write `verify-full` or `disable`",
                    ));
                }
                ("sslrootcert", path) => tls.root_file = Some(PathBuf::from(path)),
                _ => {
                    others.append_pair(&name, &value);
                }
            }
        }
        let others = others.finish().replace('+', "%20");
        url.set_query(Some(others.as_str()).filter(|others| !others.is_empty()));
        Ok(tls)
    }

    fn roots(&self) -> Result<RootCertStore, Refusal> {
        let mut store = RootCertStore::empty();
        let Some(path) = &self.root_file else {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return Ok(store);
        };
        let unreadable = |error: &dyn fmt::Display| {
            let help = "name a PEM file of certificates, each between `-----BEGIN CERTIFICATE-----` and its end";
            refused(&format!("`sslrootcert` {} cannot be used: {error}", path.display()), help)
        };
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))? {
            let certificate = certificate.map_err(|error| unreadable(&error))?;
            store.add(certificate).map_err(|error| unreadable(&error))?;
        }
        if store.is_empty() {
            return Err(unreadable(&"it holds no certificate"));
        }
        Ok(store)
    }
}

fn client_config(roots: RootCertStore) -> Result<ClientConfig, Refusal> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(&error.to_string(), "report this: the TLS library offers no version"))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use windfall_runtime::diagnose::Diagnose as _;

    use super::*;

    fn mode(url: &str) -> SslMode {
        Address::parse(url).unwrap().config.get_ssl_mode()
    }

    #[test]
    fn another_machine_is_spoken_to_under_tls_alone_unless_told_otherwise() {
        assert_eq!(mode("postgres://u@db.example.com/fleet"), SslMode::Require);
        assert_eq!(mode("postgres://u@db.example.com/fleet?sslmode=verify-full"), SslMode::Require);
        assert_eq!(mode("postgres://u@db.example.com/fleet?sslmode=disable"), SslMode::Disable);
        assert_eq!(mode("postgres://u@127.0.0.1:5433/fleet"), SslMode::Disable);
        assert_eq!(mode("postgres://u@127.0.0.1:5433/fleet?sslmode=require"), SslMode::Require);
        assert!(Address::parse("postgres://u@db.example.com/fleet?sslmode=prefer").is_err());
    }

    #[test]
    fn an_address_that_cannot_be_read_is_refused_without_being_repeated() {
        for url in ["mysql://u:canary@h/d", "postgres://u:canary@h/d?sslrootcert=/none&sslmode=require", "canary"] {
            let error = Address::parse(url).unwrap_err();
            assert!(!format!("{error} {error:?} {:?}", error.help()).contains("canary"), "{error}");
        }
        let address = Address::parse("postgres://u:canary@h/d?sslmode=disable&keepalives=1").unwrap();
        assert!(!format!("{address:?}").contains("canary"));
    }

    #[test]
    fn a_password_with_signs_in_it_is_named_as_that_and_not_taken_for_host_or_database() {
        for sign in ["12/34", "12?34", "12#34", "12@34", "12%34z%zz", "1@2/3", "1/2@3", "%-"] {
            let error = Address::parse(&format!("postgres://app:{sign}canary@db/fleet")).unwrap_err();
            assert!(error.to_string().contains("not encoded"), "{sign}: {error}");
            assert!(error.help().unwrap().contains("%2F"), "{error:?}");
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        }
        let address = Address::parse("postgres://app:1%2F2%3F3%234%405%25@db/fleet").unwrap();
        assert_eq!(address.config.get_password(), Some("1/2?3#4@5%".as_bytes()));
        assert!(Address::parse("postgres://app@db/fleet?application_name=a@b").is_ok());
    }

    #[test]
    fn one_host_is_named_no_more_and_no_less() {
        for (url, why) in [
            ("postgres://u@a:1,b:2/fleet", "more than one host"),
            ("postgres://u@a,b/fleet", "more than one host"),
            ("postgres:///fleet", "no host"),
        ] {
            let error = Address::parse(url).unwrap_err();
            assert!(error.to_string().contains(why), "{url}: {error}");
        }
    }

    #[test]
    fn options_are_handed_on_as_they_were_written() {
        let options = |url: &str| Address::parse(url).unwrap().config.get_options().map(str::to_owned);
        let url = "postgres://u@127.0.0.1/fleet?options=-c%20role%3Downer+1&sslmode=disable";
        assert_eq!(options(url).as_deref(), Some("-c role=owner+1"));
    }

    #[test]
    fn a_file_of_roots_that_holds_no_certificate_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roots+1.pem");
        std::fs::write(&path, "# the roots come here\n").unwrap();
        let url = format!("postgres://u@db/fleet?sslrootcert={}", path.display());
        let error = Address::parse(&url).unwrap_err();
        assert!(error.to_string().contains("roots+1.pem cannot be used: it holds no certificate"), "{error}");
    }
}
