//! Every form of a key file that was seen, and every file that is no such key.

use windfall_producer::apple::key::{KeyError, SigningKey};
use windfall_runtime::diagnose::Diagnose as _;
use windfall_simulator::{KeyForm, Simulator};

macro_rules! pem {
    ($name:literal) => {
        include_str!(concat!("../keys/", $name, ".pem"))
    };
}

fn load(pem: &str) -> Result<(), KeyError> {
    SigningKey::from_pem(pem).map(drop)
}

#[test]
fn every_form_that_was_seen_is_read() {
    let pkcs8 = pem!("pkcs8");
    let mislabelled = pkcs8.replace("PRIVATE KEY", "EC PRIVATE KEY");
    let forms = [
        ("SEC1", pem!("sec1").to_owned()),
        ("PKCS#8", pkcs8.to_owned()),
        ("EC PARAMETERS in front", pem!("ecparam").to_owned()),
        ("PKCS#8 under the label of SEC1", mislabelled.clone()),
        ("the same without a last line feed", mislabelled.trim_end().to_owned()),
        ("SEC1 under the label of PKCS#8", pem!("sec1").replace("EC PRIVATE KEY", "PRIVATE KEY")),
        ("CRLF", pem!("ecparam").replace('\n', "\r\n")),
        ("a byte order mark", format!("\u{feff}{pkcs8}")),
        ("blank lines around", format!("\n\n{pkcs8}\n\n")),
        ("text in front, as openssl writes it", format!("Bag Attributes\n    friendlyName: x\n{pkcs8}")),
        ("line ends written out, as in a variable", pkcs8.replace('\n', "\\n")),
        ("one line", pkcs8.replace('\n', " ")),
        ("a certificate in front", format!("{}{pkcs8}", pem!("certificate"))),
    ];
    for (form, pem) in forms {
        assert_eq!(load(&pem), Ok(()), "{form}");
    }
}

#[test]
fn every_form_that_the_simulator_writes_is_read() {
    let credentials = Simulator::builder().seed(7).credentials().remove(0);
    for form in [KeyForm::Pkcs8, KeyForm::Sec1, KeyForm::Mislabelled, KeyForm::WithParameters, KeyForm::Crlf] {
        assert_eq!(load(&credentials.private_key_as(form)), Ok(()), "{form:?}");
    }
}

#[test]
fn what_is_no_such_key_is_refused_by_what_it_is() {
    let cut = &pem!("pkcs8")[..120];
    let damaged = pem!("pkcs8").replacen("MIGH", "MI*H", 1);
    let garbage = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let not_private = |label: &str| KeyError::NotPrivate { label: label.to_owned() };
    for (pem, refusal) in [
        ("", KeyError::Empty),
        (" \n", KeyError::Empty),
        ("hunter2", KeyError::NotPem),
        (cut, KeyError::Unfinished { label: "PRIVATE KEY".to_owned() }),
        (&damaged, KeyError::Damaged),
        (garbage, KeyError::Unreadable),
        (pem!("public"), not_private("PUBLIC KEY")),
        (pem!("certificate"), not_private("CERTIFICATE")),
        (pem!("encrypted-pkcs8"), KeyError::Encrypted),
        (pem!("encrypted-sec1"), KeyError::Encrypted),
        (pem!("p384-sec1"), KeyError::WrongCurve { curve: "P-384" }),
        (pem!("p384-pkcs8"), KeyError::WrongCurve { curve: "P-384" }),
        (pem!("secp256k1"), KeyError::WrongCurve { curve: "secp256k1" }),
        (pem!("rsa-pkcs1"), KeyError::NotEc { kind: "RSA" }),
        (pem!("rsa-pkcs8"), KeyError::NotEc { kind: "RSA" }),
        (pem!("ed25519"), KeyError::NotEc { kind: "Ed25519" }),
        (pem!("openssh"), KeyError::NotEc { kind: "OpenSSH" }),
    ] {
        assert_eq!(load(pem), Err(refusal), "{}", pem.lines().next().unwrap_or_default());
    }
}

#[test]
fn refusals_say_what_is_wrong_and_what_to_do() {
    let said = |pem: &str| {
        let refusal = load(pem).unwrap_err();
        format!("{refusal}; {}", refusal.help().unwrap())
    };
    insta::assert_snapshot!(
        [said(pem!("p384-sec1")), said(pem!("encrypted-pkcs8")), said(pem!("public")), said("hunter2"), said("")]
            .join("\n")
    );
}

#[test]
fn no_refusal_and_no_debug_output_holds_a_part_of_the_key() {
    let pem = pem!("pkcs8");
    let secret = pem.lines().nth(1).unwrap();
    let key = SigningKey::from_pem(pem).unwrap();
    assert_eq!(format!("{key:?}"), "SigningKey([redacted])");
    let broken = pem.replacen(&secret[10..12], "*!", 1);
    let refusal = load(&broken).unwrap_err();
    assert!(!format!("{refusal} {refusal:?}").contains(&secret[20..40]));
}
