//! Programs that come as jars, fetched by name through Maven and kept.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Says why jars could not be had.
pub type JarError = crate::ServiceError;

const KAFKA: &str = "4.3.0";
const SLF4J: &str = "1.7.36";
/// The last line that runs on Java 17.
const APICURIO: &str = "3.0.9";
/// Named in full, so that every Maven runs the same one.
const PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:2.8";

/// Folders with the jars of the services.
#[derive(Debug)]
pub struct Jars;

impl Jars {
    /// Returns the folder with Kafka's server, tools and client, fetching them once.
    ///
    /// # Errors
    /// When Maven is missing or answers with an error.
    pub fn kafka() -> Result<PathBuf, JarError> {
        let dependencies = format!(
            "{}{}{}",
            dependency("org.apache.kafka", "kafka_2.13", KAFKA),
            dependency("org.apache.kafka", "kafka-tools", KAFKA),
            dependency("org.slf4j", "slf4j-simple", SLF4J)
        );
        fetch(&format!("kafka-{KAFKA}"), &dependencies)
    }

    /// Returns the folder with Apicurio's registry, fetching and unpacking it once.
    ///
    /// # Errors
    /// When Maven is missing or answers with an error.
    pub fn apicurio() -> Result<PathBuf, JarError> {
        once(&format!("apicurio-{APICURIO}"), |aside| {
            let archive = aside.join("apicurio.tar.gz");
            // Not as a dependency of a project: its parent descriptor is not published.
            let mut maven = Command::new("mvn");
            maven.args(["-q", "-B", &format!("{PLUGIN}:get"), "-Dtransitive=false"]);
            maven.arg(format!("-Dartifact=io.apicurio:apicurio-registry-app:{APICURIO}:tar.gz:all"));
            maven.arg(format!("-Ddest={}", archive.display()));
            run(&mut maven)?;
            let unpacked = aside.join("lib");
            make(&unpacked)?;
            run(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&unpacked))?;
            Ok(unpacked)
        })
    }

    /// Returns the file in `folder` that starts a Quarkus application.
    ///
    /// # Errors
    /// When the folder holds none.
    pub fn runner(folder: &Path) -> Result<PathBuf, JarError> {
        let mut folders = vec![folder.to_path_buf()];
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(&folder)
                .map_err(|e| JarError::new(format!("cannot read {}: {e}", folder.display())))?;
            for entry in entries.flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.file_name().is_some_and(|name| name.to_string_lossy().ends_with("-runner.jar")) {
                    return Ok(path);
                }
            }
        }
        Err(JarError::new(format!("{} holds no runner jar", folder.display())))
    }

    /// Checks that Java is there and new enough.
    ///
    /// # Errors
    /// When it is not, with the remedy.
    pub fn java() -> Result<(), JarError> {
        let remedy = "install Java 17 or newer (`make test` does it where it may)";
        let output = Command::new("java")
            .arg("-version")
            .output()
            .map_err(|e| JarError::new(format!("cannot run `java`: {e}; {remedy}")))?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let version = text.split('"').nth(1).and_then(|v| v.split('.').next()).and_then(|v| v.parse::<u32>().ok());
        match version {
            Some(17..) => Ok(()),
            Some(old) => Err(JarError::new(format!("`java` is version {old}; {remedy}"))),
            None => Err(JarError::new(format!("`java -version` answers without a version; {remedy}"))),
        }
    }
}

fn dependency(group: &str, artifact: &str, version: &str) -> String {
    format!(
        "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
    )
}

fn home() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"));
    target.join("services")
}

fn fetch(name: &str, dependencies: &str) -> Result<PathBuf, JarError> {
    once(name, |aside| {
        let project = format!(
            "<project><modelVersion>4.0.0</modelVersion><groupId>windfall</groupId><artifactId>{name}</artifactId>\
             <version>1</version><packaging>pom</packaging><dependencies>{dependencies}</dependencies></project>"
        );
        let pom = aside.join("pom.xml");
        std::fs::write(&pom, project).map_err(|e| JarError::new(format!("cannot write {}: {e}", pom.display())))?;
        let jars = aside.join("lib");
        let mut maven = Command::new("mvn");
        maven.args(["-q", "-B", "-f"]).arg(&pom).arg(format!("{PLUGIN}:copy-dependencies"));
        run(maven.arg(format!("-DoutputDirectory={}", jars.display())))?;
        Ok(jars)
    })
}

/// Makes `target/services/NAME` aside and moves it in one step: two test processes may do this at once, and a broken download leaves nothing.
fn once(name: &str, bring: impl FnOnce(&Path) -> Result<PathBuf, JarError>) -> Result<PathBuf, JarError> {
    let folder = home().join(name);
    if folder.is_dir() {
        return Ok(folder);
    }
    Jars::java()?;
    make(&home())?;
    let aside = tempfile::tempdir_in(home())
        .map_err(|e| JarError::new(format!("cannot write into {}: {e}", home().display())))?;
    let brought = bring(aside.path())?;
    match std::fs::rename(&brought, &folder) {
        Ok(()) => Ok(folder),
        Err(_) if folder.is_dir() => Ok(folder),
        Err(e) => Err(JarError::new(format!("cannot move {} to {}: {e}", brought.display(), folder.display()))),
    }
}

fn make(folder: &Path) -> Result<(), JarError> {
    std::fs::create_dir_all(folder).map_err(|e| JarError::new(format!("cannot make {}: {e}", folder.display())))
}

fn run(command: &mut Command) -> Result<(), JarError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|e| JarError::new(format!("cannot run `{name}`: {e}; `make test` installs it where it may")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(JarError::new(format!("`{name}` failed: {}", String::from_utf8_lossy(&said).trim())))
}
