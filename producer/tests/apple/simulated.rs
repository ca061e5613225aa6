//! The whole edge against the simulator: what it serves is what is read, and its limit is never met.

use std::collections::BTreeSet;
use std::sync::Arc;

use windfall_producer::apple::client::{AppleDirectory, Options};
use windfall_producer::apple::key::SigningKey;
use windfall_producer::apple::{Cursor, DirectoryError, Lookup, PageOf, Trail};
use windfall_producer::budget::LimiterState;
use windfall_runtime::clock::Clock as _;
use windfall_runtime::diagnose::Diagnose as _;
use windfall_schemas::device::DeviceValue;
use windfall_schemas::identifiers::DeviceId;
use windfall_simulator::journal::{Record, Response};
use windfall_simulator::{Credentials, JournalMode, KeyForm, RateLimit, Running, Simulator, TimeSource};

use super::clock::PatientClock;
use super::options;

struct World {
    running: Running,
    clock: Arc<PatientClock>,
    directory: AppleDirectory,
}

fn wall(clock: &Arc<PatientClock>) -> TimeSource {
    let clock = Arc::clone(clock);
    Arc::new(move || clock.right())
}

async fn world(builder: Simulator) -> World {
    let clock = PatientClock::new();
    let builder = builder.still().wall_clock(wall(&clock)).life_clock(wall(&clock)).journal(JournalMode::Memory);
    let running = builder.start("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let directory = connect(&running, &clock, LimiterState::default(), KeyForm::Mislabelled);
    World { running, clock, directory }
}

fn connect(running: &Running, clock: &Arc<PatientClock>, state: LimiterState, form: KeyForm) -> AppleDirectory {
    let credentials: &Credentials = &running.credentials()[0];
    let mut options = Options {
        state,
        key: SigningKey::from_pem(&credentials.private_key_as(form)).unwrap(),
        ..options(&running.url())
    };
    options.account.client_id = credentials.client_id.clone();
    options.account.key_id = Some(credentials.key_id.clone());
    options.account.token_url = url::Url::parse(&running.token_url()).unwrap();
    AppleDirectory::take_over(options, Arc::clone(clock) as _, Box::new(uuid::Uuid::new_v4)).unwrap()
}

/// Reads a list to its end.
async fn all<T, F>(mut page: impl FnMut(Option<Cursor>) -> F) -> Result<Vec<T>, DirectoryError>
where
    F: Future<Output = Result<PageOf<T>, DirectoryError>>,
{
    let (mut items, mut trail, mut next) = (Vec::new(), Trail::new(None), None);
    loop {
        let read = page(next).await?;
        assert_eq!(read.rejected, []);
        trail.step(read.next.as_ref()).unwrap();
        items.extend(read.items.into_iter().map(|item| item.value));
        match read.next {
            Some(cursor) => next = Some(cursor),
            None => return Ok(items),
        }
    }
}

#[tokio::test]
async fn a_fleet_is_read_whole_within_the_requests_of_the_plan_and_without_a_429() {
    let World { running, clock, directory } = world(Simulator::builder().devices(3_200).servers(4)).await;
    let begun = clock.elapsed();
    let servers = all(|cursor| {
        let d = &directory;
        async move { d.servers(cursor.as_ref()).await }
    })
    .await
    .unwrap();
    let mut assigned = BTreeSet::new();
    for server in &servers {
        let ids = all(|cursor| {
            let d = &directory;
            async move { d.linkage(&server.server_id, cursor.as_ref()).await }
        });
        assigned.extend(ids.await.unwrap().into_iter().map(DeviceId::into_string));
    }
    let devices = all(|cursor| {
        let d = &directory;
        async move { d.page(cursor.as_ref()).await }
    })
    .await
    .unwrap();
    let listed: BTreeSet<_> = devices.iter().map(|device| device.device_id.as_str()).collect();
    assert_eq!((devices.len(), listed.len()), (3_200, 3_200));
    assert_eq!(running.handle().live_devices(), 3_200);
    let said: BTreeSet<_> =
        devices.iter().filter(|d| d.status.as_deref() == Some("ASSIGNED")).map(|d| d.device_id.clone()).collect();
    assert_eq!(said, assigned);
    // At most 2 * ceil(devices / 1000) + 1 + servers requests, 3.06 s apart.
    let requests: usize = 2 * 4 + 1 + 4;
    assert!((clock.elapsed() - begun).as_secs_f64() < 3.07 * requests as f64 + 4.0);
    assert!(answers(&running).len() <= requests, "{}", answers(&running).len());
    assert_eq!(refused(&running), 0);
    running.stop().await;
}

/// The answers that were served, tokens left out.
fn answers(running: &Running) -> Vec<Response> {
    let lines = running.handle().journal().into_iter();
    let answers = lines.filter_map(|line| match line.record {
        Record::Response(response) => Some(*response),
        _ => None,
    });
    answers.filter(|answer| answer.method == "GET").collect()
}

fn refused(running: &Running) -> usize {
    answers(running).iter().filter(|answer| answer.status == Some(429)).count()
}

/// The most requests that the server saw in any minute.
fn busiest_minute(running: &Running) -> usize {
    let times: Vec<_> = answers(running).iter().map(|answer| answer.at_wall).collect();
    let within = |first: usize| {
        times[first..].iter().take_while(|at| **at - times[first] < chrono::Duration::seconds(60)).count()
    };
    (0..times.len()).map(within).max().unwrap_or(0)
}

#[tokio::test]
async fn apples_limit_is_never_met_in_two_hundred_requests_and_ten_restarts() {
    let World { running, clock, mut directory } = world(Simulator::builder().devices(10)).await;
    for round in 0..10 {
        for _ in 0..20 {
            directory.page(None).await.unwrap();
        }
        if round % 2 == 0 {
            let state = directory.unsaved().unwrap_or_default();
            directory = connect(&running, &clock, state, KeyForm::Pkcs8);
        }
    }
    assert_eq!((answers(&running).len(), refused(&running)), (200, 0));
    // A little less than 20, since the pace leaves room for clocks and connections.
    assert!((18..=20).contains(&busiest_minute(&running)), "{}", busiest_minute(&running));
    running.stop().await;
}

#[tokio::test]
async fn a_limit_that_is_lower_than_configured_is_survived() {
    let tight = Simulator::builder().devices(10).rate_limit(Some(RateLimit { requests: 7, seconds: 60 }));
    let World { running, clock, directory } = world(tight).await;
    let (mut pages, mut refusals) = (0, 0);
    let begun = clock.elapsed();
    while pages < 60 {
        match directory.page(None).await {
            Ok(_) => pages += 1,
            Err(DirectoryError::RateLimited { .. }) => refusals += 1,
            Err(other) => panic!("{other}"),
        }
    }
    let minutes = (clock.elapsed() - begun).as_secs() / 60;
    assert!(refusals <= minutes && minutes <= 20, "{refusals} refusals in {minutes} minutes");
    running.stop().await;
}

#[tokio::test]
async fn every_key_form_gets_a_token() {
    let World { running, clock, .. } = world(Simulator::builder().devices(1)).await;
    for form in [KeyForm::Pkcs8, KeyForm::Sec1, KeyForm::Mislabelled, KeyForm::WithParameters, KeyForm::Crlf] {
        connect(&running, &clock, LimiterState::default(), form).page(None).await.unwrap();
    }
    running.stop().await;
}

#[tokio::test]
async fn a_wrong_key_is_refused_by_the_endpoint_and_not_retried_for_ever() {
    let World { running, clock, .. } = world(Simulator::builder().devices(1)).await;
    let mut options = options(&running.url());
    options.account.client_id.clone_from(&running.credentials()[0].client_id);
    options.account.token_url = url::Url::parse(&running.token_url()).unwrap();
    let directory = super::directory_with(options, &clock);
    let mut said = Vec::new();
    for _ in 0..5 {
        said.push(directory.page(None).await.unwrap_err());
    }
    let DirectoryError::Token(first) = &said[0] else { panic!("{}", said[0]) };
    assert!(first.to_string().contains("`invalid_client`"), "{first}");
    assert!(first.help().unwrap().contains("key file"), "{}", first.help().unwrap());
    let tokens = running.handle().journal().into_iter();
    let asked =
        tokens.filter(|line| matches!(&line.record, Record::Response(answer) if answer.method == "POST")).count();
    assert_eq!(asked, 3);
    running.stop().await;
}

#[tokio::test]
async fn a_released_device_is_found_with_its_date_or_not_at_all() {
    let World { running, directory, .. } = world(Simulator::builder().devices(40).gone_share(0.5)).await;
    let devices = all(|cursor| {
        let d = &directory;
        async move { d.page(cursor.as_ref()).await }
    })
    .await
    .unwrap();
    let (mut with_date, mut gone) = (0, 0);
    for device in &devices[..20] {
        running.handle().release(&device.device_id).unwrap();
        let id = DeviceId::parse(&device.device_id).unwrap();
        match directory.device(&id).await.unwrap() {
            Lookup::Found { device, .. } => {
                assert!(device.released_from_org_date_time.is_some());
                with_date += 1;
            }
            Lookup::NotFound { .. } => gone += 1,
            Lookup::Forbidden { refusal, .. } => panic!("{refusal}"),
        }
        assert_eq!(directory.assigned_server(&id).await.unwrap().server_id, None);
    }
    assert!(with_date > 0 && gone > 0, "{with_date} {gone}");
    let left = all(|cursor| {
        let d = &directory;
        async move { d.page(cursor.as_ref()).await }
    })
    .await
    .unwrap();
    assert_eq!(left.len(), 20);
    running.stop().await;
}

#[tokio::test]
async fn a_list_and_a_single_read_say_the_same_of_a_device() {
    let World { running, directory, .. } = world(Simulator::builder().devices(30)).await;
    let devices = all(|cursor| {
        let d = &directory;
        async move { d.page(cursor.as_ref()).await }
    })
    .await
    .unwrap();
    for listed in devices {
        let id = DeviceId::parse(&listed.device_id).unwrap();
        let Lookup::Found { device, .. } = directory.device(&id).await.unwrap() else { panic!("{id}") };
        assert_eq!(device, listed);
    }
    running.stop().await;
}

#[tokio::test]
async fn scripted_faults_become_the_errors_they_are() {
    let faults = [
        ("devices 429 retry-after=30 x1", "rate_limited"),
        ("devices 429 retry-after=date:30 x1", "rate_limited"),
        ("devices 429 retry-after=garbage x1", "rate_limited"),
        ("devices 429 html x1", "rate_limited"),
        ("devices 500 x1", "failing"),
        ("devices 503 html x1", "failing"),
        ("devices 403 x1", "forbidden"),
        ("devices 403 html x1", "unreadable"),
        ("devices reset x1", "unreachable"),
        ("devices reset at=50% x1", "unreachable"),
        ("devices cut at=60% x1", "unreadable"),
        ("devices bad-utf8 x1", "unreadable"),
        ("devices duplicate-keys x1", "unreadable"),
        ("devices html x1", "unreadable"),
        ("devices huge mib=17 x1", "too_large"),
        ("devices bomb mib=64 x1", "too_large"),
        ("devices empty-page x1", "cursor"),
        ("devices next-to to=https://evil.example/v1/orgDevices x1", "foreign_link"),
    ];
    let World { running, directory, .. } = world(Simulator::builder().devices(1_500)).await;
    for (script, code) in faults {
        running.handle().add_faults(script).unwrap();
        let error = directory.page(None).await.unwrap_err();
        assert_eq!(error.code(), code, "{script}: {error}");
        running.handle().clear_faults();
        let page = directory.page(None).await.unwrap();
        assert_eq!(page.items.len(), 1000, "after {script} all is well");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_revoked_token_costs_one_replay() {
    let World { running, directory, .. } = world(Simulator::builder().devices(5)).await;
    directory.page(None).await.unwrap();
    running.handle().add_faults("devices revoke x1").unwrap();
    assert_eq!(directory.page(None).await.unwrap().items.len(), 5);
    running.stop().await;
}

#[tokio::test]
async fn odd_items_never_cost_their_page() {
    let odd = [
        ("no-id", Some("no_id")),
        ("nameless", Some("no_id")),
        ("no-attributes", Some("no_attributes")),
        ("malformed-item", Some("not_an_object")),
        ("wrong-type", None),
        ("no-serial", None),
        ("unknown-attribute", None),
        ("unknown-status", None),
        ("variant-shapes", None),
        ("serial-variant", None),
        ("duplicate", None),
        ("deep", None),
    ];
    let World { running, directory, .. } = world(Simulator::builder().devices(50)).await;
    let whole = directory.page(None).await.unwrap();
    for (item, reason) in odd {
        running.handle().add_faults(&format!("devices {item} x1")).unwrap();
        let page = directory.page(None).await.unwrap();
        let rejected: Vec<_> = page.rejected.iter().map(|rejected| rejected.reason).collect();
        assert_eq!(rejected, Vec::from_iter(reason), "{item}: {:?}", page.rejected);
        assert_eq!(page.items.len() + rejected.len(), 50, "{item}");
        let same = |a: &DeviceValue, b: &DeviceValue| {
            a.serial_number.eq_ignore_ascii_case(&b.serial_number)
                && DeviceValue { serial_number: String::new(), ..a.clone() }
                    == DeviceValue { serial_number: String::new(), ..b.clone() }
        };
        let known = |item: &DeviceValue| whole.items.iter().any(|whole| same(&whole.value, item));
        let changed = page.items.iter().filter(|item| !known(&item.value)).count();
        let may_change = matches!(item, "unknown-attribute" | "unknown-status" | "wrong-type");
        assert_eq!(changed, usize::from(may_change), "{item} looks like a change");
        running.handle().clear_faults();
    }
    running.stop().await;
}

#[tokio::test]
async fn a_body_that_only_drips_ends_at_the_deadline() {
    let World { running, clock, .. } = world(Simulator::builder().devices(50)).await;
    running.handle().add_faults("devices drip x1").unwrap();
    let credentials = &running.credentials()[0];
    let mut options = Options {
        key: SigningKey::from_pem(&credentials.private_key_pem).unwrap(),
        deadline: std::time::Duration::from_secs(2),
        ..options(&running.url())
    };
    options.account.client_id.clone_from(&credentials.client_id);
    options.account.key_id = Some(credentials.key_id.clone());
    options.account.token_url = url::Url::parse(&running.token_url()).unwrap();
    let directory = super::directory_with(options, &clock);
    let error = directory.page(None).await.unwrap_err();
    assert!(matches!(error, DirectoryError::TimedOut { .. }), "{error}");
    assert_eq!(directory.page(None).await.unwrap().items.len(), 50);
    running.stop().await;
}
