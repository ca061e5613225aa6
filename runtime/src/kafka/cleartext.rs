//! Which secrets the settings would send over the network in cleartext.

use super::config::{KafkaConfig, SchemaRegistryConfig};
use crate::http::route::loopback_host;

/// Mechanisms of SASL that hand the secret itself to whoever listens.
const OPEN_MECHANISMS: [&str; 2] = ["PLAIN", "OAUTHBEARER"];

impl KafkaConfig {
    /// Returns whether all brokers named are on this machine, where replication below 3 is nothing to warn about.
    pub fn loopback(&self) -> bool {
        self.bootstrap_servers.iter().all(|server| {
            let host = server.rsplit_once(':').map_or(server.as_str(), |(host, _)| host);
            loopback_host(host)
        })
    }

    /// Returns what can stand and should not, a sentence each; asks nothing of the network.
    pub fn warnings(&self) -> Vec<String> {
        if self.loopback() {
            return Vec::new();
        }
        let mut warnings = Vec::new();
        if self.replication_factor < 3 {
            warnings.push(format!(
                "`kafka.replication_factor` is {}: the loss of one broker may lose changes that were already read; 3 is safe",
                self.replication_factor
            ));
        }
        if let Some(mechanism) = self.open_mechanism() {
            warnings.push(format!(
                "`kafka.properties.security.protocol` is `sasl_plaintext`: with `{mechanism}` the secret crosses the network for all \
                 to read; `sasl_ssl` hides it"
            ));
        }
        warnings
    }

    /// Returns the mechanism by which a secret would be sent without TLS.
    fn open_mechanism(&self) -> Option<&'static str> {
        let property = |name: &str| self.properties.get(name).map(|value| value.expose().trim());
        let cleartext = property("security.protocol")?.eq_ignore_ascii_case("sasl_plaintext");
        let chosen = property("sasl.mechanism").or_else(|| property("sasl.mechanisms"))?;
        OPEN_MECHANISMS.into_iter().find(|open| cleartext && open.eq_ignore_ascii_case(chosen))
    }
}

impl SchemaRegistryConfig {
    /// Returns the first address to which user name and password would go without TLS.
    pub(crate) fn open_address(&self) -> Option<String> {
        if self.username.is_none() && self.password.is_none() {
            return None;
        }
        let open = |url: &String| {
            url::Url::parse(url).is_ok_and(|url| url.scheme() == "http" && !url.host_str().is_some_and(loopback_host))
        };
        self.urls().into_iter().find(open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{Secret, TextOrSecret};

    fn kafka(servers: &str, properties: &[(&str, &str)]) -> KafkaConfig {
        let text = |value: &str| TextOrSecret::Text(value.to_owned());
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect();
        KafkaConfig { properties, ..KafkaConfig::new(servers, SchemaRegistryConfig::embedded(None)) }
    }

    #[test]
    fn loopback_is_told_from_the_network() {
        for here in ["127.0.0.1:9092", "localhost:9092", "LOCALHOST:9092", "[::1]:9092", "127.9.9.9:1,[::1]:2"] {
            assert!(kafka(here, &[]).loopback(), "{here}");
        }
        for there in ["127.0.0.1:9092,kafka:9092", "127.example.org:9092", "localhost.example.org:1", "[::2]:9092"] {
            assert!(!kafka(there, &[]).loopback(), "{there}");
        }
    }

    #[test]
    fn a_secret_that_kafkas_client_would_send_for_all_to_read_is_a_warning() {
        let cases = [
            ("kafka:9092", "SASL_PLAINTEXT", "sasl.mechanism", "PLAIN", 1),
            ("kafka:9092", "sasl_plaintext", "sasl.mechanisms", "OAUTHBEARER", 1),
            ("kafka:9092", "sasl_plaintext", "sasl.mechanism", "SCRAM-SHA-512", 0),
            ("kafka:9092", "sasl_ssl", "sasl.mechanism", "PLAIN", 0),
            ("127.0.0.1:9092", "sasl_plaintext", "sasl.mechanism", "PLAIN", 0),
        ];
        for (servers, protocol, name, mechanism, warnings) in cases {
            let config = kafka(servers, &[("security.protocol", protocol), (name, mechanism)]);
            let said = config.warnings();
            assert_eq!(said.len(), warnings, "{servers} {protocol} {mechanism}: {said:?}");
            assert!(said.iter().all(|said| said.contains(mechanism) && said.contains("`sasl_ssl`")), "{said:?}");
        }
    }

    #[test]
    fn few_copies_are_a_warning_on_a_network_only() {
        let with = |servers| KafkaConfig { replication_factor: 2, ..kafka(servers, &[]) };
        assert_eq!(with("127.0.0.1:9092").warnings(), [""; 0]);
        assert_eq!(with("kafka:9092").warnings().len(), 1);
    }

    #[test]
    fn a_registrys_password_goes_without_tls_to_this_machine_alone() {
        let open = |url: &str| {
            let secret = (Some("u".to_owned()), Some(Secret::new("p")));
            let config =
                SchemaRegistryConfig { username: secret.0, password: secret.1, ..SchemaRegistryConfig::at(url) };
            config.open_address()
        };
        assert_eq!(open("http://registry:8081").as_deref(), Some("http://registry:8081"));
        assert_eq!(open("https://a:8081, HTTP://b:8081/x").as_deref(), Some("HTTP://b:8081/x"));
        assert_eq!(open("http://127.0.0.1.example.org").as_deref(), Some("http://127.0.0.1.example.org"));
        for safe in ["https://registry", "http://127.0.0.1:8081", "http://localhost:8081", "http://[::1]:8081"] {
            assert_eq!(open(safe), None, "{safe}");
        }
        assert_eq!(SchemaRegistryConfig::at("http://registry:8081").open_address(), None, "nothing secret is sent");
    }
}
