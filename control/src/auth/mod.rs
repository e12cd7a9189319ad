//! Who is asking, and may they: signatures, access keys, replay protection, RAM policies.
//!
//! A request is believed in this order, and the first failure is the answer: readable claims, a
//! known key, a time stamp within the window, the signature, the key's state and token, a fresh
//! nonce. Everything that would tell a stranger about a key (that it is disabled, that it needs a
//! token) comes after the signature, and so does everything that costs memory.
//!
//! Refuses to do: talk HTTP, know clusters. The server hands over decoded parameters; what a key
//! may see of clusters is decided by [`Authenticator::authorize_listing`] from regions alone.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::Method;
use jiff::Timestamp;

use crate::api::ApiError;
use crate::api::RpcRequest;

pub mod canonical;
mod claims;
pub mod clock;
pub mod journal;
pub mod keys;
pub mod nonce;
pub mod policy;
pub mod sign;

pub use claims::Generation;

use claims::Claims;
use keys::{AccessKey, KeyStore, Keys};
use nonce::{NonceError, NonceStore};

/// The one action that is served, as policies name it.
pub const LIST_ACTION: &str = "ehpc:ListContainerImages";

/// Longest string to sign that an answer repeats. Clients compare it with their own to tell a
/// wrong secret from a wrong signature; no real request comes near.
const MAX_ECHO: usize = 16 * 1024;

/// What the signature of a request is computed over.
#[derive(Debug, Clone, Copy)]
pub struct SignedRequest<'a> {
    /// GET or POST.
    pub method: &'a Method,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// Its parameters, none of which occurs twice.
    pub parameters: &'a RpcRequest<'a>,
    /// The body as it came.
    pub body: &'a [u8],
    /// Where it came from.
    pub source_ip: IpAddr,
    /// Whether it came over TLS.
    pub secure_transport: bool,
    /// When.
    pub now: Timestamp,
}

impl SignedRequest<'_> {
    /// What policies may ask about it.
    pub fn context(&self) -> policy::Context {
        policy::Context::new(self.source_ip, self.secure_transport, self.now)
    }
}

/// Who is asking, proven.
#[derive(Debug, Clone)]
pub struct Principal {
    key: Arc<AccessKey>,
}

impl Principal {
    /// The account that the access key belongs to.
    pub fn account_id(&self) -> &str {
        &self.key.account_id
    }
}

/// Checks signatures and rights.
pub struct Authenticator {
    keys: Arc<KeyStore>,
    nonces: Arc<dyn NonceStore>,
}

impl Authenticator {
    /// An authenticator over the given keys and nonces.
    pub fn new(keys: Arc<KeyStore>, nonces: Arc<dyn NonceStore>) -> Self {
        Self { keys, nonces }
    }

    /// The keys it uses, for reloading them.
    pub fn keys(&self) -> &Arc<KeyStore> {
        &self.keys
    }

    /// The nonces it remembers, for closing them.
    pub fn nonces(&self) -> &Arc<dyn NonceStore> {
        &self.nonces
    }

    /// Proves who signed the request, and uses up its nonce.
    ///
    /// Before that `admit` is asked whether the key may ask so often, by its ID: what is not let in must
    /// not fill the memory of nonces, and what is only repeated must not count against the key.
    pub fn authenticate(
        &self,
        request: &SignedRequest<'_>,
        admit: impl FnOnce(&str) -> Result<(), ApiError>,
    ) -> Result<Principal, ApiError> {
        let claims = Claims::read(request)?;
        let stamp = clock::parse(claims.timestamp)?;
        let keys = self.keys.current();
        let Keys::Ready(ring) = &*keys else {
            return Err(ApiError::AliyunError);
        };
        let key = ring
            .get(claims.access_key_id)
            .ok_or(ApiError::InvalidAccessKeyIdNotFound)?;
        clock::check(stamp, request.now)?;
        let secret = key.secret.as_ref().ok_or(ApiError::AliyunError)?;
        let (text, signature) = claims.expected(request, secret.expose())?;
        if !canonical::same(claims.signature, &signature) {
            let string_to_sign = text.chars().take(MAX_ECHO).collect();
            return Err(ApiError::SignatureDoesNotMatch { string_to_sign });
        }
        if !key.active {
            return Err(ApiError::InvalidAccessKeyIdInactive);
        }
        check_token(key, claims.security_token, request.now)?;
        if self.nonces.is_used(&key.id, claims.nonce, request.now) {
            return Err(ApiError::SignatureNonceUsed);
        }
        admit(&key.id)?;
        self.nonces
            .record(&key.id, claims.nonce, request.now)
            .map_err(|error| match error {
                NonceError::Used => ApiError::SignatureNonceUsed,
                NonceError::KeyFull { free_in } => ApiError::ThrottlingUser {
                    retry_after: free_in,
                },
                NonceError::Unavailable => ApiError::ServiceUnavailable,
            })?;
        Ok(Principal {
            key: Arc::clone(key),
        })
    }

