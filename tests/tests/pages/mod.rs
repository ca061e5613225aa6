//! Whatever the pages name exists: verbs and options, `make` targets, files, metrics, settings, topics, variables.

mod code;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Command;
use regex::Regex;
use serde_json::Value as Json;
use windfall_runtime::metrics;
use windfall_schemas::topic::{CollectionTopics, Names};

use self::code::{Code, read, words};

/// Folders of the repository that are made by a build or a run.
const MADE: [&str; 8] = ["target", ".git", ".local", "secrets", "windfall-demo", "services", "node_modules", ".cargo"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text_of(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The repository's files and folders, relative to its root.
fn paths() -> BTreeSet<String> {
    fn walk(folder: &Path, name: &str, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).expect("a folder of the repository").flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            let path = if name.is_empty() { file.clone() } else { format!("{name}/{file}") };
            if entry.path().is_dir() && (path == "tests/services" || !MADE.contains(&file.as_str())) {
                walk(&entry.path(), &path, found);
            }
            found.insert(path);
        }
    }
    let mut found = BTreeSet::new();
    walk(&root(), "", &mut found);
    found
}

/// The pages that people write, with their text.
fn pages() -> Vec<(String, String)> {
    let written = |path: &String| {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        path == "llms.txt" || path.ends_with(".md") && ["", "docs", "docs/decisions", "simulator"].contains(&folder)
    };
    let found: Vec<_> = paths().into_iter().filter(written).map(|page| (page.clone(), text_of(&page))).collect();
    assert!(found.len() > 15, "only {} pages", found.len());
    found
}

fn all_code() -> Vec<Code> {
    pages().iter().flat_map(|(page, text)| read(page, text)).collect()
}

/// Fails with every fault. A page that is read as empty would have none: hence the least number of things to look at.
fn judge(looked_at: usize, least: usize, faults: Vec<String>) {
    assert!(looked_at >= least, "only {looked_at} were found on the pages");
    assert!(faults.is_empty(), "{} of {looked_at}:\n{}", faults.len(), faults.join("\n"));
}

/// Says what is wrong with the words behind `windfall`: an unknown verb, option or choice.
fn wrong_command(root: &Command, text: &str) -> Option<String> {
    let (mut command, mut position) = (root, 0);
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        if ["|", "||", "&&", ";", "#", ">", "\\", "&", "…"].contains(&word) {
            return None;
        }
        let word = word.trim_end_matches([';', ',']);
        if let Some(option) = word.strip_prefix('-').filter(|option| !option.is_empty()) {
            let (name, given) = option.split_once('=').map_or((option, false), |(name, _)| (name, true));
            let known =
                command.get_arguments().chain(root.get_arguments().filter(|it| it.is_global_set())).find(|it| {
                    name.strip_prefix('-').map_or(it.get_short().map(String::from).as_deref() == Some(name), |long| {
                        it.get_long() == Some(long)
                    })
                });
            match known {
                Some(argument) if argument.get_action().takes_values() && !given => drop(words.next()),
                None if !["-help", "-version", "h", "V"].contains(&name) => {
                    return Some(format!("`{}` has no option `{word}`", command.get_name()));
                }
                _ => {}
            }
        } else if command.has_subcommands() {
            match command.find_subcommand(word) {
                Some(verb) => command = verb,
                None => return Some(format!("`{}` has no verb `{word}`", command.get_name())),
            }
        } else {
            let choices =
                command.get_positionals().nth(position).map(clap::Arg::get_possible_values).unwrap_or_default();
            if !choices.is_empty()
                && word.chars().all(|letter| letter.is_ascii_lowercase())
                && choices.iter().all(|it| it.get_name() != word)
            {
                return Some(format!("`{}` takes no `{word}`", command.get_name()));
            }
            position += 1;
        }
    }
    None
}

fn has_option(command: &Command, option: &str) -> bool {
    let name = option.trim_start_matches('-');
    command
        .get_arguments()
        .any(|it| it.get_long() == Some(name) || it.get_short().map(String::from).as_deref() == Some(name))
        || command.get_subcommands().any(|verb| has_option(verb, option))
}

