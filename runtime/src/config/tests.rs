use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::*;
use crate::diagnose::Diagnose as _;
use crate::secret::{Secret, SecretBackend, TextOrSecret};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Root {
    #[serde(default)]
    #[allow(dead_code, reason = "it only has to be a key that is known")]
    secrets: BTreeMap<String, SecretBackend>,
    #[serde(default)]
    sources: Vec<Source>,
    #[serde(default)]
    kind: Option<Kind>,
    #[serde(default)]
    spare: Option<Source>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Postgres,
    #[allow(dead_code, reason = "it only has to be a key that is known")]
    Sqlite,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    name: String,
    #[serde(default)]
    private_key: Option<Secret>,
    #[serde(default)]
    url: Option<TextOrSecret>,
    #[serde(default)]
    #[allow(dead_code, reason = "it only has to be a key that is known")]
    interval: Option<Period>,
    #[serde(default)]
    #[allow(dead_code, reason = "it only has to be a key that is known")]
    page_size: Option<u32>,
}

fn env(name: &str) -> Option<String> {
    match name {
        "ORG" => Some("acme".to_owned()),
        "KEY" => Some("hunter2hunter2".to_owned()),
        "TRICK" => Some("x\"\nkind: postgres\n#".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

/// Rules under which every secret is needed and nothing else is asked.
fn rules<T>() -> Rules<'static, T> {
    Rules { env: &env, secrets: &|_, _| SecretReading::Needed, check: &|_| Violations::new() }
}

fn read(text: &str) -> Result<Root, String> {
    parse::<Root>(text, Path::new("windfall.yaml"), &rules()).map(|loaded| loaded.config).map_err(|error| {
        let line = |fault: &Fault| {
            let place = fault.place.map_or_else(|| "?".to_owned(), |place| place.to_string());
            let path = fault.path.as_deref().unwrap_or("?");
            format!("{place} {path}: {} / {}", fault.what, fault.help.as_deref().unwrap_or("-"))
        };
        error.faults().iter().map(line).collect::<Vec<_>>().join("\n")
    })
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest_name() {
    let error = read("sources:\n  - name: acme\n    intervall: 1h\n").unwrap_err();
    assert_eq!(
        error,
        "3:5 sources[0].intervall: the key `intervall` is not known / did you mean `interval`? known here: `interval`, `name`, `page_size`, `private_key`, `url`"
    );
}

#[test]
fn a_value_that_cannot_stand_is_named_with_what_can() {
    let error = read("kind: postgress\n").unwrap_err();
    assert_eq!(
        error,
        "1:7 kind: `postgress` is not a value that can stand here / did you mean `postgres`? known here: `postgres`, `sqlite`"
    );
    assert!(matches!(read("kind: postgres").unwrap().kind, Some(Kind::Postgres)));
}

#[test]
fn a_missing_key_is_named_inside_the_item_that_lacks_it() {
    let error = read("sources:\n  - name: a\n  - page_size: 5\n").unwrap_err();
    assert_eq!(error, "3:5 sources[1]: the key `name` is missing / add `name:` here");
}

#[test]
fn a_wrong_type_is_said_without_the_value() {
    let error = read("sources:\n  - name: a\n    page_size: hunter2\n").unwrap_err();
    assert!(error.starts_with("3:16 sources[0].page_size: "), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    let error = read("sources: hunter2\n").unwrap_err();
    assert!(error.starts_with("1:10 sources: "), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn a_length_of_time_without_a_unit_is_refused() {
    let error = read("sources:\n  - name: a\n    interval: 90\n").unwrap_err();
    assert_eq!(
        error,
        "3:15 sources[0].interval: `90` is not a length of time such as `20ms`, `90s`, `15m`, `1h` or `7d` / -"
    );
}

#[test]
fn a_key_that_stands_twice_is_refused() {
    let error = read("kind: postgres\nkind: sqlite\n").unwrap_err();
    assert!(error.contains("the key `kind` stands twice"), "{error}");
}

#[test]
fn variables_are_put_into_strings_of_any_quoting_and_defaults_are_used() {
    let text = "sources:\n  - name: ${ORG}\n  - name: \"x-${ORG}-${NONE:fallback}\"\n  - name: 'a$${ORG}'\n  - name: '${EMPTY}'\n";
    let names: Vec<_> = read(text).unwrap().sources.into_iter().map(|source| source.name).collect();
    assert_eq!(names, ["acme", "x-acme-fallback", "a${ORG}", ""]);
}

#[test]
fn a_variable_can_never_add_a_key() {
    let root = read("sources:\n  - name: ${TRICK}\n").unwrap();
    assert_eq!(root.sources[0].name, "x\"\nkind: postgres\n#");
    assert!(root.kind.is_none());
}

#[test]
fn all_references_that_cannot_be_resolved_are_named_at_once() {
    let text = "sources:\n  - name: ${NOPE}\n    private_key: SECRET[env.NADA]\n    url: SECRET[vault.x]\n";
    let error = read(text).unwrap_err();
    assert_eq!(
        error,
        "2:11 sources[0].name: the variable `NOPE` is not set / set `NOPE`, or give a default: `${NOPE:default}`\n\
         3:18 sources[0].private_key: the variable `NADA` is not set / set `NADA` in the environment of the process\n\
         4:10 sources[0].url: no backend of secrets is called `vault` / use one of `env`, or declare it under `secrets:`"
    );
}

#[test]
fn a_secret_is_read_from_a_file_beside_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("keys")).unwrap();
    write_secret(&folder.path().join("keys/abm.pem"), "-----BEGIN\nabc\n-----END\n", 0o600);
    let file = folder.path().join("windfall.yaml");
    std::fs::write(
        &file,
        "secrets: { files: { type: directory, path: ./keys } }\nsources:\n  - name: a\n    private_key: SECRET[files.abm.pem]\n",
    )
    .unwrap();
    let loaded = load::<Root>(&file, &rules()).unwrap();
    let key = loaded.config.sources[0].private_key.as_ref().unwrap();
    assert_eq!(key.expose(), "-----BEGIN\nabc\n-----END");
    assert!(!format!("{:?}", loaded.config).contains("abc"));
}

fn write_secret(path: &Path, text: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_secret_that_everybody_may_read_or_change_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("windfall.yaml");
    std::fs::write(
        &file,
        "secrets: { files: { type: directory, path: . } }\nsources: [{ name: a, private_key: 'SECRET[files.k]' }]\n",
    )
    .unwrap();
    for (mode, act) in [(0o644, "read"), (0o602, "changed")] {
        write_secret(&folder.path().join("k"), "hunter2", mode);
        let error = load::<Root>(&file, &rules()).map(drop).unwrap_err();
        let fault = &error.faults()[0];
        assert!(fault.what.contains(&format!("may be {act} by every user")), "{}", fault.what);
        assert!(fault.help.as_ref().unwrap().contains("chmod 0400"));
    }
    for mode in [0o600, 0o400, 0o440] {
        std::fs::remove_file(folder.path().join("k")).unwrap();
        write_secret(&folder.path().join("k"), "hunter2", mode);
        assert!(load::<Root>(&file, &rules()).is_ok(), "{mode:o}");
    }
}

#[test]
fn a_link_is_followed_inside_the_folder_of_secrets_only() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = folder.path().join("windfall.yaml");
    std::fs::create_dir(folder.path().join("keys")).unwrap();
    std::fs::write(
        &file,
        "secrets: { files: { type: directory, path: keys } }\nsources: [{ name: a, private_key: 'SECRET[files.k]' }]\n",
    )
    .unwrap();
    write_secret(&elsewhere.path().join("k"), "hunter2", 0o600);
    write_secret(&folder.path().join("keys/real"), "hunter2", 0o600);
    std::os::unix::fs::symlink(elsewhere.path().join("k"), folder.path().join("keys/k")).unwrap();
    let error = load::<Root>(&file, &rules()).map(drop).unwrap_err();
    assert!(error.faults()[0].what.contains("leads out of its directory"), "{}", error.faults()[0].what);
    std::fs::remove_file(folder.path().join("keys/k")).unwrap();
    std::os::unix::fs::symlink("real", folder.path().join("keys/k")).unwrap();
    assert!(load::<Root>(&file, &rules()).is_ok());
}

#[test]
fn a_name_that_leaves_the_folder_of_secrets_is_refused() {
    let text = "secrets: { files: { type: directory, path: . } }\nsources: [{ name: 'SECRET[files.../etc/passwd]' }]\n";
    let error = read(text).unwrap_err();
    assert!(error.contains("is not a file name inside the directory of secrets"), "{error}");
}

#[test]
fn a_secret_in_the_file_itself_is_refused_and_not_repeated() {
    let error = read("sources:\n  - name: a\n    private_key: hunter2hunter2\n").unwrap_err();
    assert_eq!(
        error,
        "3:18 sources[0].private_key: a secret must not stand in the file / write `SECRET[files.NAME]` or `SECRET[env.NAME]` and keep the value there"
    );
    let error = read("sources:\n  - name: a\n    private_key: ${KEY}\n").unwrap_err();
    assert!(error.contains("a secret must not stand in the file"), "a plain variable is no secret: {error}");
}

#[test]
fn a_secret_that_stands_where_it_cannot_is_not_shown() {
    let error = read("sources:\n  - name: a\n    interval: SECRET[env.KEY]\n").unwrap_err();
    assert!(error.contains("[redacted]") && !error.contains("hunter2"), "{error}");
}

#[test]
fn a_value_that_is_partly_secret_is_secret_as_a_whole() {
    let root = read(
        "sources:\n  - name: a\n    url: postgres://u:SECRET[env.KEY]@h/d\n  - name: b\n    url: postgres://h/d\n",
    )
    .unwrap();
    let url = |n: usize| root.sources[n].url.clone().unwrap();
    assert!(url(0).secret());
    assert_eq!(url(0).expose(), "postgres://u:hunter2hunter2@h/d");
    assert!(!url(1).secret());
    assert!(!format!("{root:?}").contains("hunter2"));
}

#[test]
fn a_reference_in_a_value_of_several_lines_is_refused() {
    let error = read("sources:\n  - name: |\n      ${ORG}\n").unwrap_err();
    assert!(error.contains("a reference stands in a value of several lines"), "{error}");
}

#[test]
fn the_place_after_a_replaced_value_is_the_one_in_the_file() {
    let error = read("sources: [{ name: \"${ORG}\", nme: x }]\n").unwrap_err();
    assert!(error.starts_with("1:29 sources[0].nme: the key `nme` is not known"), "{error}");
}

#[test]
fn aliases_that_grow_without_end_are_refused() {
    let mut text = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (n, m) in [("b", "a"), ("c", "b"), ("d", "c"), ("e", "d"), ("f", "e"), ("g", "f")] {
        text.push_str(&format!("{n}: &{n} [*{m}, *{m}, *{m}, *{m}, *{m}, *{m}, *{m}, *{m}, *{m}, *{m}]\n"));
    }
    let Err(error) = parse::<serde_json::Value>(&text, Path::new("x.yaml"), &rules()) else { panic!("it is read") };
    assert!(error.faults().iter().any(|fault| fault.what.contains("alias")), "it is not read to its end: {error:?}");
}

#[test]
fn a_file_that_is_missing_or_too_large_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("windfall.yaml");
    assert!(matches!(load::<Root>(&file, &rules()), Err(ConfigError::Unreadable { .. })));
    std::fs::write(&file, "#".repeat(1024 * 1024 + 1)).unwrap();
    assert!(matches!(load::<Root>(&file, &rules()), Err(ConfigError::TooLarge { .. })));
}

/// Reads, and refuses a rule about each of these paths.
fn broken(text: &str, paths: &'static [&'static str], secrets: &dyn Fn(&Texts, &str) -> SecretReading) -> Vec<Fault> {
    let check = |_: &Root| {
        let mut all = Violations::new();
        paths.iter().for_each(|path| all.push_with_help(*path, "must be another", "leave it out"));
        all
    };
    let read = parse(text, Path::new("w.yaml"), &Rules { env: &env, secrets, check: &check });
    read.map(drop).map_or_else(|error| error.faults().to_vec(), |()| Vec::new())
}

#[test]
fn a_violation_is_shown_at_the_place_of_its_field() {
    let text = "sources:\n  - name: a\n    page_size: 0\n";
    let faults = broken(text, &["sources[0].page_size"], &|_, _| SecretReading::Needed);
    assert_eq!(faults[0].to_string(), "w.yaml:3:5 `sources[0].page_size`: must be another");
}

#[test]
fn faults_of_every_kind_are_told_together_with_their_places_in_the_file() {
    let text = "kind: postgress\nspare: { naem: x, page_size: two }\nsources:\n  - name: \"${NOPE}\"\n    intervall: 1h\n  - { page_size: 5, url: [x], name: b }\n  - interval: 90\n    name: ${ORG}\nsurces: []\n";
    let faults =
        broken(text, &["sources[1].page_size", "sources[2].name", "sources[0].name"], &|_, _| SecretReading::Needed);
    let told: Vec<_> = faults.iter().map(ToString::to_string).collect();
    let parts = [
        "w.yaml:1:7 `kind`: `postgress` is not",
        "w.yaml:2:10 `spare.naem`: the key `naem` is not known",
        "w.yaml:2:30 `spare.page_size`: ",
        "w.yaml:4:11 `sources[0].name`: the variable `NOPE` is not set",
        "w.yaml:5:5 `sources[0].intervall`: the key",
        "w.yaml:6:7 `sources[1].page_size`: must be another",
        "w.yaml:6:26 `sources[1].url`: ",
        "w.yaml:7:15 `sources[2].interval`: `90` is not a length",
        "w.yaml:8:5 `sources[2].name`: must be another",
        "w.yaml:9:1 `surces`: the key `surces` is not known",
    ];
    assert_eq!(told.len(), parts.len(), "{told:#?}");
    for (told, part) in told.iter().zip(parts) {
        assert!(told.starts_with(part), "{told}, and not {part}");
    }
}

#[test]
fn what_follows_from_a_fault_is_not_told_as_another() {
    // The item has no name because its name could not be read, and the list is empty because its one key was unknown.
    let text = "sources:\n  - { name: [x] }\nspare:\n  name: { deep: 1 }\n";
    let faults = broken(text, &["sources[0].name", "spare.name"], &|_, _| SecretReading::Needed);
    let paths: Vec<_> = faults.iter().map(|fault| fault.path.clone().unwrap()).collect();
    assert_eq!(paths, ["sources[0].name", "spare.name"], "{faults:#?}");
}

#[test]
fn a_file_of_another_tool_is_named_as_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("windfall.yaml");
    let wide =
        |mark: &[u8]| [mark, &"kind: sqlite\n".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()].concat();
    for bytes in [wide(b"\xff\xfe"), wide(b"")] {
        std::fs::write(&file, bytes).unwrap();
        let error = load::<Root>(&file, &rules()).map(drop).unwrap_err();
        assert!(error.to_string().contains("UTF-16") && error.help().unwrap().contains("UTF-8"), "{error}");
    }
    std::fs::write(&file, "\u{feff}kind: sqlite\r\n").unwrap();
    assert!(load::<Root>(&file, &rules()).is_ok(), "a mark and Windows line ends are no fault");
}

