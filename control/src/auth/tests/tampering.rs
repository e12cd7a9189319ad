//! Every change of a signed request is noticed.

use super::*;

/// The parameters in query or form, wherever they are.
fn parameters(signed: &mut Signed) -> &mut Vec<(String, String)> {
    if signed.query.is_empty() {
        &mut signed.form
    } else {
        &mut signed.query
    }
}

fn set(signed: &mut Signed, name: &str, value: &str) {
    for (n, v) in signed.query.iter_mut().chain(&mut signed.form) {
        if n == name {
            *v = value.to_owned();
        }
    }
}

fn remove(signed: &mut Signed, name: &str) {
    signed.query.retain(|(n, _)| n != name);
    signed.form.retain(|(n, _)| n != name);
}

fn add(signed: &mut Signed, name: &str, value: &str) {
    signed.query.push((name.to_owned(), value.to_owned()));
}

#[test]
fn tampered_query_signatures() {
    type Change = fn(&mut Signed);
    #[rustfmt::skip] // A table.
    let rows: [(&str, Change, &str); 25] = [
        ("value", |s| set(s, "ClusterId", "other"), "SignatureDoesNotMatch"),
        ("value by case", |s| set(s, "Action", "listcontainerimages"), "SignatureDoesNotMatch"),
        ("plus for space", |s| set(s, "ClusterId", "a+b+c/d~e*f'(中)"), "SignatureDoesNotMatch"),
        ("encoded once more", |s| set(s, "ClusterId", "a%20b+c/d~e*f'(中)"), "SignatureDoesNotMatch"),
        ("empty one removed", |s| remove(s, "Empty"), "SignatureDoesNotMatch"),
        ("one removed", |s| remove(s, "PageSize"), "SignatureDoesNotMatch"),
        ("one added", |s| add(s, "RegionId", "x"), "SignatureDoesNotMatch"),
        ("empty one added", |s| add(s, "x", ""), "SignatureDoesNotMatch"),
        ("name by case added", |s| add(s, "clusterId", "x"), "SignatureDoesNotMatch"),
        ("signature stripped", |s| remove(s, "Signature"), "MissingParameter"),
        ("signature empty", |s| set(s, "Signature", ""), "MissingParameter"),
        ("signature renamed", |s| { remove(s, "Signature"); add(s, "signature", "x") }, "MissingParameter"),
        ("key stripped", |s| remove(s, "AccessKeyId"), "MissingParameter"),
        ("key exchanged", |s| set(s, "AccessKeyId", "other"), "SignatureDoesNotMatch"),
        ("time stripped", |s| remove(s, "Timestamp"), "MissingParameter"),
        ("time exchanged", |s| set(s, "Timestamp", "2026-01-02T03:04:06Z"), "SignatureDoesNotMatch"),
        ("time malformed", |s| set(s, "Timestamp", "now"), "InvalidTimeStamp.Format"),
        ("nonce stripped", |s| remove(s, "SignatureNonce"), "MissingParameter"),
        ("nonce exchanged", |s| set(s, "SignatureNonce", "n"), "SignatureDoesNotMatch"),
        ("nonce as long as may be", |s| set(s, "SignatureNonce", &"n".repeat(256)), "SignatureDoesNotMatch"),
        ("nonce too long", |s| set(s, "SignatureNonce", &"n".repeat(257)), "InvalidParams"),
        ("method none", |s| remove(s, "SignatureMethod"), "MissingParameter"),
        ("method other", |s| set(s, "SignatureMethod", "HMAC-SHA256"), "InvalidSignatureMethod"),
        ("version other", |s| set(s, "SignatureVersion", "2.0"), "InvalidSignatureMethod"),
        ("type of other credentials", |s| add(s, "SignatureType", "BEARERTOKEN"), "InvalidSignatureMethod"),
    ];
    for (name, change, expected) in rows {
        for method in METHODS {
            let mut signed = Attempt::new(Generation::V1, method.clone()).sign();
            change(&mut signed);
            let result = present(&authenticator(), &signed);
            assert_eq!(code(result), expected, "{name} {method}");
        }
    }
    // What is signed does not depend on where a parameter travels, only on the method.
    let mut moved = Attempt::new(Generation::V1, Method::GET).sign();
    moved.form = moved.query.split_off(3);
    assert_eq!(code(present(&authenticator(), &moved)), "OK");
    moved.method = Method::POST;
    assert_eq!(
        code(present(&authenticator(), &moved)),
        "SignatureDoesNotMatch"
    );
}

