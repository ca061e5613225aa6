//! `compose.yaml` agrees with the binary, the example configuration and the rules of the house; it is not run here.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value as Json;

use crate::PROGRAM;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn read(file: &str) -> Json {
    let text = std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn services() -> BTreeMap<String, Json> {
    let compose = read("compose.yaml");
    compose["services"]
        .as_object()
        .expect("services")
        .iter()
        .map(|(name, service)| (name.clone(), service.clone()))
        .collect()
}

fn texts(list: &Json) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Json::as_str).collect()
}

#[test]
fn every_image_is_pinned_no_service_runs_as_root_and_all_have_a_health_check() {
    for (name, service) in services() {
        let image = service["image"].as_str().expect("an image");
        let tag = image.rsplit_once(':').unwrap_or_else(|| panic!("{name}: {image} has no tag")).1;
        assert!(tag.starts_with(|c: char| c.is_ascii_digit()) && tag.contains('.'), "{name}: {image} is not pinned");
        let user = service["user"].as_str().unwrap_or_else(|| panic!("{name} has no user"));
        assert!(!user.starts_with('0') && user != "root", "{name} runs as {user}");
        assert!(service["healthcheck"]["test"].is_array(), "{name} has no health check");
    }
}

#[test]
fn every_port_is_published_on_loopback_only() {
    for (name, service) in services() {
        for port in texts(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name} publishes {port} to the network");
        }
    }
}

#[test]
fn the_commands_are_understood_by_the_binary() {
    let mut checked = 0;
    for (name, service) in services() {
        let health = texts(&service["healthcheck"]["test"]);
        let health = health.strip_prefix(&["CMD", "windfall"]).unwrap_or_default();
        for arguments in
            [texts(&service["command"]).as_slice(), health].into_iter().filter(|arguments| !arguments.is_empty())
        {
            // Help is answered only when everything before it was understood.
            let output = Command::new(PROGRAM).args(arguments).arg("--help").output().expect("the binary runs");
            assert!(output.status.success(), "{name}: {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            checked += 1;
        }
    }
    assert!(checked >= 7, "only {checked} commands were found");
}

#[test]
fn addresses_and_credentials_agree_with_the_configuration() {
    let services = services();
    let configuration = read("examples/compose/windfall.yaml");
    let kafka = &services["kafka"]["environment"];
    let bootstrap = configuration["kafka"]["bootstrap_servers"][0].as_str().expect("a broker");
    assert!(kafka["KAFKA_ADVERTISED_LISTENERS"].as_str().expect("listeners").contains(&format!("://{bootstrap}")));
    assert_eq!(services["registry"]["environment"]["APICURIO_KAFKASQL_BOOTSTRAP_SERVERS"], bootstrap);
    let registry = configuration["kafka"]["schema_registry"]["url"].as_str().expect("a registry");
    assert!(registry.starts_with("http://registry:8080/"), "{registry}");
    assert!(texts(&services["registry"]["ports"]).contains(&"127.0.0.1:8081:8080"));
    let simulator = texts(&services["simulator"]["command"]);
    let listen = simulator[simulator.iter().position(|it| *it == "--listen").expect("--listen") + 1];
    let source = &configuration["sources"][0];
    assert_eq!(source["api_url"], format!("http://{listen}"));
    assert_eq!(source["token_url"], format!("http://{listen}/auth/oauth2/token"));
    assert_eq!(services["producer"]["network_mode"], "service:simulator", "plain http is for loopback alone");
    let postgres = &services["postgres"]["environment"];
    let url = format!(
        "postgresql://{}:{}@postgres:5432/{}",
        text(postgres, "POSTGRES_USER"),
        text(postgres, "POSTGRES_PASSWORD"),
        text(postgres, "POSTGRES_DB")
    );
    assert_eq!(services["sink"]["environment"]["DATABASE_URL"], url);
}

fn text<'a>(object: &'a Json, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_else(|| panic!("no {name}"))
}

/// The credentials in the examples are those that the simulator makes from the seed in its command, and the file is valid where its
/// secrets are.
#[test]
fn the_examples_are_valid_and_name_the_simulators_account() {
    let folder = tempfile::tempdir().expect("a folder");
    // The seed of the command.
    let credentials = windfall_simulator::Simulator::builder().seed(7).credentials();
    for (file, key, keys) in [
        ("examples/compose/windfall.yaml", "abm.pem", "path: /keys"),
        ("examples/local.yaml", "sim.pem", "path: ../secrets"),
    ] {
        let source = &read(file)["sources"][0];
        assert_eq!(source["client_id"], credentials[0].client_id.as_str(), "{file}");
        assert_eq!(source["key_id"], credentials[0].key_id.as_str(), "{file}");
        let secrets = folder.path().join("secrets");
        std::fs::create_dir_all(&secrets).expect("a folder");
        let path = secrets.join(key);
        std::fs::write(&path, &credentials[0].private_key_pem).expect("a key file");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("a mode");
        let text = std::fs::read_to_string(root().join(file)).expect("an example").replace(keys, "path: ./secrets");
        let copy = folder.path().join("windfall.yaml");
        std::fs::write(&copy, text).expect("a copy");
        let output = Command::new(PROGRAM)
            .args(["validate", "--config"])
            .arg(&copy)
            .env("DATABASE_URL", "postgresql://windfall:windfall@postgres:5432/windfall")
            .output()
            .expect("the binary runs");
        assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