#[test]
fn a_control_character_at_the_end_of_a_value_is_named_and_the_value_is_not() {
    let env = |name: &str| Some(if name == "KEY" { "hunter2\r" } else { "acme\n" }.to_owned());
    let text = "sources:\n  - name: ${ORG}\n    url: \"postgres://u:SECRET[env.KEY]\"\n  - name: \"b\\t\"\n";
    let rules = Rules { env: &env, ..rules::<Root>() };
    let error = parse(text, Path::new("w.yaml"), &rules).map(drop).unwrap_err();
    let told: Vec<_> = error.faults().iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "w.yaml:2:11 `sources[0].name`: the value begins or ends with a line feed (`\\n`)",
            "w.yaml:3:10 `sources[0].url`: the value begins or ends with a carriage return (`\\r`)",
            "w.yaml:4:11 `sources[1].name`: the value begins or ends with a tab (`\\t`)",
        ]
    );
}

#[test]
fn a_secret_is_looked_at_where_it_is_there_and_not_missed_where_it_is_not() {
    let if_there = Rules { secrets: &|_, _| SecretReading::IfThere, ..rules::<Root>() };
    let text = "secrets: { files: { type: directory, path: nowhere } }\nsources:\n  - { name: a, private_key: \"SECRET[env.UNSET]\", url: \"SECRET[env.KEY]\" }\nspare: { name: x, private_key: \"SECRET[files.k]\" }\n";
    let loaded = parse(text, Path::new("w.yaml"), &if_there).unwrap();
    assert_eq!(loaded.config.sources[0].url.as_ref().unwrap().expose(), "hunter2hunter2");
    assert_eq!(loaded.withheld, ["sources[0].private_key", "spare.private_key"]);
}

