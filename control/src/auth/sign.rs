//! Signing a request, as a client does: the other side of [`Authenticator`](super::Authenticator).

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use jiff::Timestamp;

use super::Generation;
use super::canonical;
use super::keys::Secret;
use crate::api::request::ACTION;
use crate::api::request::VERSION;

/// What a client signs with.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The key's public name.
    pub access_key_id: String,
    /// Its secret.
    pub secret: Secret,
    /// The token of a temporary key.
    pub security_token: Option<String>,
}

/// A call of the one action.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// GET (parameters in the query) or POST (in a form body).
    pub method: Method,
    /// Value of the header `host`.
    pub host: &'a str,
    /// The action's own parameters.
    pub parameters: Vec<(String, String)>,
    /// The client's clock.
    pub now: Timestamp,
    /// Never used before.
    pub nonce: String,
}

/// A signed request, ready to be sent.
#[derive(Debug, Clone)]
pub struct Signed {
    /// As asked for.
    pub method: Method,
    /// Parameters of the query, not encoded.
    pub query: Vec<(String, String)>,
    /// Parameters of the form body, not encoded.
    pub form: Vec<(String, String)>,
    /// Headers, `host` among them.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Signed {
    /// Path and query for the request line.
    pub fn target(&self) -> String {
        if self.query.is_empty() {
            "/".to_owned()
        } else {
            format!("/?{}", canonical::canonical_query(self.query.iter()))
        }
    }
}

/// Signs a call. `None` if something is no header value (control characters, say).
pub fn sign(generation: Generation, credentials: &Credentials, call: Call<'_>) -> Option<Signed> {
    let mut call = call;
    if generation == Generation::V1 {
        add_v1(credentials, &mut call);
    }
    let (query, form) = if call.method == Method::POST {
        (Vec::new(), std::mem::take(&mut call.parameters))
    } else {
        (std::mem::take(&mut call.parameters), Vec::new())
    };
    let body = canonical::canonical_query(form.iter()).into_bytes();
    let mut signed = Signed {
        method: call.method.clone(),
        query,
        form,
        headers: HeaderMap::new(),
        body,
    };
    let mut set = |name: &'static str, value: &str| {
        let value = HeaderValue::from_str(value).ok()?;
        signed.headers.insert(HeaderName::from_static(name), value);
        Some(())
    };
    set("host", call.host)?;
    set("accept", "application/json")?;
    set("x-acs-action", ACTION)?;
    set("x-acs-version", VERSION)?;
    if !signed.body.is_empty() {
        set("content-type", "application/x-www-form-urlencoded")?;
    }
    if generation == Generation::Acs3 {
        let hash = canonical::sha256_hex(&signed.body);
        set("x-acs-date", &stamp(call.now))?;
        set("x-acs-signature-nonce", &call.nonce)?;
        set("x-acs-content-sha256", &hash)?;
        if let Some(token) = &credentials.security_token {
            set("x-acs-accesskey-id", &credentials.access_key_id)?;
            set("x-acs-security-token", token)?;
        }
        let authorization = authorization(credentials, &signed, &hash)?;
        let value = HeaderValue::from_str(&authorization).ok()?;
        signed.headers.insert(http::header::AUTHORIZATION, value);
    }
    Some(signed)
}

/// Adds the common parameters and the signature over them all.
fn add_v1(credentials: &Credentials, call: &mut Call<'_>) {
    let common = [
        ("Action", ACTION.to_owned()),
        ("Version", VERSION.to_owned()),
        ("Format", "JSON".to_owned()),
        ("AccessKeyId", credentials.access_key_id.clone()),
        ("SignatureMethod", "HMAC-SHA1".to_owned()),
        ("SignatureVersion", "1.0".to_owned()),
        ("SignatureNonce", call.nonce.clone()),
        ("Timestamp", stamp(call.now)),
    ];
    call.parameters
        .extend(common.map(|(name, value)| (name.to_owned(), value)));
    if let Some(token) = &credentials.security_token {
        call.parameters
            .push(("SecurityToken".to_owned(), token.clone()));
    }
    let text = canonical::v1_string_to_sign(call.method.as_str(), call.parameters.iter());
    let signature = canonical::v1_signature(credentials.secret.expose(), &text);
    call.parameters
        .push((canonical::SIGNATURE.to_owned(), signature));
}

/// The header signature over everything that was set.
fn authorization(credentials: &Credentials, signed: &Signed, hash: &str) -> Option<String> {
    let mut names: Vec<&str> = signed.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    let names = names.join(";");
    let text = canonical::acs3_string_to_sign(
        signed.method.as_str(),
        signed.query.iter(),
        &signed.headers,
        &names,
        hash,
    )?;
    let signature = canonical::acs3_signature(credentials.secret.expose(), &text);
    Some(format!(
        "{} Credential={},SignedHeaders={names},Signature={signature}",
        canonical::ACS3_ALGORITHM,
        credentials.access_key_id,
    ))
}

fn stamp(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
