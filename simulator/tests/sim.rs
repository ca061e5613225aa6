use clap::Parser as _;
use windfall_simulator::sim::{self, SimError, SimOptions};

use crate::support::{assertion, claims, form};

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    options: SimOptions,
}

fn options(folder: &tempfile::TempDir) -> SimOptions {
    SimOptions {
        key_file: folder.path().join("secrets/sim.pem"),
        journal: Some(folder.path().join("journal.jsonl")),
        ..Line::parse_from(["sim", "--listen", "127.0.0.1:0"]).options
    }
}

#[tokio::test]
async fn the_command_writes_a_private_key_file_and_tells_how_to_connect() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder);
    let sim::Ready { running, config_lines: lines } = sim::start(&options).await.unwrap();
    let mut account = running.credentials()[0].clone();
    account.private_key_pem = std::fs::read_to_string(&options.key_file).unwrap();
    let form = form(&account, &assertion(&account, &claims(&account, chrono::Utc::now())));
    let granted = reqwest::Client::new().post(running.token_url()).form(&form).send().await.unwrap().status();
    assert_eq!(granted, 200);
    running.stop().await;
    for expected in
        ["type: abm", "client_id: \"BUSINESSAPI.", "private_key: \"SECRET[files.sim.pem]\"", "/auth/oauth2/token\""]
    {
        assert!(lines.contains(expected), "{expected} in\n{lines}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&options.key_file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let journal = windfall_simulator::journal::read(options.journal.as_ref().unwrap()).unwrap();
    assert!(matches!(journal.last().unwrap().record, windfall_simulator::journal::Record::Truth(_)));
}

#[tokio::test]
async fn wrong_options_are_refused_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let faults = SimOptions { faults: Some("devices explode".to_owned()), ..options(&folder) };
    let error = sim::start(&faults).await.unwrap_err();
    assert!(matches!(error, SimError::Faults(_)) && error.help().contains("TARGET"));
    let limit = |text| Line::try_parse_from(["sim", "--rate-limit", text]).map(|line| line.options.rate_limit);
    assert_eq!((limit("off").unwrap(), limit("7").unwrap()), (0, 7));
    assert!(limit("0").is_err() && limit("many").unwrap_err().to_string().contains("nor `off`"));
    let still = SimOptions { time_scale: 0.0, ..options(&folder) };
    assert!(matches!(sim::start(&still).await.unwrap_err(), SimError::TimeScale { .. }));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = SimOptions { listen: taken.local_addr().unwrap(), ..options(&folder) };
    assert!(matches!(sim::start(&busy).await.unwrap_err(), SimError::Start(_)));
}