#[test]
fn tampered_header_signatures() {
    type Change = fn(&mut Signed);
    #[rustfmt::skip] // A table.
    let rows: [(&str, Change, &str); 38] = [
        ("value", |s| parameters(s)[0].1.push('x'), "tampered"),
        ("one removed", |s| drop(parameters(s).pop()), "tampered"),
        ("one added to the query", |s| add(s, "x", "y"), "SignatureDoesNotMatch"),
        ("empty one added", |s| add(s, "x", ""), "SignatureDoesNotMatch"),
        ("body", |s| s.body.push(b'x'), "SignatureDoesNotMatch"),
        ("body and hash", |s| { s.body.push(b'x'); let hash = canonical::sha256_hex(&s.body); header(s, "x-acs-content-sha256", &hash); }, "SignatureDoesNotMatch"),
        ("hash", |s| header(s, "x-acs-content-sha256", &"0".repeat(64)), "SignatureDoesNotMatch"),
        ("hash unsigned payload", |s| header(s, "x-acs-content-sha256", "UNSIGNED-PAYLOAD"), "SignatureDoesNotMatch"),
        ("hash stripped", |s| drop(s.headers.remove("x-acs-content-sha256")), "MissingParameter"),
        ("host", |s| header(s, "host", "other"), "SignatureDoesNotMatch"),
        ("host twice", |s| { append(s, "host", "example.org") }, "IncompleteSignature"),
        ("host stripped", |s| drop(s.headers.remove("host")), "IncompleteSignature"),
        ("action", |s| header(s, "x-acs-action", "DeleteImage"), "SignatureDoesNotMatch"),
        ("action by case", |s| header(s, "x-acs-action", "listContainerImages"), "SignatureDoesNotMatch"),
        ("action stripped", |s| drop(s.headers.remove("x-acs-action")), "MissingParameter"),
        ("action twice", |s| { append(s, "x-acs-action", "X") }, "IncompleteSignature"),
        ("version", |s| header(s, "x-acs-version", "2020-01-01"), "SignatureDoesNotMatch"),
        ("date", |s| header(s, "x-acs-date", "2026-01-02T03:04:06Z"), "SignatureDoesNotMatch"),
        ("date malformed", |s| header(s, "x-acs-date", "20260102T030405Z"), "InvalidTimeStamp.Format"),
        ("date stripped", |s| drop(s.headers.remove("x-acs-date")), "MissingParameter"),
        ("nonce", |s| header(s, "x-acs-signature-nonce", "n"), "SignatureDoesNotMatch"),
        ("nonce stripped", |s| drop(s.headers.remove("x-acs-signature-nonce")), "MissingParameter"),
        ("nonce too long", |s| header(s, "x-acs-signature-nonce", &"n".repeat(257)), "InvalidParams"),
        ("nonce twice", |s| { append(s, "x-acs-signature-nonce", "n") }, "IncompleteSignature"),
        ("accept", |s| header(s, "accept", "text/html"), "SignatureDoesNotMatch"),
        ("signature stripped", |s| drop(s.headers.remove("authorization")), "MissingParameter"),
        ("signature upper case", |s| { authorization(s, |a| { let (head, signature) = a.rsplit_once('=').unwrap(); format!("{head}={}", signature.to_uppercase()) }) }, "SignatureDoesNotMatch"),
        // The key's name is not part of what is signed: two keys of one secret would be one.
        ("signature of other", |s| authorization(s, |a| a.replace("testid", "other")), "OK"),
        ("signature twice", |s| { let again = s.headers["authorization"].clone(); s.headers.append("authorization", again); }, "IncompleteSignature"),
        ("key named otherwise", |s| header(s, "x-acs-accesskey-id", "other"), "IncompleteSignature"),
        ("token not signed", |s| header(s, "x-acs-security-token", ""), "IncompleteSignature"),
        ("host not signed", |s| authorization(s, |a| a.replace(";host", "")), "IncompleteSignature"),
        ("nonce not signed", |s| authorization(s, |a| a.replace(";x-acs-signature-nonce", "")), "IncompleteSignature"),
        ("signed but not there", |s| authorization(s, |a| a.replace(";host", ";gone;host")), "IncompleteSignature"),
        ("signed twice", |s| authorization(s, |a| a.replace(";host", ";host;HOST")), "IncompleteSignature"),
        ("signed a thousand times", |s| authorization(s, |a| a.replace(";host", &format!(";host{}", ";accept".repeat(1000)))), "IncompleteSignature"),
        ("nothing signed", |s| { authorization(s, |a| { let begin = a.find("accept;").unwrap(); let end = a.find(",Signature").unwrap(); format!("{}{}{}", &a[..begin], "host", &a[end..]) }) }, "IncompleteSignature"),
        ("algorithm", |s| authorization(s, |a| a.replace("SHA256 ", "SM3 ")), "InvalidSignatureMethod"),
    ];
    for (name, change, expected) in rows {
        for method in METHODS {
            let mut signed = Attempt::new(Generation::Acs3, method.clone()).sign();
            change(&mut signed);
            let result = present(&authenticator(), &signed);
            let expected = match expected {
                // Form parameters are covered by the hash of the body they were read from; here
                // the list was changed without the body, which cannot happen on the wire.
                "tampered" if method == Method::POST => "OK",
                "tampered" => "SignatureDoesNotMatch",
                other => other,
            };
            assert_eq!(code(result), expected, "{name} {method}");
        }
    }
}

#[test]
fn a_signature_over_another_hash_than_that_of_the_body_is_none() {
    // A client may sign what it likes; what has been read must be what the header says.
    for (name, hash, expected) in [
        ("right", canonical::sha256_hex(b""), "OK"),
        (
            "wrong",
            canonical::sha256_hex(b"x"),
            "SignatureDoesNotMatch",
        ),
        ("none", "UNSIGNED-PAYLOAD".into(), "SignatureDoesNotMatch"),
        (
            "upper case",
            canonical::sha256_hex(b"").to_uppercase(),
            "SignatureDoesNotMatch",
        ),
    ] {
        let mut signed = Attempt::new(Generation::Acs3, Method::GET).sign();
        header(&mut signed, "x-acs-content-sha256", &hash);
        let old = signed.headers["authorization"].to_str().unwrap().to_owned();
        let (head, _) = old.rsplit_once('=').unwrap();
        let (_, names) = head.split_once("SignedHeaders=").unwrap();
        let (names, _) = names.split_once(',').unwrap();
        let text = canonical::acs3_string_to_sign(
            "GET",
            signed.query.iter(),
            &signed.headers,
            names,
            &canonical::sha256_hex(b""),
        );
        let signature = canonical::acs3_signature("testsecret", &text.unwrap());
        authorization(&mut signed, |_| format!("{head}={signature}"));
        assert_eq!(code(present(&authenticator(), &signed)), expected, "{name}");
    }
}
