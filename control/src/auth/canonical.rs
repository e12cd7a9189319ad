//! The two canonical forms and their signatures: what is signed, byte for byte.
//!
//! Pure functions, shared by the server (which verifies) and by `sifter-control call` (which
//! signs), so that the two can never drift apart unnoticed by the vectors below.
//!
//! Invariants: the raw query string is never signed, only decoded parameters, encoded again by
//! [`encode`]; comparison of signatures takes the same time wherever they differ.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// `A-Z a-z 0-9 - _ . ~`, which are never escaped.
const UNRESERVED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] =
            (byte as u8).is_ascii_alphanumeric() || matches!(byte as u8, b'-' | b'_' | b'.' | b'~');
        byte += 1;
    }
    table
};

/// Name of the parameter that carries a query signature, the only one that is not signed.
pub const SIGNATURE: &str = "Signature";

/// The one algorithm of the header signature that is served.
pub const ACS3_ALGORITHM: &str = "ACS3-HMAC-SHA256";

/// Percent-encodes as both generations do: upper-case hex, space as `%20`, `*` as `%2A`, `~` kept.
pub fn encode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 16);
    push_encoded(&mut out, text, b"%");
    ascii(out)
}

/// Appends a text percent-encoded, each escape behind `escape`: `%`, or `%25` where what was encoded is
/// encoded once more.
fn push_encoded(out: &mut Vec<u8>, text: &str, escape: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text.as_bytes() {
        if UNRESERVED[usize::from(byte)] {
            out.push(byte);
        } else {
            out.extend_from_slice(escape);
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 0xf)]);
        }
    }
}

fn ascii(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("only ASCII was written")
}

/// Parameters in the order of the bytes of their names (then of their values).
fn sorted<'a, T: AsRef<str> + 'a>(
    parameters: impl Iterator<Item = &'a (T, T)>,
) -> Vec<(&'a str, &'a str)> {
    let mut pairs: Vec<_> = parameters
        .map(|(name, value)| (name.as_ref(), value.as_ref()))
        .collect();
    pairs.sort_unstable();
    pairs
}

/// `name=value` pairs, both encoded, joined with `&`.
pub fn canonical_query<'a, T: AsRef<str> + 'a>(
    parameters: impl Iterator<Item = &'a (T, T)>,
) -> String {
    let mut out = Vec::with_capacity(256);
    push_query(&mut out, parameters, b"%", b"=", b"&");
    ascii(out)
}

fn push_query<'a, T: AsRef<str> + 'a>(
    out: &mut Vec<u8>,
    parameters: impl Iterator<Item = &'a (T, T)>,
    escape: &[u8],
    equals: &[u8],
    and: &[u8],
) {
    for (index, (name, value)) in sorted(parameters).into_iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(and);
        }
        push_encoded(out, name, escape);
        out.extend_from_slice(equals);
        push_encoded(out, value, escape);
    }
}

/// The query signature's string to sign, over the parameters of query and form together: the method,
/// the path, and the canonical query encoded as a whole, which is written in one go.
pub fn v1_string_to_sign<'a, T: AsRef<str> + 'a>(
    method: &str,
    parameters: impl Iterator<Item = &'a (T, T)>,
) -> String {
    let mut out = Vec::with_capacity(1024);
    // A method of HTTP is ASCII, and encoded by nobody.
    out.extend_from_slice(method.as_bytes());
    out.extend_from_slice(b"&%2F&");
    let signed = parameters.filter(|(name, _)| name.as_ref() != SIGNATURE);
    push_query(&mut out, signed, b"%25", b"%3D", b"%26");
    String::from_utf8(out).expect("only text and ASCII was written")
}