#[test]
fn a_syntax_error_is_said_with_its_place() {
    let error = read("sources:\n  - name: [a\nkind: x\n").unwrap_err();
    assert!(error.starts_with("3:") || error.starts_with("2:"), "{error}");
}

/// Reads with the secrets of sources alone.
fn sources_alone(text: &str) -> Result<Loaded<Root>, ConfigError> {
    parse(text, Path::new("w.yaml"), &Rules { secrets: &of_sources, ..rules() })
}

fn of_sources(_: &Texts, path: &str) -> SecretReading {
    if path.starts_with("sources[") { SecretReading::Needed } else { SecretReading::Never }
}

#[test]
fn a_secret_that_is_not_needed_is_not_looked_for() {
    let text = "kind: sqlite\nsources:\n  - { name: a, url: \"SECRET[env.KEY]\" }\nspare: { name: x, private_key: \"SECRET[env.UNSET]\", url: \"postgres://${ORG}:SECRET[env.UNSET]@h\" }\n";
    let loaded = sources_alone(text).unwrap();
    assert_eq!(loaded.config.sources[0].url.as_ref().unwrap().expose(), "hunter2hunter2");
    let spare = loaded.config.spare.unwrap();
    assert_eq!(spare.private_key.unwrap().expose(), "SECRET[env.UNSET]", "the reference, which opens nothing");
    assert!(spare.url.unwrap().secret());
    let error = parse::<Root>(text, Path::new("w.yaml"), &rules()).map(drop).unwrap_err();
    assert_eq!(error.faults()[0].what, "the variable `UNSET` is not set");
}

