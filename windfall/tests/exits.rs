//! How the command ends: each exit code in a real situation, with what is said beside it.
//!
//! 0 and 8 stand in `pipeline`, 2 in `usage`, 78 in `config`, 130 in `shutdown`.

use windfall_services::{Kafka, KafkaOptions};

use super::pipeline::{config, simulator_with};
use super::{Desk, Said};

/// A simulated organization that plays `faults`, and a configuration that connects to it.
fn organization(faults: &str) -> (Desk, super::pipeline::Running) {
    let desk = Desk::new();
    let (simulator, source) = simulator_with(&desk, &["--faults", faults]);
    desk.write("windfall.yaml", &config(&source));
    (desk, simulator)
}

fn says(said: &Said, parts: &[&str]) {
    let all = format!("{}{}", said.out(), said.err());
    for part in parts {
        assert!(all.contains(part), "`{part}` is missing in: {all}");
    }
}

#[test]
fn what_apple_answers_can_be_told_by_the_code_of_a_check() {
    for (faults, code, parts) in [
        ("devices 500", 1, ["status 500", "help: wait"]),
        ("devices cut", 1, ["its JSON is cut off", "help: see that no proxy"]),
        ("devices next-to", 1, ["`https://evil.example`", "help: see that `api_url`"]),
        ("token 401", 3, ["the token was refused: status 401", "help: compare `client_id`"]),
        ("devices 401", 3, ["a token that was just given out is not accepted", "help: see in Apple's portal"]),
        (
            "devices 403",
            5,
            ["this API account may not read `/v1/orgDevices`", "help: in Apple's portal: accept new terms"],
        ),
        ("devices 429 retry-after=300", 6, ["requests are limited for another", "help: wait"]),
    ] {
        let (desk, _simulator) = organization(faults);
        says(&desk.run(&["check", "producer"]).ended(code), &parts);
    }
}

#[test]
fn a_check_names_the_permission_for_single_reads() {
    let (desk, _simulator) = organization("device 403");
    let said = desk.run(&["check", "producer"]).ended(0);
    says(&said, &["warning: single reads are not allowed", "code `FORBIDDEN_ERROR`", "give the account a role"]);
}

#[test]
fn a_producer_that_apple_turns_away_ends_with_the_code_of_the_reason() {
    for (faults, code, part) in [
        ("token 401", 3, "the token was refused"),
        ("devices 403", 5, "this API account may not read"),
        ("devices next-to", 1, "leads to `https://evil.example`"),
    ] {
        let (desk, _simulator) = organization(faults);
        let said = desk.run(&["run", "producer", "--once"]).ended(code);
        says(&said, &["error: source `acme` cannot be read", part, "  help: "]);
    }
}

#[test]
fn a_run_that_left_something_out_is_incomplete_and_says_so_even_when_it_is_quiet() {
    let (desk, _simulator) = organization("devices nameless");
    let said = desk.run(&["-q", "run", "producer", "--once"]).ended(7);
    says(&said, &["something was left out", "stage=\"producer\"", "windfall scans list"]);
    let listed = desk.run(&["scans", "list"]).ended(0);
    says(&listed, &["an item was rejected that nobody can name"]);
}

#[test]
fn what_is_named_and_not_there_is_not_found() {
    let desk = Desk::with(&config(""));
    for verb in ["run", "check"] {
        let said = desk.run(&[verb, "sink", "asets"]).ended(4);
        says(&said, &["no sink is called `asets`", "did you mean `assets`?"]);
    }
}

#[test]
fn a_store_that_does_not_let_us_in_is_authentication() {
    let url = windfall_services::postgres().replace("windfall@", "nobody_of_this_name@");
    let sink = format!("type: postgres, url: \"{url}\"");
    let desk = Desk::with(&config("").replace("type: sqlite, path: rows/assets.db", &sink));
    says(&desk.run(&["check", "sink"]).ended(3), &["the login was refused", "help: see user, password and database"]);
}