#[test]
fn the_pages_name_commands_that_exist() {
    let mut commands = windfall::command_line();
    commands.build();
    let called = Regex::new(r"(?:^|[\s/(=])windfall ([a-z-].*)").expect("a pattern");
    let (mut looked_at, mut faults) = (0, Vec::new());
    for Code { place, text, block, .. } in all_code() {
        // Output has no language, and settings are not commands.
        let shown = block.as_deref().is_none_or(|language| ["console", "sh", "ini"].contains(&language));
        // A package of cargo's is no command.
        let text = text.replace("-p windfall", "-p");
        if let Some(words) = called.captures(&text).filter(|_| shown) {
            looked_at += 1;
            faults.extend(wrong_command(&commands, &words[1]).map(|wrong| format!("{place}: {wrong}")));
        } else if let Some(option) =
            text.split_whitespace().next().filter(|word| block.is_none() && word.starts_with('-'))
        {
            looked_at += 1;
            if !has_option(&commands, option) {
                faults.push(format!("{place}: no verb has the option `{option}`"));
            }
        }
    }
    judge(looked_at, 40, faults);
}

#[test]
fn the_pages_name_targets_of_make_that_exist() {
    let makefile = text_of("Makefile");
    let targets: BTreeSet<&str> =
        makefile.lines().filter_map(|line| line.split_once(':')).map(|(target, _)| target).collect();
    let called = Regex::new(r"(?:^|[\s$])make ([a-z-]+)").expect("a pattern");
    let code = all_code();
    let named: Vec<_> =
        code.iter().flat_map(|it| called.captures_iter(&it.text).map(move |found| (it, found))).collect();
    let unknown = named.iter().filter(|(_, found)| !targets.contains(&found[1]));
    let faults = unknown.map(|(code, found)| format!("{}: `make {}`", code.place, &found[1])).collect();
    judge(named.len(), 15, faults);
}

#[test]
fn the_pages_name_files_that_exist() {
    let paths = paths();
    let tops: BTreeSet<&str> =
        paths.iter().filter_map(|path| path.split('/').next()).filter(|top| !MADE.contains(top)).collect();
    let path_alone =
        Regex::new(r"^[a-z_.][\w.-]*(/[\w.-]+)*(/|\.(rs|md|avsc|ya?ml|toml|py|java|sql|json))$|^[a-z]+(/[a-z_.]+)+$")
            .expect("a pattern");
    let exists =
        |path: &str| paths.iter().any(|it| it == path || it.strip_suffix(path).is_some_and(|it| it.ends_with('/')));
    let (mut looked_at, mut faults) = (0, Vec::new());
    for Code { place, folder, text, block } in all_code() {
        for word in words(&text, |letter| letter.is_alphanumeric() || "._-/<>*".contains(letter)) {
            let path = word.trim_end_matches('/');
            let top = path.split('/').next().unwrap_or_default();
            let within = path.contains('/') && tops.contains(top) && path.split('/').all(|part| part != "target");
            let alone = block.is_none() && path_alone.is_match(&text);
            // A user's own files are named in examples.
            if !(within && !path.contains(['<', '*']) || alone) || path == "windfall.yaml" {
                continue;
            }
            looked_at += 1;
            if !exists(path) && !exists(&format!("{folder}/{path}")) {
                faults.push(format!("{place}: `{word}`"));
            }
        }
    }
    judge(looked_at, 50, faults);
}

/// A heading as the end of an address.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars()
        .filter(|it| it.is_alphanumeric() || " -_".contains(*it))
        .map(|it| if it == ' ' { '-' } else { it })
        .collect()
}

