use windfall_simulator::sim::{self, SimError, SimOptions};

use crate::support::{assertion, claims, form};

fn options(folder: &tempfile::TempDir) -> SimOptions {
    SimOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        key_file: folder.path().join("secrets/sim.pem"),
        journal: Some(folder.path().join("journal.jsonl")),
        ..SimOptions::default()
    }
}

#[tokio::test]
async fn the_command_writes_a_private_key_file_and_tells_how_to_connect() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder);
    let mut lines = String::new();
    let mut granted = None;
    let (told, connect) = tokio::sync::oneshot::channel();
    let client = async {
        let (url, mut account): (String, windfall_simulator::Credentials) = connect.await.unwrap();
        account.private_key_pem = std::fs::read_to_string(&options.key_file).unwrap();
        let form = form(&account, &assertion(&account, &claims(&account, chrono::Utc::now())));
        granted = Some(reqwest::Client::new().post(url).form(&form).send().await.unwrap().status());
    };
    let ready = |ready: &sim::Ready| {
        lines = ready.config_lines.clone();
        let account = ready.running.credentials()[0].clone();
        assert!(told.send((ready.running.token_url(), account)).is_ok());
    };
    sim::run(&options, ready, client).await.unwrap();
    assert_eq!(granted.unwrap(), 200);
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
    let still = SimOptions { time_scale: 0.0, ..options(&folder) };
    assert!(matches!(sim::start(&still).await.unwrap_err(), SimError::TimeScale { .. }));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = SimOptions { listen: taken.local_addr().unwrap(), ..options(&folder) };
    assert!(matches!(sim::start(&busy).await.unwrap_err(), SimError::Start(_)));
}
