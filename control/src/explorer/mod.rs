//! What people around the API look at: a page that makes the call, the OpenAPI document, and what
//! the error codes mean.
//!
//! Self-contained: every byte comes from this binary, and the pages' content security policy
//! allows nothing else. Signatures are computed in the browser; the secret stays there, and
//! nothing here ever asks for it.

use std::borrow::Cow;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::HeaderValue;
use http::Response;
use http::header;

mod errors;
mod openapi;

pub use openapi::document;

/// What the pages may do: run their own scripts and talk to their own server, nothing else.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; \
    style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Files of the page: path, type, content.
const FILES: [(&str, &str, &str); 6] = [
    ("/explorer", HTML, include_str!("page/index.html")),
    (
        "/explorer/app.css",
        "text/css; charset=utf-8",
        include_str!("page/app.css"),
    ),
    ("/explorer/app.js", SCRIPT, include_str!("page/app.js")),
    (
        "/explorer/samples.js",
        SCRIPT,
        include_str!("page/samples.js"),
    ),
    (
        "/explorer/signature.js",
        SCRIPT,
        include_str!("page/signature.js"),
    ),
    ("/explorer/texts.js", SCRIPT, include_str!("page/texts.js")),
];

/// What the page is told of the server, and what of one that checks no signatures: it then asks for
/// no key.
const SIGNATURES: &str = "data-auth=\"signatures\"";
const NO_SIGNATURES: &str = "data-auth=\"none\"";

/// The pages' paths, to be merged into those of the API.
pub fn routes<S: Clone + Send + Sync + 'static>(checks_signatures: bool) -> Router<S> {
    let openapi = serde_json::to_string_pretty(&document()).unwrap_or_default();
    let mut router = Router::new()
        .route(
            "/openapi.json",
            get(move || std::future::ready(file("application/json", openapi.clone()))),
        )
        .route(
            "/errors",
            get(|| std::future::ready(file(HTML, errors::page()))),
        );
    for (path, kind, text) in FILES {
        let text = if checks_signatures {
            Cow::Borrowed(text)
        } else {
            Cow::Owned(text.replacen(SIGNATURES, NO_SIGNATURES, 1))
        };
        let answer = move || std::future::ready(file(kind, text.clone()));
        router = router.route(path, get(answer));
    }
    router
}

fn file(kind: &'static str, text: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(text.into());
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // The page must fit the server that it came from, also after an update.
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_name_no_outside_address_and_no_inline_script() {
        let errors = errors::page();
        let pages = FILES
            .iter()
            .map(|(path, _, text)| (*path, *text))
            .chain([("/errors", errors.as_str())]);
        for (path, text) in pages {
            // Addresses are made from the page's own (`://$host`) or are only a scheme.
            let outside = text
                .match_indices("://")
                .filter(|(at, _)| !text[at + 3..].starts_with(['$', '<']))
                .count();
            assert_eq!(outside, 0, "{path}");
            for forbidden in [
                "<script>",
                "onclick=",
                "onload=",
                "style=\"",
                "innerHTML",
                "eval(",
                "localStorage",
                "sessionStorage",
                "document.cookie",
                "indexedDB",
                " url(",
                ":url(",
                "@import",
            ] {
                assert!(!text.contains(forbidden), "{path} has {forbidden}");
            }
        }
    }

    #[tokio::test]
    async fn the_page_knows_whether_signatures_are_checked() {
        use http_body_util::BodyExt;
        use tower::ServiceExt;

        for (checks, expected) in [(true, SIGNATURES), (false, NO_SIGNATURES)] {
            let request = http::Request::get("/explorer").body(Body::empty()).unwrap();
            let answer = routes::<()>(checks).oneshot(request).await.unwrap();
            let page = answer.into_body().collect().await.unwrap().to_bytes();
            let page = std::str::from_utf8(&page).unwrap();
            assert_eq!(page.matches("data-auth=").count(), 1);
            assert!(page.contains(expected), "{checks}");
        }
    }

    #[test]
    fn both_languages_have_every_text() {
        let texts = include_str!("page/texts.js");
        let (english, chinese) = texts.split_once("  zh: {").unwrap();
        let names = |part: &str| {
            part.lines()
                .filter_map(|line| line.strip_prefix("    ")?.split_once(": "))
                .map(|(name, _)| name.to_owned())
                .collect::<Vec<_>>()
        };
        let english = names(english);
        assert!(english.len() > 15);
        assert_eq!(english, names(chinese));
        for part in include_str!("page/index.html")
            .split("data-text=\"")
            .skip(1)
        {
            let name = part.split('"').next().unwrap();
            assert!(english.iter().any(|n| n == name), "no text {name}");
        }
    }
}
