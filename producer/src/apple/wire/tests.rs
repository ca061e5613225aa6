use proptest::prelude::*;
use serde_json::json;

use super::*;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../../../simulator/fixtures/", $name))
    };
}

fn page(items: serde_json::Value) -> Vec<u8> {
    json!({"data": items, "links": {"self": "https://api-business.apple.com/v1/orgDevices"}}).to_string().into_bytes()
}

fn read(item: serde_json::Value) -> Result<DeviceValue, Rejected> {
    let mut list = devices(&page(json!([item])), "acme").unwrap();
    match list.items.pop() {
        Some(item) => Ok(*item.value),
        None => Err(list.rejected.remove(0)),
    }
}

fn with(attributes: serde_json::Value) -> Result<DeviceValue, Rejected> {
    read(json!({"type": "orgDevices", "id": "D1", "attributes": attributes}))
}

#[test]
fn apples_two_pages_are_read_whole() {
    let first = devices(fixture!("org-devices-page-1.json"), "acme").unwrap();
    assert_eq!((first.items.len(), first.rejected.len()), (5, 0));
    let Next::At { cursor: Some(cursor), link: Some(link) } = &first.next else { panic!("{:?}", first.next) };
    assert!(link.contains(cursor.as_str()));
    let last = devices(fixture!("org-devices-page-2-last.json"), "acme").unwrap();
    assert_eq!((last.items.len(), last.rejected.len()), (4, 0));
    assert_eq!(last.next, Next::End);
    insta::assert_yaml_snapshot!(first.items.iter().chain(&last.items).map(|item| &item.value).collect::<Vec<_>>());
}