#[test]
fn a_mapping_whose_test_fails_is_a_failure() {
    let desk = Desk::with(&config("collections: [{ name: devices, mappings: [m.yaml] }]\n"));
    let shipped = std::fs::read_to_string(super::repository().join("transformer/defaults/abm-devices.yaml")).unwrap();
    let wishful = shipped.replacen("expect: { serial_number: SIM0000001", "expect: { serial_number: GOLD", 1);
    desk.write("m.yaml", &wishful);
    let said = desk.run(&["validate"]).ended(1);
    says(&said, &["error: tests of mappings fail: 1\n  ", "identifiers are normalised", "GOLD", "\n  help: correct"]);
    for verb in [&["check"] as &[&str], &["run", "transformer", "--once"]] {
        says(&desk.run(verb).ended(1), &["error: tests of mappings fail: 1\n  m.yaml:"]);
    }
}

#[test]
fn brokers_that_refuse_a_connection_are_told_without_waiting_for_them() {
    let desk = Desk::with(&config("").replace(windfall_services::kafka(), "127.0.0.1:1"));
    let said = desk.run(&["check", "transformer"]).ended(1);
    says(&said, &["Connection refused", "help: check `kafka.bootstrap_servers`"]);
    assert!(!said.err().contains("trying on"), "{}", said.err());
}

#[test]
fn a_field_that_changes_its_type_is_refused_with_its_file_and_line() {
    let desk = Desk::with(&config("collections: [{ name: devices, file: devices.yaml }]\n"));
    let shipped = std::fs::read_to_string(super::repository().join("transformer/defaults/devices.yaml")).unwrap();
    desk.write("devices.yaml", &shipped.replacen("\nidentify_by:", "\n  shelf: integer\nidentify_by:", 1));
    desk.run(&["topics", "create"]).ended(0);
    desk.run(&["check", "transformer"]).ended(0);
    desk.write("devices.yaml", &shipped.replacen("\nidentify_by:", "\n  shelf: string\nidentify_by:", 1));
    let line = shipped.lines().position(|line| line.starts_with("identify_by:")).unwrap() + 1;
    let place = format!("devices.yaml:{line}:3: `shelf` is `string`, and is registered as `integer`");
    for verb in [&["validate"] as &[&str], &["check", "transformer"], &["run", "transformer", "--once"]] {
        says(
            &desk.run(verb).ended(78),
            &["a field of a collection has changed its type", &place, "help: give the field"],
        );
    }
}

#[test]
fn reading_a_topic_makes_nothing_and_reads_no_other_installations() {
    // On a broker of its own: a topic without any prefix would meet other tests.
    let kafka = Kafka::start(&KafkaOptions::default()).unwrap();
    let config = |prefix: &str| {
        let config = config("").replace(windfall_services::kafka(), kafka.bootstrap());
        let (before, after) = config.split_once("topic_prefix: \"").unwrap();
        format!("{before}topic_prefix: \"{prefix}{}", &after[after.find('"').unwrap()..])
    };
    Desk::with(&config("")).run(&["topics", "create"]).ended(0);
    let desk = Desk::with(&config("mine."));
    for topic in ["abm.devices", "_windfall_schemas"] {
        let said = desk.run(&["tap", topic, "--until-end"]).ended(4);
        says(&said, &["there is no topic `mine."]);
    }
}

#[test]
fn a_script_of_faults_that_cannot_be_read_is_usage() {
    let desk = Desk::new();
    let said = desk.run(&["sim", "--listen", "127.0.0.1:0", "--faults", "devices explode"]).ended(2);
    says(&said, &["`explode` is no action", "help: a rule is"]);
    desk.run(&["sim", "--listen", "127.0.0.1:0", "--time-scale", "0"]).ended(2);
}

/// A broker in small: it knows three requests, and refuses every password.
mod guarded {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    const SASL_HANDSHAKE: i16 = 17;
    const API_VERSIONS: i16 = 18;
    const SASL_AUTHENTICATE: i16 = 36;