#[test]
fn the_links_between_pages_lead_somewhere() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").expect("a pattern");
    let (mut looked_at, mut faults) = (0, Vec::new());
    for (page, text) in pages() {
        for target in link.captures_iter(&text).map(|found| found[1].to_owned()).filter(|it| !it.contains("://")) {
            looked_at += 1;
            let (path, heading) = target.split_once('#').unwrap_or((&target, ""));
            let file =
                if path.is_empty() { root().join(&page) } else { root().join(&page).with_file_name("").join(path) };
            let there = file.exists()
                && (heading.is_empty() || {
                    let text = std::fs::read_to_string(&file).unwrap_or_default();
                    text.lines()
                        .filter_map(|line| line.strip_prefix('#'))
                        .any(|line| anchor(line.trim_start_matches('#')) == heading)
                });
            if !there {
                faults.push(format!("{page}: {target}"));
            }
        }
    }
    judge(looked_at, 25, faults);
}

#[test]
fn the_pages_name_metrics_tables_and_items_that_exist() {
    // Tables of a sink have such names as well.
    let tables = ["windfall_positions", "windfall_sinks"];
    let name = Regex::new(r"\bwindfall_[a-z][a-z_]*(?:::[A-Za-z_:]+)?").expect("a pattern");
    let (mut looked_at, mut faults) = (0, Vec::new());
    for (page, text) in pages() {
        for found in name.find_iter(&text).map(|found| found.as_str()) {
            looked_at += 1;
            let metric =
                ["_bucket", "_sum", "_count"].iter().fold(found, |name, end| name.strip_suffix(end).unwrap_or(name));
            let there = match found.split_once("::") {
                Some((package, item)) => {
                    let folder = package.trim_start_matches("windfall_").replace('_', "/");
                    item_exists(&root().join(folder).join("src"), item.rsplit("::").next().unwrap_or_default())
                }
                None => tables.contains(&found) || metrics::ALL.iter().any(|it| it.name == metric || it.name == found),
            };
            if !there {
                faults.push(format!("{page}: {found}"));
            }
        }
    }
    judge(looked_at, 40, faults);
}

fn item_exists(folder: &Path, item: &str) -> bool {
    std::fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return path.ends_with(item) || item_exists(&path, item);
        }
        path.file_stem().is_some_and(|name| name == item)
            || std::fs::read_to_string(&path)
                .is_ok_and(|text| words(&text, |it| it.is_alphanumeric() || it == '_').any(|word| word == item))
    })
}

#[test]
fn the_pages_name_variables_that_exist() {
    let name = Regex::new(r"\bWINDFALL_[A-Z_]*[A-Z]").expect("a pattern");
    let mut known = BTreeSet::new();
    for path in paths().iter().filter(|path| path.ends_with(".rs")) {
        known.extend(name.find_iter(&text_of(path)).map(|found| found.as_str().to_owned()));
    }
    let pages = pages();
    let named: Vec<_> =
        pages.iter().flat_map(|(page, text)| name.find_iter(text).map(move |it| (page, it.as_str()))).collect();
    let unknown = named.iter().filter(|(_, name)| !known.contains(*name));
    let faults = unknown.map(|(page, name)| format!("{page}: {name}")).collect();
    judge(named.len(), 3, faults);
}

/// Collects the dotted paths of all settings; `*` is a name of the user's.
fn settings(schema: &Json, node: &Json, path: &str, found: &mut BTreeSet<String>) {
    if path.split('.').count() > 9 {
        return;
    }
    if let Some(name) = node["$ref"].as_str() {
        settings(schema, &schema["$defs"][name.trim_start_matches("#/$defs/")], path, found);
    }
    for choice in ["anyOf", "oneOf", "allOf"].iter().filter_map(|name| node[name].as_array()).flatten() {
        settings(schema, choice, path, found);
    }
    if node["items"].is_object() {
        settings(schema, &node["items"], path, found);
    }
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for (name, field) in node["properties"].as_object().into_iter().flatten() {
        found.insert(below(name));
        settings(schema, field, &below(name), found);
    }
    if node["additionalProperties"].is_object() || node["additionalProperties"] == true {
        found.insert(below("*"));
        settings(schema, &node["additionalProperties"], &below("*"), found);
    }
}