/// The query signature: base64 of HMAC-SHA1 under the secret and a `&`.
pub fn v1_signature(secret: &str, string_to_sign: &str) -> String {
    let key = format!("{secret}&");
    let mut mac = Hmac::<Sha1>::new_from_slice(key.as_bytes()).expect("HMAC takes any key length");
    mac.update(string_to_sign.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// The header signature's string to sign.
///
/// The path is always `/`: clients that were given an endpoint with a path prefix still sign `/`.
/// `None` if a header that is said to be signed is not there.
pub fn acs3_string_to_sign<'a, T: AsRef<str> + 'a>(
    method: &str,
    query: impl Iterator<Item = &'a (T, T)>,
    headers: &HeaderMap,
    signed_headers: &str,
    body_hash: &str,
) -> Option<String> {
    let request = acs3_canonical_request(method, query, headers, signed_headers, body_hash)?;
    Some(format!(
        "{ACS3_ALGORITHM}\n{}",
        hex::encode(Sha256::digest(&request))
    ))
}

/// The canonical request whose hash is signed. Bytes, since header values need not be UTF-8.
pub fn acs3_canonical_request<'a, T: AsRef<str> + 'a>(
    method: &str,
    query: impl Iterator<Item = &'a (T, T)>,
    headers: &HeaderMap,
    signed_headers: &str,
    body_hash: &str,
) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(method.as_bytes());
    out.extend_from_slice(b"\n/\n");
    push_query(&mut out, query, b"%", b"=", b"&");
    out.push(b'\n');
    for name in signed_headers.split(';') {
        let mut values = headers
            .get_all(name)
            .iter()
            .map(|value| value.as_bytes().trim_ascii());
        let first = values.next()?;
        out.extend(name.bytes().map(|byte| byte.to_ascii_lowercase()));
        out.push(b':');
        let mut rest: Vec<_> = values.collect();
        if rest.is_empty() {
            out.extend_from_slice(first);
        } else {
            rest.push(first);
            rest.sort_unstable();
            out.extend_from_slice(&rest.join(&b","[..]));
        }
        out.push(b'\n');
    }
    out.push(b'\n');
    out.extend_from_slice(signed_headers.as_bytes());
    out.push(b'\n');
    out.extend_from_slice(body_hash.as_bytes());
    Some(out)
}

/// The header signature: lower-case hex of HMAC-SHA256 under the secret.
pub fn acs3_signature(secret: &str, string_to_sign: &str) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes any key length");
    mac.update(string_to_sign.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// Lower-case hex of SHA-256, as `x-acs-content-sha256` wants it.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Compares in a time that depends on the lengths only.
pub fn same(left: &str, right: &str) -> bool {
    left.as_bytes().ct_eq(right.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    const SECRET: &str = "testsecret";
    const ODD: &str = "a b+c/d~e*f'(中)";

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    const COMMON: &[(&str, &str)] = &[
        ("Version", "2018-04-12"),
        ("Action", "ListContainerImages"),
        ("Timestamp", "2026-01-02T03:04:05Z"),
        ("SignatureMethod", "HMAC-SHA1"),
        ("SignatureVersion", "1.0"),
        ("AccessKeyId", "testid"),
    ];
    const FULL: &[(&str, &str)] = &[
        ("ClusterId", "ehpc-hz-FYUr32****"),
        ("ContainerType", "singularity"),
        ("PageNumber", "1"),
        ("PageSize", "10"),
    ];
    const CORE: &[(&str, &str)] = &[
        ("Format", "JSON"),
        ("RegionId", "cn-hangzhou"),
        ("SignatureType", ""),
        ("SignatureNonce", "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf"),
    ];
    const TEA: &[(&str, &str)] = &[
        ("Format", "json"),
        ("SignatureNonce", "3ee8c1b883d344afa94f4e0ad82fd6cf"),
    ];
    const POP: &[(&str, &str)] = &[
        ("Format", "JSON"),
        ("SignatureNonce", "3ee8c1b883d344afa94f4e0ad82fd6cf"),
    ];

    #[test]
    fn query_signature_vectors() {
        let odd: &[(&str, &str)] = &[("ClusterId", ODD)];
        // Vectors of the wire contract: A, A2, B, B with an odd cluster, C by GET and by POST.
        for (vector, method, parts, expected) in [
            ("A", "GET", [CORE, FULL], "DC3zTlGqbJI6Vt1v6D12WMoAO6s="),
            ("A2", "GET", [CORE, odd], "fH+pXwZS16bbIbGD+l1eibk1dL0="),
            ("B", "GET", [TEA, FULL], "bem5rRGmzTOkKybXgip+AkWrx3s="),
            ("B2", "GET", [TEA, odd], "feeMXIWZKSxxwR/24vZvKio7FUs="),
            ("C", "GET", [POP, FULL], "n8zMjqEx2/fdEn2FXkRDkzL/K50="),
            (
                "C post",
                "POST",
                [POP, FULL],
                "84TCqXHLbxCknmklfgbr+slXW74=",
            ),
        ] {
            let mut all = pairs(COMMON);
            for part in parts {
                all.extend(pairs(part));
            }
            // Neither the order nor a Signature already present changes what is signed.
            all.push(("Signature".into(), "whatever".into()));
            all.rotate_left(3);
            let text = v1_string_to_sign(method, all.iter());
            assert_eq!(
                v1_signature(SECRET, &text),
                expected,
                "vector {vector}: {text}"
            );
            assert!(!text.contains(':'), "clients split the message at a colon");
        }
    }

    #[test]
    fn query_string_to_sign_of_vector_a() {
        let mut all = pairs(COMMON);
        all.extend(pairs(CORE));
        all.extend(pairs(FULL));
        assert_eq!(
            v1_string_to_sign("GET", all.iter()),
            "GET&%2F&AccessKeyId%3Dtestid%26Action%3DListContainerImages%26ClusterId%3Dehpc-hz-\
             FYUr32%252A%252A%252A%252A%26ContainerType%3Dsingularity%26Format%3DJSON%26PageNumber\
             %3D1%26PageSize%3D10%26RegionId%3Dcn-hangzhou%26SignatureMethod%3DHMAC-SHA1%26Signatu\
             reNonce%3D3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf%26SignatureType%3D%26SignatureVersion%\
             3D1.0%26Timestamp%3D2026-01-02T03%253A04%253A05Z%26Version%3D2018-04-12"
        );
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_in_one_go_is_the_encoded_query(
            pairs in proptest::collection::vec((".{0,8}", ".{0,8}"), 0..5),
        ) {
            const RESERVED: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
                .remove(b'-')
                .remove(b'_')
                .remove(b'.')
                .remove(b'~');
            let plainly = |text: &str| {
                percent_encoding::utf8_percent_encode(text, RESERVED).to_string()
            };
            let mut sorted = pairs.clone();
            sorted.sort();
            let sorted: Vec<_> = sorted
                .iter()
                .map(|(name, value)| format!("{}={}", plainly(name), plainly(value)))
                .collect();
            let query = sorted.join("&");
            proptest::prop_assert_eq!(canonical_query(pairs.iter()), &*query);
            proptest::prop_assert_eq!(encode(&query), plainly(&query));
            let text = v1_string_to_sign("GET", pairs.iter());
            proptest::prop_assert_eq!(text, format!("GET&%2F&{}", plainly(&query)));
        }
    }

    const EMPTY_HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const SIGNED: &str = "accept;host;user-agent;x-acs-action;x-acs-content-sha256;\
                          x-acs-credentials-provider;x-acs-date;x-acs-signature-nonce;x-acs-version";

    fn vector_headers() -> HeaderMap {
        [
            ("accept", "application/json"),
            ("accept-encoding", "identity"),
            ("host", "127.0.0.1:18081"),
            ("user-agent", "  vector-test/1 "),
            ("x-acs-action", "ListContainerImages"),
            ("x-acs-content-sha256", EMPTY_HASH),
            ("x-acs-credentials-provider", "static_ak"),
            ("x-acs-date", "2026-01-02T03:04:05Z"),
            ("x-acs-signature-nonce", "3ee8c1b883d344afa94f4e0ad82fd6cf"),
            ("x-acs-version", "2018-04-12"),
        ]
        .into_iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .collect()
    }

    #[test]
    fn header_signature_vectors() {
        let odd: &[(&str, &str)] = &[("ClusterId", ODD)];
        let full: &[(&str, &str)] = &[FULL[3], FULL[1], FULL[0], FULL[2]];
        for (vector, query, hash, signature) in [
            (
                "D",
                full,
                "083012e0bdc4b4366ee70553f67c59e1b957bc74a367906b9a666ca50a37ca69",
                "8cc33e9216395a9e2c1b72663618585b3667c2c5107301afd37c6317f5fcf6ad",
            ),
            (
                "D2",
                odd,
                "c20a5c10346f0e133b14b46903b686e9c77702a65197a6433fa534b8ac1f0317",
                "f2afd66f8ab63063c88e8356aec6e3c453f54cf0598a6fa6bb7ffec20756b43e",
            ),
        ] {
            let text = acs3_string_to_sign(
                "GET",
                pairs(query).iter(),
                &vector_headers(),
                SIGNED,
                EMPTY_HASH,
            )
            .expect("every signed header is present");
            assert_eq!(text, format!("ACS3-HMAC-SHA256\n{hash}"), "vector {vector}");
            assert_eq!(acs3_signature(SECRET, &text), signature, "vector {vector}");
        }
    }

    #[test]
    fn canonical_request_edges() {
        let mut headers = HeaderMap::new();
        headers.append("x-acs-b", HeaderValue::from_static(" two"));
        headers.append("x-acs-b", HeaderValue::from_static("three"));
        headers.append("x-acs-b", HeaderValue::from_static("one "));
        headers.insert("x-acs-raw", HeaderValue::from_bytes(b"\xff").unwrap());
        let request = |signed: &str| {
            let query = pairs(&[]);
            acs3_canonical_request("POST", query.iter(), &headers, signed, EMPTY_HASH)
        };
        // Repeated headers are sorted and joined; no query is an empty line; raw bytes stay.
        assert_eq!(
            request("x-acs-b;x-acs-raw").unwrap(),
            [
                b"POST\n/\n\nx-acs-b:one,three,two\nx-acs-raw:\xff\n\nx-acs-b;x-acs-raw\n"
                    .as_slice(),
                EMPTY_HASH.as_bytes()
            ]
            .concat()
        );
        assert_eq!(request("x-acs-b;x-acs-gone"), None);
        // An empty value keeps its equals sign.
        let query = pairs(&[("b", ""), ("a", "1")]);
        assert_eq!(canonical_query(query.iter()), "a=1&b=");
    }

    #[test]
    fn encoding() {
        for (text, expected) in [
            ("a b+c", "a%20b%2Bc"),
            ("*~-_.", "%2A~-_."),
            ("中", "%E4%B8%AD"),
            ("&=%20#?\"", "%26%3D%2520%23%3F%22"),
            ("", ""),
        ] {
            assert_eq!(encode(text), expected);
        }
    }

    #[test]
    fn comparison() {
        assert!(same("abc", "abc"));
        assert!(!same("abc", "abd"));
        assert!(!same("abc", "abcd"));
        assert!(!same("", "a"));
    }
}
