//! What a source may be configured with.

use windfall_producer::config::{SourceConfig, SourceKind};
use windfall_runtime::secret::Secret;

use super::KEY;

fn source() -> SourceConfig {
    SourceConfig {
        name: "acme".to_owned(),
        kind: SourceKind::Abm,
        client_id: "BUSINESSAPI.00000000-0000-4000-8000-000000000001".to_owned(),
        key_id: Some("00000000-0000-4000-8000-000000000002".to_owned()),
        private_key: Secret::new(KEY),
        api_url: None,
        token_url: windfall_producer::config::DEFAULT_TOKEN_URL.to_owned(),
        rate_limit: Default::default(),
        scan: Default::default(),
        breaker: Default::default(),
    }
}

fn violations(change: impl FnOnce(&mut SourceConfig)) -> Vec<String> {
    let mut source = source();
    change(&mut source);
    let violations = source.violations().into_iter();
    violations.map(|violation| format!("{violation}; {}", violation.help.as_deref().unwrap_or_default())).collect()
}

#[test]
fn what_the_portal_gives_is_enough() {
    assert_eq!(violations(|_| {}), Vec::<String>::new());
    let source = source();
    assert_eq!(source.api_url().unwrap().as_str(), "https://api-business.apple.com/");
    assert_eq!(source.account().unwrap().scope, "business.api");
    let limit = source.rate_limit.limit();
    assert_eq!((limit.requests, limit.per.as_secs(), limit.share), (20, 60, 1.0));
    assert_eq!((source.scan.page_size, source.scan.interval.get().as_secs()), (1000, 3600));
}

#[test]
fn school_manager_has_its_own_host_scope_and_client_ids() {
    let change = |source: &mut SourceConfig| {
        source.kind = SourceKind::Asm;
        source.client_id = "SCHOOLAPI.1".to_owned();
    };
    assert_eq!(violations(change), Vec::<String>::new());
    assert_eq!(
        (SourceKind::Asm.product().api_url, SourceKind::Asm.product().scope),
        ("https://api-school.apple.com", "school.api")
    );
}

#[test]
fn every_fault_is_named_with_its_rule_and_remedy() {
    let everything = violations(|source| {
        source.name = "Acme Inc".to_owned();
        source.client_id = "SCHOOLAPI.1".to_owned();
        source.key_id = Some(" ".to_owned());
        source.private_key = Secret::new(include_str!("../keys/p384-sec1.pem"));
        source.api_url = Some("https://api-business.apple.com/v1".to_owned());
        source.token_url = "http://account.apple.com/auth/oauth2/token".to_owned();
        source.rate_limit.requests = 0;
        source.rate_limit.share = 1.5;
        source.scan.page_size = 1001;
    });
    insta::assert_snapshot!(everything.join("\n"));
}

#[test]
fn plain_http_is_for_this_machine_alone() {
    for good in ["http://127.0.0.1:8080", "http://localhost:1", "http://[::1]:8080", "https://api.example"] {
        assert_eq!(violations(|source| source.api_url = Some(good.to_owned())), Vec::<String>::new(), "{good}");
    }
    for bad in [
        "http://10.0.0.1",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://0.0.0.0:1",
        "ftp://127.0.0.1",
        "https://user:pass@api.example",
        "https://api.example?x=1",
        "api-business.apple.com",
        "",
    ] {
        assert_eq!(violations(|source| source.api_url = Some(bad.to_owned())).len(), 1, "{bad}");
    }
}

#[test]
fn a_bad_key_is_refused_before_the_first_request_and_never_shown() {
    for (pem, what) in [
        (include_str!("../keys/encrypted-pkcs8.pem"), "encrypted"),
        (include_str!("../keys/public.pem"), "`PUBLIC KEY`"),
        (include_str!("../keys/rsa-pkcs8.pem"), "RSA"),
        ("canary", "not in PEM form"),
    ] {
        let [violation] = violations(|source| source.private_key = Secret::new(pem)).try_into().unwrap();
        assert!(violation.starts_with("`private_key`") && violation.contains(what), "{violation}");
        assert!(!violation.contains("canary"), "{violation}");
    }
}

#[test]
fn no_output_of_a_source_holds_its_key() {
    let shown = format!("{:?}", source());
    assert!(!shown.contains("BEGIN") && shown.contains("redacted"), "{shown}");
}

#[test]
fn shares_that_are_no_share_are_refused() {
    for share in [0.0, -1.0, 1.01, f64::NAN, f64::INFINITY] {
        assert_eq!(violations(|source| source.rate_limit.share = share).len(), 1, "{share}");
    }
}