    pub(super) fn listen() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                std::thread::spawn(move || serve(client));
            }
        });
        port
    }

    /// Answers until the client goes away.
    fn serve(mut client: TcpStream) -> Option<()> {
        loop {
            let mut length = [0; 4];
            client.read_exact(&mut length).ok()?;
            let mut request = vec![0; usize::try_from(i32::from_be_bytes(length)).ok()?];
            client.read_exact(&mut request).ok()?;
            let number = |at: usize| i16::from_be_bytes([request[at], request[at + 1]]);
            let body = match (number(0), number(2)) {
                (API_VERSIONS, 0) => versions(),
                // Unsupported: the client comes back with version 0.
                (API_VERSIONS, _) => [35_i16.to_be_bytes().as_slice(), &[0; 4]].concat(),
                (SASL_HANDSHAKE, _) => [&[0, 0, 0, 0, 0, 1, 0, 5], b"PLAIN".as_slice()].concat(),
                (SASL_AUTHENTICATE, _) => [&[0, 58, 0, 9], b"no entry.".as_slice(), &[0; 4]].concat(),
                _ => return None,
            };
            let answer = [&request[4..8], body.as_slice()].concat();
            client.write_all(&i32::try_from(answer.len()).ok()?.to_be_bytes()).ok()?;
            client.write_all(&answer).ok()?;
        }
    }

    fn versions() -> Vec<u8> {
        let apis = [(3_i16, 0_i16, 4_i16), (SASL_HANDSHAKE, 0, 1), (API_VERSIONS, 0, 0), (SASL_AUTHENTICATE, 0, 0)];
        let apis = apis.iter().flat_map(|(key, from, to)| [key.to_be_bytes(), from.to_be_bytes(), to.to_be_bytes()]);
        [&[0, 0, 0, 0, 0, 4], apis.flatten().collect::<Vec<_>>().as_slice()].concat()
    }
}

#[test]
fn brokers_that_refuse_the_password_are_authentication_and_the_password_stays_unsaid() {
    let address = format!("127.0.0.1:{}", guarded::listen());
    let sasl = "  properties:\n    security.protocol: sasl_plaintext\n    sasl.mechanism: PLAIN\n    sasl.username: windfall\n    \
                sasl.password: \"SECRET[files.kafka]\"\nsecrets: { files: { type: directory, path: . } }\n";
    let desk = Desk::with(&config(sasl).replace(windfall_services::kafka(), &address));
    desk.write("kafka", "canary-7f3a");
    for arguments in [&["topics", "create"] as &[&str], &["-vv", "run", "transformer"]] {
        let said = desk.run(arguments).ended(3);
        says(
            &said,
            &["error: topics were not read from", "SASL authentication error: no entry.", "help: check `kafka."],
        );
        assert!(!said.err().contains("canary-7f3a"), "{}", said.err());
    }
}

/// A configuration with another's registry, as `settings` describe it.
fn with_registry(settings: &str) -> Desk {
    let desk = Desk::with(&config(settings).replace("  schema_registry: { embedded: {} }\n", ""));
    desk.write("registry", "canary-7f3a");
    desk
}

#[test]
fn a_registry_on_this_machine_is_asked_directly_whatever_proxies_the_environment_names() {
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let desk = with_registry(&format!(
        "  schema_registry: {{ url: \"{}\", username: u, password: \"SECRET[files.registry]\" }}\n\
         secrets: {{ files: {{ type: directory, path: . }} }}\n",
        windfall_services::registry(),
    ));
    let mut command = desk.command(&["check", "transformer"]);
    for variable in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env(variable, &address);
    }
    let said = Said(command.output().unwrap()).ended(0);
    says(&said, &["schema registry", "answers; the schemas will be registered"]);
    assert!(proxy.accept().is_err(), "nothing was sent to the proxy");
}

#[test]
fn a_proxy_that_is_in_the_way_is_named_with_its_variable() {
    let registry = "  schema_registry: { url: \"http://registry.invalid:8081\" }\n";
    for (value, part) in [
        (
            "http://u:canary-7f3a@127.0.0.1:1",
            "the request went through the proxy `http://127.0.0.1:1` of the variable `HTTP_PROXY`",
        ),
        (
            "ftp://u:canary-7f3a@127.0.0.1:1",
            "the environment variable `HTTP_PROXY` names a proxy by `ftp://`, which is not served",
        ),
    ] {
        let desk = with_registry(registry);
        let mut command = desk.command(&["check", "transformer"]);
        let output = command.env("HTTP_PROXY", value).output().unwrap();
        let said = Said(output);
        assert_ne!(said.code(), 0);
        says(&said, &[part]);
        assert!(!format!("{}{}", said.out(), said.err()).contains("canary-7f3a"));
    }
}