/// Collects the dotted paths of a configuration.
fn keys(value: &Json, path: &str, found: &mut Vec<String>) {
    for element in value.as_array().into_iter().flatten() {
        keys(element, path, found);
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        // A name with dots in it, of Kafka's clients say, is one name.
        let name = name.replace('.', "_");
        let path = if path.is_empty() { name } else { format!("{path}.{name}") };
        keys(field, &path, found);
        found.push(path);
    }
}

#[test]
fn the_pages_name_settings_that_exist() {
    let schema = windfall::reference::schema();
    let mut known = BTreeSet::new();
    settings(&schema, &schema, "", &mut known);
    let same = |known: &str, path: &str| {
        let (known, path): (Vec<_>, Vec<_>) = (known.split('.').collect(), path.split('.').collect());
        known.len() >= path.len()
            && known[known.len() - path.len()..].iter().zip(&path).all(|(known, name)| known == name || *known == "*")
    };
    let whole = |path: &str| known.iter().any(|it| it.split('.').count() == path.split('.').count() && same(it, path));
    let groups: BTreeSet<&str> = known
        .iter()
        .flat_map(|it| it.rsplit_once('.'))
        .map(|(group, _)| group.rsplit('.').next().unwrap_or(group))
        .collect();
    let dotted = Regex::new(r"^[a-z_]+(\.[a-z_]+)+$").expect("a pattern");
    let (mut looked_at, mut faults) = (0, Vec::new());
    for Code { place, text, .. } in all_code().into_iter().filter(|code| code.block.is_none()) {
        let name = text.split(": ").next().unwrap_or_default().replace("[]", "");
        let path = dotted.is_match(&name) && name.split('.').next().is_some_and(|first| groups.contains(first));
        if path || (text.contains(": ") && known.contains(name.as_str())) {
            looked_at += 1;
            if !known.iter().any(|it| same(it, &name)) {
                faults.push(format!("{place}: {name}"));
            }
        }
    }
    for (page, text) in pages() {
        for block in text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            let value: Json = serde_saphyr::from_str(block).unwrap_or_else(|error| panic!("{page}: {error}"));
            let first = value.as_object().and_then(|map| map.keys().next().cloned()).unwrap_or_default();
            if !["version", "kafka", "sources", "sinks", "secrets", "http"].contains(&first.as_str()) {
                continue;
            }
            let mut named = Vec::new();
            keys(&value, "", &mut named);
            looked_at += named.len();
            faults.extend(named.into_iter().filter(|path| !whole(path)).map(|path| format!("{page}: {path}")));
        }
    }
    judge(looked_at, 60, faults);
}

#[test]
fn the_pages_name_topics_that_exist() {
    let topics = Names::default().declared_topics(&[CollectionTopics {
        collection: "devices",
        sources: vec!["abm.devices"],
        sinks: vec!["assets"],
    }]);
    // A reserved table, and what is written into headers.
    let others = ["abm.coverages", "abm.device.", "windfall.errors."];
    let files = [".yaml", ".db", ".sql", ".pem", ".service"];
    let shape = Regex::new(r"^(abm|assets|windfall)\.[a-z<*C]").expect("a pattern");
    let hole = Regex::new(r"<[a-z]+>|COLLECTION|\*").expect("a pattern");
    let (mut looked_at, mut faults) = (0, Vec::new());
    for Code { place, text, .. } in all_code() {
        for word in words(&text, |letter| letter.is_alphanumeric() || "._-<>*".contains(letter))
            .filter(|word| shape.is_match(word) && !files.iter().any(|end| word.ends_with(end)))
        {
            looked_at += 1;
            let subject = word.trim_end_matches("-key").trim_end_matches("-value");
            let pattern = hole.split(subject).map(regex::escape).collect::<Vec<_>>().join(".+?");
            let pattern = Regex::new(&format!("^{pattern}$")).expect("a pattern");
            if !topics.iter().any(|topic| pattern.is_match(&topic.name))
                && !others.iter().any(|other| word.starts_with(other))
            {
                faults.push(format!("{place}: {word}"));
            }
        }
    }
    judge(looked_at, 80, faults);
}