    /// Whether the policies of the key allow an action on a resource.
    pub fn authorize(
        &self,
        principal: &Principal,
        action: &str,
        resource: &str,
        context: &policy::Context,
    ) -> Result<(), ApiError> {
        let decision = explain(&principal.key, action, resource, context)?;
        tracing::debug!(
            access_key_id = principal.key.id,
            action,
            resource,
            decision = %decision.verdict,
            "policies evaluated"
        );
        if decision.is_allowed() {
            Ok(())
        } else {
            Err(ApiError::NotAuthorized)
        }
    }

    /// Whether the key may list the images of a cluster, in an answer that does not tell who may
    /// not whether the cluster exists.
    ///
    /// `found` is the region of the cluster, looked up among the clusters of the key's own
    /// account only: another account's cluster is not found. For a cluster that was not found the
    /// key must be allowed in every region of `regions` (those of the account's clusters; if it has
    /// none, in all regions); a key that is shut out of one of them gets `NotAuthorized`
    /// for what is there and for what is not. After `Ok` the caller may say `LoginNotFound`.
    pub fn authorize_listing<'r>(
        &self,
        principal: &Principal,
        found: Option<&str>,
        regions: impl IntoIterator<Item = &'r str>,
        context: &policy::Context,
    ) -> Result<(), ApiError> {
        let check = |region: &str| {
            let resource = listing_resource(region, principal.account_id());
            self.authorize(principal, LIST_ACTION, &resource, context)
        };
        if let Some(region) = found {
            return check(region);
        }
        let mut regions = regions.into_iter().peekable();
        if regions.peek().is_none() {
            // No cluster at all: whoever may not list everywhere learns not even that.
            return check("*");
        }
        regions.try_for_each(check)
    }
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator").finish_non_exhaustive()
    }
}

/// The resource that listing a region's clusters of an account is about.
pub fn listing_resource(region: &str, account_id: &str) -> String {
    format!("acs:ehpc:{region}:{account_id}:*")
}

/// Decides and says why; [`ApiError::AliyunError`] if a policy of the key could not be read.
pub fn explain(
    key: &AccessKey,
    action: &str,
    resource: &str,
    context: &policy::Context,
) -> Result<policy::Decision, ApiError> {
    if key.root {
        return Ok(policy::Decision::owner());
    }
    let policies: Option<Vec<_>> = key.policies.iter().map(Option::as_deref).collect();
    // One that cannot be read may be the one that denies.
    let policies = policies.ok_or(ApiError::AliyunError)?;
    let request = policy::Request {
        action,
        resource,
        context,
    };
    Ok(policy::decide(policies.into_iter(), &request))
}

fn check_token(key: &AccessKey, given: Option<&str>, now: Timestamp) -> Result<(), ApiError> {
    let given = given.filter(|token| !token.is_empty());
    match (&key.security_token, given) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(ApiError::InvalidSecurityTokenMismatch),
        (Some(_), None) => Err(ApiError::MissingSecurityToken),
        (Some(_), Some(given)) if !given.bytes().all(|b| b.is_ascii_graphic()) => {
            Err(ApiError::InvalidSecurityTokenMalformed)
        }
        (Some(token), Some(given)) if !canonical::same(token.expose(), given) => {
            Err(ApiError::InvalidSecurityTokenMismatch)
        }
        (Some(_), Some(_)) if key.expires.is_some_and(|end| end <= now) => {
            Err(ApiError::InvalidSecurityTokenExpired)
        }
        (Some(_), Some(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
