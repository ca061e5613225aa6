//! Records in our own topics that nobody can read.

use windfall_producer::scans;
use windfall_producer::source::OnceOutcome;
use windfall_runtime::kafka::sender::Sender;
use windfall_runtime::kafka::{Headers, Outgoing};
use windfall_schemas::device::{DeviceKey, DeviceValue};
use windfall_schemas::envelope::Envelope;
use windfall_schemas::scan::ScanKey;
use windfall_simulator::Command;

use crate::rig::{Rig, still, told};

fn record(topic: String, key: Vec<u8>, value: &[u8], partition: Option<i32>) -> Outgoing {
    let (key, value) = (Some(key.into()), Some(value.to_vec().into()));
    Outgoing { topic: topic.into(), partition, key, value, headers: Headers::new() }
}

async fn send(rig: &Rig, records: &[Outgoing]) {
    Sender::new(&rig.setup.connection).unwrap().send(records).await.unwrap();
}

async fn device_key(rig: &Rig, org: &str, device: &str) -> Vec<u8> {
    let key = DeviceKey { org: org.into(), device_id: device.into() };
    rig.cluster().await.codecs.device_key.encode(&key).unwrap()
}

/// The event that came after the first `count`.
async fn only_news(rig: &Rig, device: &str, count: usize) -> Option<Envelope<DeviceValue>> {
    let mut of = Vec::new();
    for read in rig.readable_events().await {
        if read.after.as_ref().is_some_and(|after| after.device_id == device) {
            of.push(read);
        }
    }
    assert!(of.len() <= count + 1, "{:?}", told(&of));
    of.into_iter().nth(count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_s_records_stop_no_source_and_are_counted() {
    let rig = Rig::new(still(20, 1), 10).await;
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    let unknown_schema = vec![0, 0, 0, 0, 99, 1, 2, 3];
    for (topic, partitions) in [(rig.names.devices(), 12), (rig.names.servers(), 1), (rig.names.scans(), 1)] {
        for partition in 0..partitions {
            let json = record(topic.clone(), br#"{"id":1}"#.to_vec(), br#"{"x":2}"#, Some(partition));
            send(&rig, &[json, record(topic.clone(), unknown_schema.clone(), b"?", Some(partition))]).await;
        }
    }
    let other = device_key(&rig, "globex", "X1").await;
    send(&rig, &[record(rig.names.devices(), other, b"no record of ours", None)]).await;
    rig.command(Command::Add { device: Some("NEWDEVICE001".into()), server: None });
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    let events = rig.readable_events().await;
    assert_eq!(events.len(), 21, "nothing comes twice: {:?}", told(&events));
    let details = rig.setup.status.snapshot().parts.remove("producer acme").unwrap().details;
    assert_eq!((details.get("passed_over"), details.get("unreadable")), (Some(&28.into()), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_newest_record_is_unreadable_is_told_again_and_never_as_added() {
    let rig = Rig::new(still(20, 1), 10).await;
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    let [same, changed, ..] = &rig.devices()[..] else { panic!("there are twenty") };
    rig.command(Command::Correct { device: changed.clone(), attribute: "color".into(), value: "PLAID".into() });
    rig.command(Command::Add { device: Some("NEWDEVICE001".into()), server: None });
    // Of the third one nothing that can be read is left, as after a compaction.
    for device in [same, changed, "NEWDEVICE001"] {
        send(&rig, &[record(rig.names.devices(), device_key(&rig, "acme", device).await, b"?", None)]).await;
    }
    let scan_key = ScanKey { org: "acme".into(), table: "devices".into(), part: "limiter".into() };
    let scan_key = rig.cluster().await.codecs.scan_key.encode(&scan_key).unwrap();
    send(&rig, &[record(rig.names.scans(), scan_key, b"?", None)]).await;

    rig.faults("devices 403");
    rig.try_once().await.unwrap_err();
    let details = rig.setup.status.snapshot().parts.remove("producer acme").unwrap().details;
    let shown = details["unreadable"].to_string();
    for part in [same.as_str(), "NEWDEVICE001", "devices/limiter", &rig.names.devices(), "offset"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    rig.handle().clear_faults();
    assert_eq!(rig.once().await, OnceOutcome::Complete);

    let scan = scans::list(&rig.cluster().await).await.unwrap().remove(0);
    assert_eq!(scan.counts, [("updated".to_owned(), 3)].into(), "none was added");
    let again = only_news(&rig, same, 1).await.unwrap();
    assert_eq!((again.op.as_str(), again.kind.as_ref().unwrap().as_str()), ("r", "updated"));
    assert!(again.before.is_none() && again.evidence[0].contains("cannot be read"), "{:?}", again.evidence);
    let differs = only_news(&rig, changed, 1).await.unwrap();
    assert_eq!((differs.op.as_str(), differs.changed.contains(&"color".to_owned())), ("u", true));
    let unknown = only_news(&rig, "NEWDEVICE001", 0).await.unwrap();
    assert_eq!((unknown.op.as_str(), unknown.kind.as_ref().unwrap().as_str()), ("r", "updated"));
    let ends = rig.readable_events().await.len();
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    assert_eq!(rig.readable_events().await.len(), ends, "once is enough");
}
