//! What is said about a configuration that cannot stand.

use super::{Desk, repository};

const KAFKA: &str = "version: 1\nkafka:\n  bootstrap_servers: [\"127.0.0.1:9092\"]\n  schema_registry: { url: \"http://127.0.0.1:8081\" }\n";
/// Must never be seen again, wherever it is put.
const CANARY: &str = "canary-7f3a";

/// A key as Apple's portal gives it; made for tests, it opens nothing.
fn key() -> String {
    windfall_simulator::Simulator::builder().seed(7).credentials()[0].private_key_pem.clone()
}

fn source(extra: &str) -> String {
    format!(
        "{KAFKA}secrets: {{ files: {{ type: directory, path: ./secrets }} }}\nsources:\n  - name: acme\n    type: abm\n    \
         client_id: BUSINESSAPI.x\n    key_id: y\n    private_key: \"SECRET[files.abm.pem]\"\n{extra}"
    )
}

fn postgres(url: &str) -> String {
    format!("{KAFKA}sinks: [{{ name: a, type: postgres, url: \"{url}\", collection: devices }}]\n")
}

/// Another organization with the account of [`source`], its token endpoint written in another way.
const SECOND: &str = "  - name: globex\n    type: abm\n    client_id: BUSINESSAPI.x\n    key_id: z\n    \
     token_url: HTTPS://account.apple.com:443/auth/oauth2/token\n    private_key: \"SECRET[files.abm.pem]\"\n";

/// What is said about `config`, with the folder's name taken out.
fn refused(config: &str) -> String {
    let desk = Desk::with(config);
    desk.write("secrets/abm.pem", &key());
    let said = desk.run(&["validate"]).ended(78);
    assert_eq!(said.out(), "", "data alone goes to standard output");
    said.err()
}

#[test]
fn a_configuration_that_can_stand_is_valid() {
    let desk = Desk::with(&source("sinks: [{ name: assets, type: sqlite, path: assets.db, collection: devices }]\n"));
    desk.write("secrets/abm.pem", &key());
    let said = desk.run(&["validate", "-o", "json"]).ended(0);
    let answer: serde_json::Value = serde_json::from_str(&said.out()).unwrap();
    assert_eq!(answer["sources"], serde_json::json!(["acme"]));
    assert_eq!(answer["collections"], serde_json::json!(["devices"]));
    assert_eq!(answer["sinks"], serde_json::json!(["assets"]));
}