#[test]
fn a_reference_that_can_stand_for_nothing_is_refused_even_where_it_is_not_needed() {
    for reference in ["SECRET[vault.x]", "SECRET[nothing]", "SECRET[env.X"] {
        let text = format!("spare: {{ name: x, private_key: \"{reference}\" }}\n");
        assert!(sources_alone(&text).is_err(), "{reference}");
    }
}

#[test]
fn a_rule_about_a_value_that_was_not_read_is_left_to_whoever_needs_it() {
    let text = "spare: { name: x, private_key: \"SECRET[env.UNSET]\" }\n";
    assert_eq!(broken(text, &["spare.private_key", "spare"], &of_sources), []);
    assert_eq!(broken(text, &["spare.name", "spare.private", "kind"], &of_sources).len(), 3);
}

#[test]
fn the_texts_of_all_values_are_given_by_their_paths_as_they_stand_in_the_file() {
    let text = "sources:\n  - name: acme\n  - { name: \"${ORG}\" }\n";
    let secrets = |texts: &Texts, _: &str| {
        let known: Vec<_> = texts.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        assert_eq!(known, [("sources[0].name", "acme"), ("sources[1].name", "${ORG}")]);
        SecretReading::Never
    };
    assert!(parse::<Root>(text, Path::new("w.yaml"), &Rules { secrets: &secrets, ..rules() }).is_ok());
}