#[test]
fn every_variant_of_shape_is_read_or_rejects_itself_by_name() {
    let list = devices(fixture!("org-devices-variant-shapes.json"), "acme").unwrap();
    assert_eq!(list.next, Next::End, "an empty cursor is none");
    assert_eq!(list.total, Some(4));
    let ids: Vec<_> = list.items.iter().map(|item| (item.index, item.value.device_id.as_str())).collect();
    assert_eq!(ids, [(0, "FXTVAR0010KK"), (1, "FXTVAR0011LL"), (2, "FXTVAR0012MM")]);
    let phone = &list.items[0].value;
    assert_eq!(phone.imei.as_deref(), Some(["350000000001012".to_owned()].as_slice()));
    assert_eq!(phone.eid.as_deref(), Some("89049032000000000000000000010154"));
    assert_eq!(phone.wifi_mac_address.as_deref(), Some(["020000001001".to_owned()].as_slice()));
    assert_eq!(phone.purchase_source_id.as_deref(), Some("-2000000000000001"));
    assert_eq!(list.items[1].value.releaser_id.as_deref(), Some("fixture-user-01"));
    let strange = &list.items[2].value;
    assert_eq!(strange.serial_number, "FXTVAR0012MM", "the id stands in");
    assert_eq!(strange.status.as_deref(), Some("SOME_FUTURE_STATUS"));
    assert_eq!(strange.unmapped.as_deref(), Some(r#"{"futureAttribute":{"nested":true}}"#));
    let [bare] = list.rejected.as_slice() else { panic!("{:?}", list.rejected) };
    assert_eq!((bare.index, bare.id.as_deref(), bare.reason), (3, Some("FXTVAR0013NN"), "no_attributes"));
}

#[test]
fn all_spellings_of_nothing_are_one_thing() {
    let full = with(json!({"serialNumber": "D1", "status": "ASSIGNED"})).unwrap();
    for nothing in [json!(null), json!(""), json!([]), json!([""]), json!([null])] {
        let empty = with(json!({
            "serialNumber": "D1", "status": "ASSIGNED", "color": nothing, "eid": nothing, "imei": nothing,
            "wifiMacAddress": nothing, "ethernetMacAddress": nothing, "purchaseSourceId": nothing,
        }));
        assert_eq!(empty.unwrap(), full, "{nothing}");
    }
    for nothing in [json!(null), json!("")] {
        let empty = with(json!({
            "serialNumber": "D1", "status": "ASSIGNED", "orderDateTime": nothing, "isMdmMigrationCapable": nothing,
            "futureAttribute": nothing,
        }));
        assert_eq!(empty.unwrap(), full, "{nothing}");
    }
}

#[test]
fn a_list_and_a_text_of_one_say_the_same() {
    let text = with(json!({"imei": "350000000001012", "eid": "8904", "wifiMacAddress": "02:00:00:00:10:01"})).unwrap();
    let list = with(json!({"imei": ["350000000001012"], "eid": ["8904"], "wifiMacAddress": ["020000001001"]})).unwrap();
    assert_eq!(text, list);
}

#[test]
fn a_serial_number_is_kept_as_apple_spells_it() {
    let serial = |text: &str| with(json!({"serialNumber": text})).unwrap().serial_number;
    assert_eq!(serial("sim0000001 "), "sim0000001");
    assert_eq!(serial(" "), "D1", "a blank is none");
}

#[test]
fn both_names_of_the_purchase_source_and_of_ethernet_are_known() {
    let old = with(json!({"purchaseSourceUid": "1607", "builtInEthernetMacAddress": ["02-00-00-00-10-0a"]})).unwrap();
    let new = with(json!({"purchaseSourceId": "1607", "ethernetMacAddress": ["02000000100A"]})).unwrap();
    assert_eq!(old, new);
    assert_eq!(old.unmapped, None);
}

#[test]
fn times_have_any_number_of_digits_and_any_offset() {
    for text in [
        "2026-08-03T11:20:00Z",
        "2026-08-03T11:20:00.0Z",
        "2026-08-03T11:20:00.000000000Z",
        "2026-08-03T13:20:00+02:00",
        "2026-08-03T13:20:00+0200",
    ] {
        assert_eq!(with(json!({"orderDateTime": text})).unwrap().order_date_time, Some(1_785_756_000_000), "{text}");
    }
}

#[test]
fn a_bad_item_never_costs_its_neighbours() {
    let good = json!({"type": "orgDevices", "id": "GOOD", "attributes": {"status": "ASSIGNED"}});
    let bad = [
        (json!(7), None, "not_an_object"),
        (json!(null), None, "not_an_object"),
        (json!({}), None, "no_id"),
        (json!({"type": "orgDevices", "id": "  ", "attributes": {"status": "ASSIGNED"}}), None, "no_id"),
        (json!({"type": "orgDevices", "attributes": {"serialNumber": "S1"}}), Some("S1"), "no_id"),
        (json!({"type": "orgDevices", "id": "..", "attributes": {"status": "ASSIGNED"}}), Some(".."), "no_id"),
        (json!({"type": "orgDevices", "id": {"a": 1}, "attributes": {"serialNumber": "S2"}}), Some("S2"), "no_id"),
        (json!({"type": "mdmServers", "id": "X", "attributes": {"status": "ASSIGNED"}}), Some("X"), "wrong_type"),
        (json!({"type": "orgDevices", "id": "X", "attributes": {}}), Some("X"), "no_attributes"),
        (json!({"type": "orgDevices", "id": "X", "attributes": null}), Some("X"), "no_attributes"),
        (json!({"type": "orgDevices", "id": "X", "attributes": []}), Some("X"), "no_attributes"),
        (json!({"type": "orgDevices", "id": "X", "attributes": "RED"}), Some("X"), "no_attributes"),
        (
            json!({"type": "orgDevices", "id": "X", "attributes": {"color": "x".repeat(100_000)}}),
            Some("X"),
            "too_large",
        ),
    ];
    for (item, id, reason) in bad {
        let list = devices(&page(json!([good, item])), "acme").unwrap();
        assert_eq!(list.items.len(), 1, "{reason}");
        let [rejected] = list.rejected.as_slice() else { panic!("{:?}", list.rejected) };
        assert_eq!((rejected.index, rejected.id.as_deref(), rejected.reason), (1, id, reason));
        assert_eq!(rejected.raw, item.to_string().into_bytes());
    }
}

#[test]
fn one_bad_item_changes_nothing_in_how_the_others_are_read() {
    let whole = devices(fixture!("org-devices-page-1.json"), "acme").unwrap();
    let mut document: serde_json::Value = serde_json::from_slice(fixture!("org-devices-page-1.json")).unwrap();
    document["data"].as_array_mut().unwrap().push(json!(7));
    let spoiled = devices(document.to_string().as_bytes(), "acme").unwrap();
    assert_eq!(spoiled.items, whole.items);
    assert_eq!((spoiled.next, spoiled.total), (whole.next, whole.total));
    assert_eq!(spoiled.rejected.len(), 1);
}

#[test]
fn what_must_be_kept_is_weighed_and_not_what_is_thrown_away() {
    let blank = " ".repeat(200_000);
    let item =
        |attributes: &str, rest: &str| format!(r#"{{"data":[{{"id":"D1","attributes":{{{attributes}}}{rest}}}]}}"#);
    for light in [
        item(r#""color":"RED""#, &format!(r#","relationships":"{blank}""#)),
        item(&format!(r#""color":{blank}"RED""#), ""),
    ] {
        assert_eq!(devices(light.as_bytes(), "acme").unwrap().items.len(), 1);
    }
    let parts: Vec<_> = (0..100).map(|place| format!(r#""future{place}":["{}"]"#, "x".repeat(1_000))).collect();
    let heavy = item(&parts.join(","), "");
    assert_eq!(devices(heavy.as_bytes(), "acme").unwrap().rejected[0].reason, "too_large");
}

/// Reads one device and tells which of its fields were not read, and what is kept unread.
fn odd(attributes: &str) -> (DeviceValue, Vec<&'static str>) {
    let body = format!(r#"{{"data": [{{"type": "orgDevices", "id": "D1", "attributes": {{{attributes}}}}}]}}"#);
    let mut list = devices(body.as_bytes(), "acme").unwrap();
    assert!(list.rejected.is_empty(), "{attributes}: {:?}", list.rejected);
    let single = body.replace(['[', ']'], "");
    if !attributes.contains('[') {
        let (device, unread) = single_device(single.as_bytes(), "acme").unwrap();
        assert_eq!(
            (&device, &unread),
            (&list.items[0].value, &list.items[0].unread),
            "a single read reads as a list does"
        );
    }
    let item = list.items.remove(0);
    (*item.value, item.unread)
}

#[test]
fn a_value_that_is_not_understood_costs_its_attribute_alone_and_is_kept() {
    for (name, value, field) in [
        ("orderDateTime", r#""yesterday""#, "order_date_time"),
        ("orderDateTime", "1709164800", "order_date_time"),
        ("orderDateTime", r#""2023-02-29""#, "order_date_time"),
        ("orderDateTime", "{}", "order_date_time"),
        ("orderNumber", "7", "order_number"),
        ("color", r#"{"r":1}"#, "color"),
        ("imei", "[7]", "imei"),
        ("imei", r#"[["1"]]"#, "imei"),
        ("isMdmMigrationCapable", r#""perhaps""#, "is_mdm_migration_capable"),
        ("purchaseSourceUid", "7", "purchase_source_id"),
        ("builtInEthernetMacAddress", "true", "ethernet_mac_address"),
        ("serialNumber", "false", "serial_number"),
    ] {
        let (device, unread) = odd(&format!(r#""status": "ASSIGNED", "{name}": {value}"#));
        assert_eq!(unread, [field], "{name}: {value}");
        assert_eq!(device.status.as_deref(), Some("ASSIGNED"));
        assert_eq!(device.unmapped, Some(format!(r#"{{"{name}":{value}}}"#)));
    }
}

#[test]
fn one_readable_name_of_an_attribute_with_two_is_enough() {
    let (device, unread) = odd(r#""purchaseSourceUid": 7, "purchaseSourceId": "1607""#);
    assert_eq!((device.purchase_source_id.as_deref(), unread), (Some("1607"), vec![]));
}

#[test]
fn dates_without_a_zone_or_a_time_are_utc_and_an_empty_list_is_no_date() {
    for (value, millis) in [
        (r#""2024-02-29""#, Some(1_709_164_800_000)),
        (r#""2024-02-29T23:59:59""#, Some(1_709_251_199_000)),
        (r#""2024-02-29T23:59:59.5""#, Some(1_709_251_199_500)),
        (r#""2016-12-31T23:59:60Z""#, Some(1_483_228_800_000)),
        (r#"["2024-02-29"]"#, Some(1_709_164_800_000)),
        ("[]", None),
        ("null", None),
    ] {
        let (device, unread) = odd(&format!(r#""status": "ASSIGNED", "orderDateTime": {value}"#));
        assert_eq!((device.order_date_time, device.unmapped, unread), (millis, None, vec![]), "{value}");
    }
}

#[test]
fn half_a_surrogate_pair_becomes_the_replacement_character_and_a_whole_one_stays() {
    for (json, text) in [
        (r"\ud83d", "\u{fffd}"),
        (r"\ude00 RED", "\u{fffd} RED"),
        (r"\uD83D\uDE00", "\u{1f600}"),
        (r"\ud83d\ud83d\ude00", "\u{fffd}\u{1f600}"),
        (r"\\ud83d", r"\ud83d"),
        (r"\ud83d\n", "\u{fffd}\n"),
    ] {
        let (device, unread) = odd(&format!(r#""color": "{json}""#));
        assert_eq!((device.color.as_deref(), unread), (Some(text), vec![]), "{json}");
    }
    let broken = b"{\"data\": [{\"id\": \"D1\", \"attributes\": {\"color\": \"R\xffD\"}}]}";
    assert_eq!(devices(broken, "acme").unwrap().items[0].value.color.as_deref(), Some("R\u{fffd}D"));
    let (device, _) = odd(r#""color": "RED", "future\udc00": "\ud800""#);
    assert_eq!(device.unmapped.as_deref(), Some("{\"future\u{fffd}\":\"\u{fffd}\"}"));
}

#[test]
fn the_last_of_equal_keys_counts() {
    let (device, _) = odd(r#""color": "RED", "color": "BLUE", "future": 1, "future": 2"#);
    assert_eq!((device.color.as_deref(), device.unmapped.as_deref()), (Some("BLUE"), Some(r#"{"future":2}"#)));
    let (device, unread) = odd(r#""color": "RED", "color": 7"#);
    assert_eq!((device.color, unread, device.unmapped.as_deref()), (None, vec!["color"], Some(r#"{"color":7}"#)));
    let (device, unread) = odd(r#""color": 7, "color": "RED", "future": 1, "future": null"#);
    assert_eq!((device.color.as_deref(), unread, device.unmapped), (Some("RED"), vec![], None));
    let twice =
        br#"{"data": [{"id": "A", "id": "D1", "attributes": {"color": "RED"}, "attributes": {"status": "X"}}]}"#;
    let device = &devices(twice, "acme").unwrap().items[0].value;
    assert_eq!((device.device_id.as_str(), device.color.as_deref()), ("D1", None));
}

#[test]
fn what_no_parser_takes_is_kept_as_text() {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let (device, _) = odd(&format!(r#""color": "RED", "future": {deep}, "large": 1e999"#));
    assert_eq!(device.unmapped, Some(format!(r#"{{"future":"{deep}","large":"1e999"}}"#)));
}

#[test]
fn nesting_without_end_rejects_its_item_by_name() {
    let deep = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for (place, reason) in [
        (format!(r#""attributes": {{"future": {}}}"#, deep(1_000_000)), "too_large"),
        (format!(r#""attributes": {}"#, deep(200)), "no_attributes"),
    ] {
        let body = format!(r#"{{"data": [{{"id": "D1", {place}}}]}}"#);
        let list = devices(body.as_bytes(), "acme").unwrap();
        assert_eq!((list.rejected[0].id.as_deref(), list.rejected[0].reason), (Some("D1"), reason));
    }
    let elsewhere =
        format!(r#"{{"data": [{{"id": "D1", "attributes": {{"color": "RED"}}, "relationships": {}}}]}}"#, deep(90));
    assert_eq!(devices(elsewhere.as_bytes(), "acme").unwrap().items.len(), 1);
}

#[test]
fn of_two_equal_items_one_counts_and_of_two_different_ones_the_first() {
    let item = |color: &str| json!({"type": "orgDevices", "id": "D1", "attributes": {"color": color}});
    let list = devices(&page(json!([item("RED"), item("RED")])), "acme").unwrap();
    assert_eq!((list.items.len(), list.rejected.len()), (1, 0));
    let list = devices(&page(json!([item("RED"), item("BLUE")])), "acme").unwrap();
    assert_eq!(list.items[0].value.color.as_deref(), Some("RED"));
    assert_eq!((list.rejected[0].index, list.rejected[0].reason), (1, "duplicate_id"));
}

#[test]
fn a_document_that_is_no_list_is_refused_as_a_whole() {
    let whole = fixture!("org-devices-page-1.json");
    for (body, why) in [
        (b"".as_slice(), "it is empty"),
        (b"  <html><body>Sign in</body></html>", "it is HTML or XML, not JSON"),
        (b"upstream error", "it is not a JSON document"),
        (b"{}", "missing field `data`"),
        (b"{\"data\": null}", "a list `data`"),
        (b"{\"data\": {}}", "a list `data`"),
        (b"{\"data\": [], \"data\": []}", "a key stands there twice"),
    ] {
        let refused = devices(body, "acme").unwrap_err().0;
        assert!(refused.contains(why), "{refused}");
    }
    let refused = devices(&whole[..whole.len() / 2], "acme").unwrap_err().0;
    assert!(refused.starts_with("its JSON is cut off after"), "{refused}");
}

#[test]
fn a_page_of_a_million_items_is_refused() {
    let body = format!(r#"{{"data": [{}1]}}"#, "1,".repeat(1_000_000));
    assert!(devices(body.as_bytes(), "acme").unwrap_err().0.contains("more than 5000 items"));
}

#[test]
fn servers_are_read_with_what_their_list_leaves_out() {
    let list = servers(fixture!("mdm-servers.json"), "acme").unwrap();
    assert_eq!(list.rejected, []);
    insta::assert_yaml_snapshot!(list.items.iter().map(|item| &item.value).collect::<Vec<_>>());
}

#[test]
fn linkage_lists_give_ids_and_their_next_page() {
    let first = linkage(fixture!("mdm-server-devices-linkage-page-1.json")).unwrap();
    let ids: Vec<_> = first.items.iter().map(|item| item.value.as_str()).collect();
    assert_eq!(ids, ["FXTPHN0001AA", "FXTPAD0002BB", "FXTMAC0003CC"]);
    assert!(matches!(first.next, Next::At { .. }));
    let last = linkage(fixture!("mdm-server-devices-linkage-page-2-last.json")).unwrap();
    assert_eq!(last.next, Next::End);
}

#[test]
fn a_devices_server_is_read_in_every_form_of_none() {
    assert_eq!(to_one(fixture!("assigned-server-linkage.json")), Ok(Some("F1".repeat(16))));
    for none in [
        fixture!("assigned-server-linkage-unassigned.json").as_slice(),
        b"{\"data\": null}",
        b"{\"data\": {\"type\": \"mdmServers\"}}",
        b"{\"links\": {}}",
    ] {
        assert_eq!(to_one(none), Ok(None));
    }
}

#[test]
fn a_single_read_is_read_as_a_list_is() {
    let (single, _) = single_device(fixture!("org-device.json"), "acme").unwrap();
    let page = devices(fixture!("org-devices-page-1.json"), "acme").unwrap();
    assert_eq!(single.device_id, page.items[0].value.device_id);
    assert_eq!(single.wifi_mac_address, Some(vec!["020000000101".to_owned()]));
    let (released, _) = single_device(fixture!("org-device-released.json"), "acme").unwrap();
    assert!(released.released_from_org_date_time.is_some());
    assert_eq!(single_device(b"{\"data\": null}", "acme"), Err(Unreadable("its `data` is empty".to_owned())));
}

#[test]
fn only_apples_error_document_tells_problems() {
    let code = |body: &[u8]| problems(body).map(|problems| problems[0].code.clone());
    assert_eq!(code(fixture!("error-404.json")), Some("NOT_FOUND".to_owned()));
    assert_eq!(code(b"{\"errors\": [{}]}"), Some(String::new()));
    for other in [b"".as_slice(), b"<html>", b"{}", b"{\"errors\": []}", b"{\"errors\": null}", b"{\"error\": \"x\"}"] {
        assert_eq!(problems(other), None);
    }
    let noisy = b"{\"errors\": [{\"code\": \"Bearer \\u001b[31m eyJ\"}]}";
    assert_eq!(code(noisy), Some(String::new()), "what is no code is not repeated");
}

#[test]
fn a_problem_tells_apples_sentence_and_whether_it_is_about_the_cursor() {
    let told = |error: serde_json::Value| {
        let problem = problems(json!({"errors": [error]}).to_string().as_bytes()).unwrap().remove(0);
        (problem.detail, problem.cursor)
    };
    assert_eq!(told(json!({"title": "t", "detail": "d"})), ("d".to_owned(), false));
    assert_eq!(told(json!({"title": "t"})), ("t".to_owned(), false));
    for named in [
        json!({"source": {"parameter": "cursor"}}),
        json!({"source": {"parameter": {"parameter": "cursor"}}}),
        json!({"code": "PARAMETER_ERROR.CURSOR_EXPIRED"}),
        json!({"detail": "The Cursor has expired"}),
    ] {
        assert!(told(named.clone()).1, "{named}");
    }
}

#[test]
fn a_next_page_of_an_unknown_form_is_no_last_page() {
    let page = |links: &serde_json::Value, meta: &serde_json::Value| {
        devices(json!({"data": [], "links": links, "meta": meta}).to_string().as_bytes(), "acme").map(|list| list.next)
    };
    for nothing in [json!(null), json!(""), json!([])] {
        let next = page(&json!({"next": nothing}), &json!({"paging": {"nextCursor": nothing, "total": nothing}}));
        assert_eq!(next, Ok(Next::End), "{nothing}");
        assert_eq!(page(&nothing, &nothing), Ok(Next::End), "{nothing}");
    }
    for odd in
        [json!(7), json!(true), json!(["/v1/orgDevices?cursor=a"]), json!({}), json!({"href": 7}), json!({"to": "x"})]
    {
        for next in [page(&json!({"next": odd}), &json!({})), page(&json!({}), &json!({"paging": {"nextCursor": odd}}))]
        {
            let refused = next.unwrap_err().0;
            assert!(refused.contains("leads to the next page in a form that is not known"), "{odd}: {refused}");
        }
    }
    assert!(page(&json!("/v1/orgDevices?cursor=a"), &json!({})).is_err());
    let object = page(&json!({"next": {"href": "https://x/?cursor=a"}}), &json!({}));
    assert_eq!(object, Ok(Next::At { cursor: None, link: Some("https://x/?cursor=a".to_owned()) }));
}

proptest! {
    #[test]
    fn a_page_cut_anywhere_is_refused_as_a_whole(at in 0_usize..6_000) {
        let whole = fixture!("org-devices-page-1.json").trim_ascii_end();
        let cut = &whole[..at.min(whole.len() - 1)];
        prop_assert!(devices(cut, "acme").is_err());
    }

    #[test]
    fn no_byte_that_is_changed_makes_us_panic(at in 0_usize..6_000, byte in any::<u8>()) {
        let mut body = fixture!("org-devices-page-1.json").to_vec();
        let place = at % body.len();
        body[place] = byte;
        if let Ok(list) = devices(&body, "acme") {
            prop_assert!(list.items.len() + list.rejected.len() <= 5);
        }
    }

    #[test]
    fn the_order_of_attributes_means_nothing(order in Just((0..6_usize).collect::<Vec<_>>()).prop_shuffle()) {
        let attributes = [
            r#""serialNumber":"S""#, r#""color":"RED""#, r#""zeta":1"#, r#""alpha":{"b":1,"a":2}"#,
            r#""imei":["1","2"]"#, r#""orderDateTime":"2026-08-03T11:20:00Z""#,
        ];
        let body = |order: &[usize]| {
            let parts: Vec<_> = order.iter().map(|place| attributes[*place]).collect();
            format!(r#"{{"data":[{{"id":"D1","attributes":{{{}}}}}]}}"#, parts.join(","))
        };
        let shuffled = devices(body(&order).as_bytes(), "acme").unwrap();
        let straight = devices(body(&[0, 1, 2, 3, 4, 5]).as_bytes(), "acme").unwrap();
        prop_assert_eq!(&shuffled.items[0].value, &straight.items[0].value);
        prop_assert_eq!(straight.items[0].value.unmapped.as_deref(), Some(r#"{"alpha":{"a":2,"b":1},"zeta":1}"#));
    }
}
