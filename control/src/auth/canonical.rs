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
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Everything but `A-Z a-z 0-9 - _ . ~`.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Name of the parameter that carries a query signature, the only one that is not signed.
pub const SIGNATURE: &str = "Signature";

/// The one algorithm of the header signature that is served.
pub const ACS3_ALGORITHM: &str = "ACS3-HMAC-SHA256";

/// Percent-encodes as both generations do: upper-case hex, space as `%20`, `*` as `%2A`, `~` kept.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Parameters in the order of the bytes of their names (then of their values).
fn sorted<'a>(parameters: impl Iterator<Item = &'a (String, String)>) -> Vec<(&'a str, &'a str)> {
    let mut pairs: Vec<_> = parameters
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    pairs.sort_unstable();
    pairs
}

/// `name=value` pairs, both encoded, joined with `&`.
pub fn canonical_query<'a>(parameters: impl Iterator<Item = &'a (String, String)>) -> String {
    let mut out = String::new();
    for (name, value) in sorted(parameters) {
        if !out.is_empty() {
            out.push('&');
        }
        out.extend(utf8_percent_encode(name, RESERVED));
        out.push('=');
        out.extend(utf8_percent_encode(value, RESERVED));
    }
    out
}

/// The query signature's string to sign, over the parameters of query and form together.
pub fn v1_string_to_sign<'a>(
    method: &str,
    parameters: impl Iterator<Item = &'a (String, String)>,
) -> String {
    let query = canonical_query(parameters.filter(|(name, _)| name != SIGNATURE));
    format!("{method}&%2F&{}", encode(&query))
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
pub fn acs3_string_to_sign<'a>(
    method: &str,
    query: impl Iterator<Item = &'a (String, String)>,
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
pub fn acs3_canonical_request<'a>(
    method: &str,
    query: impl Iterator<Item = &'a (String, String)>,
    headers: &HeaderMap,
    signed_headers: &str,
    body_hash: &str,
) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(method.as_bytes());
    out.extend_from_slice(b"\n/\n");
    out.extend_from_slice(canonical_query(query).as_bytes());
    out.push(b'\n');
    for name in signed_headers.split(';') {
        let mut values: Vec<&[u8]> = headers
            .get_all(name)
            .iter()
            .map(|value| value.as_bytes().trim_ascii())
            .collect();
        if values.is_empty() {
            return None;
        }
        values.sort_unstable();
        out.extend_from_slice(name.to_ascii_lowercase().as_bytes());
        out.push(b':');
        out.extend_from_slice(&values.join(&b","[..]));
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
        headers.append("x-acs-b", HeaderValue::from_static("one "));
        headers.insert("x-acs-raw", HeaderValue::from_bytes(b"\xff").unwrap());
        let request =
            |signed: &str| acs3_canonical_request("POST", [].iter(), &headers, signed, EMPTY_HASH);
        // Repeated headers are sorted and joined; no query is an empty line; raw bytes stay.
        assert_eq!(
            request("x-acs-b;x-acs-raw").unwrap(),
            [
                b"POST\n/\n\nx-acs-b:one,two\nx-acs-raw:\xff\n\nx-acs-b;x-acs-raw\n".as_slice(),
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
