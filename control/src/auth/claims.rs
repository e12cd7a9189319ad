//! What a request says of its own signature, for either generation.
//!
//! Only reading and shape: nothing here is believed yet. A header that occurs twice is refused,
//! since two readers could choose differently; parameters that do were refused before.

use http::HeaderMap;
use http::HeaderName;
use http::header::AUTHORIZATION;
use http::header::CONTENT_TYPE;
use http::header::HOST;

use super::SignedRequest;
use super::canonical;
use crate::api::ApiError;

/// Longest nonce; clients send 32 to 64 characters.
const MAX_NONCE: usize = 256;

/// Headers of the header signature.
mod header {
    use http::HeaderName;

    pub(super) static ACTION: HeaderName = HeaderName::from_static("x-acs-action");
    pub(super) static VERSION: HeaderName = HeaderName::from_static("x-acs-version");
    pub(super) static DATE: HeaderName = HeaderName::from_static("x-acs-date");
    pub(super) static NONCE: HeaderName = HeaderName::from_static("x-acs-signature-nonce");
    pub(super) static BODY_HASH: HeaderName = HeaderName::from_static("x-acs-content-sha256");
    pub(super) static TOKEN: HeaderName = HeaderName::from_static("x-acs-security-token");
    pub(super) static KEY: HeaderName = HeaderName::from_static("x-acs-accesskey-id");
}

/// How a request is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// HMAC-SHA1 over the parameters, in a parameter.
    V1,
    /// HMAC-SHA256 over headers, query and body, in a header.
    Acs3,
}

/// Who says to have signed, when, and what is to be compared.
#[derive(Debug)]
pub(super) struct Claims<'a> {
    pub access_key_id: &'a str,
    pub timestamp: &'a str,
    pub nonce: &'a str,
    pub security_token: Option<&'a str>,
    pub signature: &'a str,
    scheme: Scheme<'a>,
}

#[derive(Debug)]
enum Scheme<'a> {
    V1,
    Acs3 { signed_headers: &'a str },
}

impl<'a> Claims<'a> {
    /// Reads the claims of a request.
    pub(super) fn read(request: &SignedRequest<'a>) -> Result<Self, ApiError> {
        let claims = match generation(request) {
            Generation::Acs3 => Self::acs3(request)?,
            Generation::V1 => Self::v1(request)?,
        };
        if claims.nonce.len() > MAX_NONCE {
            return Err(ApiError::invalid_parameter("SignatureNonce"));
        }
        Ok(claims)
    }

    fn v1(request: &SignedRequest<'a>) -> Result<Self, ApiError> {
        let required = |name: &'static str| match request.parameters.get(name) {
            Some(value) if !value.is_empty() => Ok(value),
            _ => Err(ApiError::MissingParameter { parameter: name }),
        };
        let access_key_id = required("AccessKeyId")?;
        let signature = required(canonical::SIGNATURE)?;
        // SignatureType is sent empty by one client; other kinds of credentials name themselves.
        if required("SignatureMethod")? != "HMAC-SHA1"
            || required("SignatureVersion")? != "1.0"
            || request
                .parameters
                .get("SignatureType")
                .is_some_and(|t| !t.is_empty())
        {
            return Err(ApiError::InvalidSignatureMethod);
        }
        Ok(Self {
            access_key_id,
            timestamp: required("Timestamp")?,
            nonce: required("SignatureNonce")?,
            security_token: request.parameters.get("SecurityToken"),
            signature,
            scheme: Scheme::V1,
        })
    }

    fn acs3(request: &SignedRequest<'a>) -> Result<Self, ApiError> {
        let authorization =
            single(request.headers, &AUTHORIZATION)?.ok_or(ApiError::IncompleteSignature)?;
        let parts = Authorization::parse(authorization)?;
        let required = |name: &'static HeaderName| match single(request.headers, name)? {
            Some(value) if !value.is_empty() => Ok(value),
            _ => Err(ApiError::MissingParameter {
                parameter: name.as_str(),
            }),
        };
        for name in [&header::ACTION, &header::VERSION, &header::BODY_HASH] {
            required(name)?;
        }
        single(request.headers, &HOST)?;
        let timestamp = required(&header::DATE)?;
        let nonce = required(&header::NONCE)?;
        let security_token = single(request.headers, &header::TOKEN)?;
        let repeated_key = single(request.headers, &header::KEY)?;
        if repeated_key.is_some_and(|key| key != parts.credential) {
            return Err(ApiError::IncompleteSignature);
        }
        // Whatever decides how the request is understood must be signed. The type of the body
        // does as soon as there is a body; one client sends a type without one, unsigned.
        let mut must_be_signed = vec![
            HOST.as_str(),
            header::ACTION.as_str(),
            header::VERSION.as_str(),
            header::DATE.as_str(),
            header::NONCE.as_str(),
            header::BODY_HASH.as_str(),
        ];
        if !request.body.is_empty() && request.headers.contains_key(CONTENT_TYPE) {
            must_be_signed.push(CONTENT_TYPE.as_str());
        }
        if security_token.is_some() {
            must_be_signed.push(header::TOKEN.as_str());
        }
        let names: Vec<&str> = parts.signed_headers.split(';').collect();
        // A header that is named again and again would be written out each time, before it is known who asks.
        let mut sorted: Vec<_> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(ApiError::IncompleteSignature);
        }
        let is_signed = |name: &str| names.iter().any(|n| n.eq_ignore_ascii_case(name));
        if !must_be_signed.into_iter().all(is_signed) {
            return Err(ApiError::IncompleteSignature);
        }
        Ok(Self {
            access_key_id: parts.credential,
            timestamp,
            nonce,
            security_token,
            signature: parts.signature,
            scheme: Scheme::Acs3 {
                signed_headers: parts.signed_headers,
            },
        })
    }

    /// What must have been signed, and the signature of it under `secret`.
    pub(super) fn expected(
        &self,
        request: &SignedRequest<'_>,
        secret: &str,
    ) -> Result<(String, String), ApiError> {
        let method = request.method.as_str();
        match self.scheme {
            Scheme::V1 => {
                let text = canonical::v1_string_to_sign(method, request.parameters.all());
                let signature = canonical::v1_signature(secret, &text);
                Ok((text, signature))
            }
            Scheme::Acs3 { signed_headers } => {
                let hash = canonical::sha256_hex(request.body);
                let text = canonical::acs3_string_to_sign(
                    method,
                    request.parameters.query.iter(),
                    request.headers,
                    signed_headers,
                    &hash,
                )
                .ok_or(ApiError::IncompleteSignature)?;
                // The header is signed as sent and the hash as computed, so a body other than
                // the header says can only pass if the two are compared.
                let given = single(request.headers, &header::BODY_HASH)?.unwrap_or_default();
                if !canonical::same(given, &hash) {
                    return Err(ApiError::SignatureDoesNotMatch {
                        string_to_sign: text,
                    });
                }
                let signature = canonical::acs3_signature(secret, &text);
                Ok((text, signature))
            }
        }
    }
}

