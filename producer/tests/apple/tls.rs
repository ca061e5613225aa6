//! A server whose certificate nobody vouches for gets nothing: no token request, no request, no plain text instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use windfall_producer::apple::{DirectoryError, Retry, TokenError};

use super::clock::PatientClock;
use super::{directory_with, options};
use windfall_runtime::diagnose::Diagnose as _;

#[derive(Default)]
struct Heard {
    connections: AtomicUsize,
    bytes: AtomicUsize,
}

/// Speaks TLS with a self-signed certificate and counts what it is told inside.
async fn impostor() -> (String, Arc<Heard>) {
    let certificate = CertificateDer::from_pem_slice(include_bytes!("../keys/certificate.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../keys/pkcs8.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let heard = Arc::new(Heard::default());
    let ears = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            ears.connections.fetch_add(1, Ordering::SeqCst);
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                ears.bytes.fetch_add(count, Ordering::SeqCst);
            }
        }
    });
    (url, heard)
}

#[tokio::test]
async fn an_impostor_is_told_nothing() {
    let (url, heard) = impostor().await;
    let error = directory_with(options(&url), &PatientClock::new()).page(None).await.unwrap_err();
    assert!(matches!(&error, DirectoryError::Token(TokenError::Unreachable(_))), "{error}");
    assert_eq!(error.retry(), Retry::Backoff);
    assert!(heard.connections.load(Ordering::SeqCst) >= 1, "somebody knocked");
    assert_eq!(heard.bytes.load(Ordering::SeqCst), 0, "and said nothing");
}

#[tokio::test]
async fn plain_http_to_another_machine_is_never_spoken() {
    // Refused before a connection is made, so that nothing needs to listen there.
    let error = directory_with(options("http://192.0.2.1:9"), &PatientClock::new()).page(None).await.unwrap_err();
    let DirectoryError::Token(TokenError::Unreachable(source)) = &error else { panic!("{error}") };
    assert!(source.client().is_builder(), "{source:?}");
}