#[test]
fn each_fault_is_said_with_its_place_and_its_remedy() {
    let cases = [
        ("an unknown key", KAFKA.replace("bootstrap_servers", "bootstrap_server")),
        ("an unknown key of a source", source("    scan: { intervall: 1h }\n")),
        ("a missing part", "version: 1\n".to_owned()),
        ("another version", KAFKA.replace("version: 1", "version: 2")),
        ("a strange broker", KAFKA.replace("127.0.0.1:9092", "kafka")),
        ("a property that is ours", format!("{KAFKA}  properties: {{ acks: \"1\" }}\n")),
        ("a strange kind of source", source("").replace("type: abm", "type: amb")),
        ("a client id of the other portal", source("").replace("BUSINESSAPI.x", "SCHOOLAPI.x")),
        ("the host where people sign in", source("    token_url: https://appleid.apple.com/auth/oauth2/token\n")),
        ("the API of schools for a business", source("    api_url: https://api-school.apple.com\n")),
        (
            "a login without a mechanism, and in Java's words",
            format!("{KAFKA}  properties: {{ sasl.username: app, sasl.jaas.config: \"password={CANARY}\" }}\n"),
        ),
        ("two hosts", postgres("postgres://app@db1,db2/fleet")),
        ("plain http to the world", source("    api_url: http://apple.example\n")),
        ("two sources of one account", source(SECOND)),
        (
            "a registry's password for all to read",
            KAFKA.replace("127.0.0.1:8081\"", "registry:8081\", username: u, password: \"SECRET[files.abm.pem]\"")
                + "secrets: { files: { type: directory, path: ./secrets } }\n",
        ),
        ("an unknown backend", source("").replace("files.abm.pem", "vault.abm.pem")),
        ("a length of time without a unit", source("    scan: { interval: 3600 }\n")),
        ("a page too large", source("    scan: { page_size: 5000 }\n")),
        (
            "a sink of no collection",
            format!("{KAFKA}sinks: [{{ name: a, type: sqlite, path: a.db, collection: device }}]\n"),
        ),
        (
            "two sinks for one table",
            format!(
                "{KAFKA}sinks:\n  - {{ name: a, type: sqlite, path: a.db, collection: devices }}\n  - {{ name: b, type: sqlite, path: a.db, collection: devices }}\n"
            ),
        ),
        ("an address that is none", format!("{KAFKA}http: {{ listen: \"9644\" }}\n")),
        ("a variable that is not set", KAFKA.replace("127.0.0.1:9092", "${BROKER}")),
        ("no YAML", "version: [1\nkafka: x\n".to_owned()),
    ];
    let told: Vec<_> = cases.iter().map(|(name, config)| format!("# {name}\n{}", refused(config))).collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn faults_of_every_kind_in_every_file_are_told_in_one_go() {
    let config = source("    scan: { intervall: 1h, page_size: 5000 }\n  - { name: x, type: amb, client_id: y }\n")
        .replace("127.0.0.1:9092", "kafka")
        .replace("  bootstrap", "  compresion: zstd\n  bootstrap")
        + "http: { listen: \"9644\" }\ninstance: \"${NOBODY}\"\ncollections: [{ name: devices, mappings: [m.yaml] }]\n";
    let desk = Desk::with(&config);
    desk.write("secrets/abm.pem", &key());
    let shipped = std::fs::read_to_string(repository().join("transformer/defaults/abm-devices.yaml")).unwrap();
    desk.write("m.yaml", &shipped.replacen("  serial_number: serial_number", "  serial_numbr: serial_number", 1));
    let said = desk.run(&["validate"]).ended(78).err();
    let parts = [
        "`kafka.compresion`: the key `compresion` is not known",
        "`kafka.bootstrap_servers[0]`: must be `host:port`",
        "`sources[0].scan.intervall`: the key `intervall` is not known",
        "`sources[0].scan.page_size`: must",
        "`sources[1].type`: `amb` is not a value",
        "`http.listen`: must be `host:port`",
        "`instance`: the variable `NOBODY` is not set",
        "m.yaml:",
        "serial_numbr",
    ];
    for part in parts {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
    assert!(!said.contains("private_key"), "the second source cannot be judged: {said}");
}

#[test]
fn validation_needs_no_secret_and_looks_at_those_that_are_there() {
    let sink = "sinks: [{ name: a, type: postgres, url: \"SECRET[env.DATABASE_URL]\", collection: devices }]\n";
    let desk = Desk::with(&source(sink));
    let said = desk.run(&["validate"]).ended(0);
    assert!(said.out().contains("secrets not read"), "{}", said.out());
    assert!(said.out().contains("sources[0].private_key") && said.out().contains("sinks[0].url"), "{}", said.out());
    let said = desk.run(&["run", "producer", "--once"]).ended(78).err();
    assert!(said.contains("could not read the secret `./secrets/abm.pem`"), "{said}");
    desk.write("secrets/abm.pem", "no key");
    let said = desk.run(&["validate"]).ended(78).err();
    assert!(said.contains("`sources[0].private_key`: must be the API account's key"), "{said}");
}

#[test]
fn a_secret_that_a_platform_mounts_for_all_to_read_is_taken_by_word_alone_and_with_a_warning() {
    let desk = Desk::with(&source(""));
    desk.write("secrets/abm.pem", &key());
    desk.mode("secrets/abm.pem", 0o644);
    let said = desk.run(&["validate"]).ended(78).err();
    for knob in ["defaultMode", "Swarm", "Docker Desktop", "`allow_exposed: true` under `secrets.files`"] {
        assert!(said.contains(knob), "`{knob}` is missing in: {said}");
    }
    desk.write("windfall.yaml", &source("").replace("path: ./secrets", "path: ./secrets, allow_exposed: true"));
    desk.run(&["validate"]).ended(0);
    let said = desk.run(&["check", "producer"]);
    assert!(said.out().contains("warning: the secret `./secrets/abm.pem` may be read by every user"), "{}", said.out());
}

#[test]
fn a_password_with_signs_that_a_url_takes_apart_is_named_as_that() {
    let desk = Desk::with(&postgres("SECRET[env.DATABASE_URL]"));
    for password in ["12/34canary", "12#canary", "12?canary", "1@canary", "canary%zz"] {
        let url = format!("postgres://app:{password}@db/fleet");
        let output = desk.command(&["validate"]).env("DATABASE_URL", url).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{password}");
        assert!(said.contains("that is not encoded") && said.contains("%2F"), "{said}");
        assert!(!said.contains("canary"), "{said}");
    }
}

#[test]
fn a_line_end_that_came_with_a_value_is_named_and_the_value_is_not() {
    let config = source("").replace("BUSINESSAPI.x", "${CLIENT}");
    let desk = Desk::with(&config);
    desk.write("secrets/abm.pem", &key());
    let output = desk.command(&["validate"]).env("CLIENT", format!("BUSINESSAPI.{CANARY}\r")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("`sources[0].client_id`: the value begins or ends with a carriage return"), "{said}");
    assert!(!said.contains(CANARY), "{said}");
}

#[test]
fn one_client_id_at_two_token_endpoints_is_two_accounts() {
    let desk = Desk::with(&source(&SECOND.replace("HTTPS://account.apple.com:443", "http://127.0.0.1:9")));
    desk.write("secrets/abm.pem", &key());
    desk.run(&["validate"]).ended(0);
}

#[test]
fn a_mapping_to_a_missing_field_is_said_with_its_place_and_the_nearest_name() {
    let desk = Desk::with(&format!("{KAFKA}collections: [{{ name: devices, mappings: [m.yaml] }}]\n"));
    let shipped = std::fs::read_to_string(repository().join("transformer/defaults/abm-devices.yaml")).unwrap();
    let broken = shipped.replacen("  serial_number: serial_number", "  serial_numbr: serial_number", 1);
    assert_ne!(shipped, broken);
    desk.write("m.yaml", &broken);
    let said = desk.run(&["validate"]).ended(78);
    assert!(
        said.err().starts_with("error: the configuration `windfall.yaml` cannot be used\n  m.yaml:"),
        "{}",
        said.err()
    );
    assert!(said.err().contains("serial_numbr"), "{}", said.err());
    assert!(said.err().contains("serial_number"), "the nearest name: {}", said.err());
}

#[test]
fn no_secret_is_ever_repeated() {
    let inline = source("").replace("SECRET[files.abm.pem]", CANARY);
    let cases = [
        inline,
        source(&format!("    scan: {CANARY}\n")),
        format!("{KAFKA}  properties: {{ sasl.password: \"SECRET[env.PASSWORD]\", acks: all }}\n"),
        format!(
            "{KAFKA}sinks: [{{ name: a, type: postgres, url: \"postgres://u:{CANARY}@h/d\", collection: devices }}]\n"
        ),
        format!("{KAFKA}sinks: [{{ name: a, type: \"SECRET[env.PASSWORD]\", path: a.db, collection: devices }}]\n"),
        format!("{KAFKA}http: {{ listen: \"SECRET[env.PASSWORD]\" }}\n"),
        source("").replace("files.abm.pem", "files.broken.pem"),
        source("").replace("client_id: BUSINESSAPI.x", "client_id: \"SECRET[env.PASSWORD]\""),
    ];
    for config in cases {
        let desk = Desk::with(&config);
        desk.write("secrets/abm.pem", &key());
        desk.write(
            "secrets/broken.pem",
            &format!("-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n"),
        );
        for extra in [&[] as &[&str], &["-vv"], &["--log-format", "json"]] {
            let output = desk.command(&["validate"]).args(extra).env("PASSWORD", CANARY).output().unwrap();
            assert_eq!(output.status.code(), Some(78), "{config}");
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(!said.contains(CANARY), "{config}\n{said}");
        }
    }
}

#[test]
fn only_named_variables_are_read() {
    let desk = Desk::new();
    desk.write("other/mine.yaml", KAFKA);
    let output = desk.command(&["validate"]).env("WINDFALL_CONFIG", "other/mine.yaml").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "WINDFALL_CONFIG names the file");
    let output = desk
        .command(&["validate", "-c", "other/mine.yaml", "-o", "json"])
        .env("WINDFALL_INSTANCE", "from-environment")
        .env("KAFKA_BOOTSTRAP_SERVERS", "nonsense")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(!String::from_utf8_lossy(&output.stdout).contains("from-environment"));
}

/// The first block of YAML in each page is a whole configuration.
#[test]
fn the_configurations_of_the_pages_are_valid() {
    for page in ["docs/production.md", "docs/first-organization.md"] {
        let text = std::fs::read_to_string(repository().join(page)).unwrap();
        let (_, rest) = text.split_once("```yaml\n# windfall.yaml\n").unwrap();
        let (config, _) = rest.split_once("```").unwrap();
        let desk = Desk::with(&config.replace('…', "00000000-0000-0000-0000-000000000000"));
        desk.run(&["validate"]).ended(0);
    }
}

/// The page's project stands in blocks that begin with the name of their file.
#[test]
fn the_example_of_the_page_about_mappings_is_valid_and_its_tests_are_run() {
    let text = std::fs::read_to_string(repository().join("docs/mapping.md")).unwrap();
    let desk = Desk::new();
    for block in text.split("```").filter(|block| block.starts_with("yaml\n# ") || block.starts_with("csv\n# ")) {
        let (_, rest) = block.split_once("# ").unwrap();
        let (name, content) = rest.split_once('\n').unwrap();
        desk.write(name, content);
    }
    desk.run(&["validate"]).ended(0);
    let mapping = std::fs::read_to_string(desk.path().join("mappings/abm-fleet.yaml")).unwrap();
    desk.write("mappings/abm-fleet.yaml", &mapping.replace("supplier: Insight", "supplier: CDW"));
    let said = desk.run(&["validate"]).ended(1).err();
    assert!(said.contains("a Mac from a known supplier") && said.contains("`CDW`"), "{said}");
}