/// Which generation a request claims: a header signature wins, everything else is read as a
/// query signature and will be found incomplete if it has none.
fn generation(request: &SignedRequest<'_>) -> Generation {
    let is_acs = request.headers.get_all(AUTHORIZATION).iter().any(|value| {
        value
            .as_bytes()
            .trim_ascii()
            .get(..3)
            .is_some_and(|head| head.eq_ignore_ascii_case(b"ACS"))
    });
    if is_acs {
        Generation::Acs3
    } else {
        Generation::V1
    }
}

/// The parts of the header `Authorization`.
#[derive(Debug, PartialEq, Eq)]
struct Authorization<'a> {
    credential: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    fn parse(text: &'a str) -> Result<Self, ApiError> {
        let (algorithm, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if algorithm != canonical::ACS3_ALGORITHM {
            return Err(ApiError::InvalidSignatureMethod);
        }
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for part in rest.split(',') {
            let (name, value) = part
                .trim()
                .split_once('=')
                .ok_or(ApiError::IncompleteSignature)?;
            let slot = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => return Err(ApiError::IncompleteSignature),
            };
            if value.is_empty() || slot.replace(value).is_some() {
                return Err(ApiError::IncompleteSignature);
            }
        }
        match (credential, signed_headers, signature) {
            (Some(credential), Some(signed_headers), Some(signature)) => Ok(Self {
                credential,
                signed_headers,
                signature,
            }),
            _ => Err(ApiError::IncompleteSignature),
        }
    }
}

/// The value of a header that may occur once and must be text.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(ApiError::IncompleteSignature);
    }
    match value.to_str() {
        Ok(text) => Ok(Some(text.trim())),
        Err(_) => Err(ApiError::IncompleteSignature),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorization_header() {
        use ApiError::{IncompleteSignature, InvalidSignatureMethod};
        let good = Ok(Authorization {
            credential: "k",
            signed_headers: "host;x",
            signature: "ab",
        });
        for (text, expected) in [
            (
                "ACS3-HMAC-SHA256 Credential=k,SignedHeaders=host;x,Signature=ab",
                &good,
            ),
            (
                "ACS3-HMAC-SHA256 Signature=ab, Credential=k, SignedHeaders=host;x ",
                &good,
            ),
            (
                "ACS3-HMAC-SM3 Credential=k,SignedHeaders=host;x,Signature=ab",
                &Err(InvalidSignatureMethod),
            ),
            (
                "ACS4-HMAC-SHA256 Credential=k,SignedHeaders=host;x,Signature=ab",
                &Err(InvalidSignatureMethod),
            ),
            (
                "acs3-hmac-sha256 Credential=k,SignedHeaders=host;x,Signature=ab",
                &Err(InvalidSignatureMethod),
            ),
            ("ACS3-HMAC-SHA256", &Err(IncompleteSignature)),
            ("ACS3-HMAC-SHA256 ", &Err(IncompleteSignature)),
            (
                "ACS3-HMAC-SHA256 Credential=k,SignedHeaders=host;x",
                &Err(IncompleteSignature),
            ),
            (
                "ACS3-HMAC-SHA256 Credential=k,SignedHeaders=host;x,Signature=",
                &Err(IncompleteSignature),
            ),
            (
                "ACS3-HMAC-SHA256 Credential=,SignedHeaders=host;x,Signature=ab",
                &Err(IncompleteSignature),
            ),
            (
                "ACS3-HMAC-SHA256 Credential=k,SignedHeaders=,Signature=ab",
                &Err(IncompleteSignature),
            ),
            (
                "ACS3-HMAC-SHA256 Credential=k,Credential=k,SignedHeaders=host;x,Signature=ab",
                &Err(IncompleteSignature),
            ),
            (
                "ACS3-HMAC-SHA256 Credential=k,SignedHeaders=host;x,Signature=ab,More=1",
                &Err(IncompleteSignature),
            ),
            (
                "ACS3-HMAC-SHA256 credential=k,SignedHeaders=host;x,Signature=ab",
                &Err(IncompleteSignature),
            ),
        ] {
            assert_eq!(&Authorization::parse(text), expected, "{text}");
        }
    }
}
