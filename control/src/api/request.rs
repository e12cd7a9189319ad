//! What a caller asks for: parameters from query and form, the action, and its own parameters.
//!
//! The order of checks is the gateway's: the request must be readable, then name an action and a
//! version that are served, then be signed, and only then are the action's own parameters looked
//! at. Nothing is guessed: a parameter given twice is refused, since signer and reader could mean
//! different ones; names and values are case-sensitive; unknown parameters are ignored (clients
//! send many) but remain part of what is signed.

use std::borrow::Cow;
use std::collections::HashSet;

use http::HeaderMap;
use percent_encoding::percent_decode;

use super::ApiError;

/// The one action that is served.
pub const ACTION: &str = "ListContainerImages";

/// The one version that is served.
pub const VERSION: &str = "2018-04-12";

/// The one container type there is.
pub const CONTAINER_TYPE: &str = "singularity";

/// Largest `PageSize`.
pub const MAX_PAGE_SIZE: u32 = 50;

/// `PageSize` if there is none.
pub const DEFAULT_PAGE_SIZE: u32 = 10;

/// Largest `PageNumber`: the documented type is a 32-bit integer.
pub const MAX_PAGE_NUMBER: u32 = i32::MAX as u32;

/// So many names are compared with each other sooner than they are hashed.
const FEW: usize = 32;

/// Decoded parameters in the order they came.
pub type Parameters<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// A readable request for a served action, not yet checked for who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RpcRequest<'a> {
    /// Parameters of the query.
    pub query: Parameters<'a>,
    /// Parameters of a form body.
    pub form: Parameters<'a>,
}

/// `ListContainerImages`, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListContainerImages {
    /// Which cluster; never empty.
    pub cluster_id: String,
    /// Which page, from 1.
    pub page_number: u32,
    /// Entries a page, 1 to 50.
    pub page_size: u32,
}

impl<'a> RpcRequest<'a> {
    /// Decodes query and body. A body is read as a form where its content type says so, and is
    /// otherwise only what is signed.
    pub fn decode(
        query: &'a str,
        content_type: Option<&str>,
        body: &'a [u8],
    ) -> Result<Self, ApiError> {
        let query = decode_form(query.as_bytes())?;
        let form = if content_type.is_some_and(is_form) {
            decode_form(body)?
        } else {
            Parameters::new()
        };
        if let Some(name) = repeated(&query, &form) {
            return Err(ApiError::invalid_parameter(name));
        }
        Ok(Self { query, form })
    }

    /// Parameters of query and form together.
    pub fn all(&self) -> impl Iterator<Item = &(Cow<'a, str>, Cow<'a, str>)> {
        self.query.iter().chain(&self.form)
    }

    /// A parameter, wherever it came.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all()
            .find(|(key, _)| key == name)
            .map(|(_, value)| &**value)
    }

    /// Checks that the action, the version and the format are served. Both generations of clients
    /// name the action in a header, and the older one also, signed, in a parameter: that one wins.
    pub fn check_action(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let named = |parameter: &'static str, header: &'static str| {
            self.get(parameter)
                .or_else(|| headers.get(header).and_then(|value| value.to_str().ok()))
                .filter(|value| !value.is_empty())
                .ok_or(ApiError::MissingParameter { parameter })
        };
        let action = named("Action", "x-acs-action")?;
        let version = named("Version", "x-acs-version")?;
        if action != ACTION {
            return Err(ApiError::InvalidActionNotFound);
        }
        if version != VERSION {
            return Err(ApiError::InvalidVersion);
        }
        // The gateway also writes XML; nothing here does. Clients send JSON, json and even None.
        if self
            .get("Format")
            .is_some_and(|format| format.eq_ignore_ascii_case("xml"))
        {
            return Err(ApiError::InvalidParameterFormat);
        }
        Ok(())
    }
}

impl ListContainerImages {
    /// Reads the action's own parameters.
    pub fn from_request(request: &RpcRequest<'_>) -> Result<Self, ApiError> {
        let cluster_id = match request.get("ClusterId") {
            Some(id) if !id.is_empty() => id.to_owned(),
            _ => return Err(ApiError::invalid_parameter("ClusterId")),
        };
        match request.get("ContainerType") {
            None | Some(CONTAINER_TYPE) => {}
            Some(other) => return Err(ApiError::invalid_container_type(other)),
        }
        Ok(Self {
            cluster_id,
            page_number: integer(request, "PageNumber", 1, MAX_PAGE_NUMBER)?,
            page_size: integer(request, "PageSize", DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)?,
        })
    }

    /// Images before this page.
    pub fn skip(&self) -> u64 {
        u64::from(self.page_number.saturating_sub(1)) * u64::from(self.page_size)
    }
}

/// The first name that occurs a second time.
fn repeated<'a>(query: &'a Parameters<'_>, form: &'a Parameters<'_>) -> Option<&'a str> {
    let count = query.len() + form.len();
    let mut names = query.iter().chain(form).map(|(name, _)| &**name);
    if count <= FEW {
        let all = || query.iter().chain(form).map(|(name, _)| &**name);
        let mut numbered = names.enumerate();
        let found = numbered.find(|&(index, name)| all().take(index).any(|other| other == name));
        return found.map(|(_, name)| name);
    }
    let mut seen = HashSet::with_capacity(count);
    names.find(|name| !seen.insert(*name))
}

/// An integer from 1 to `max`, as plain decimal digits.
fn integer(
    request: &RpcRequest<'_>,
    name: &'static str,
    default: u32,
    max: u32,
) -> Result<u32, ApiError> {
    let Some(text) = request.get(name) else {
        return Ok(default);
    };
    // `parse` alone would take a sign.
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|value| digits && (1..=max).contains(value))
        .ok_or_else(|| ApiError::invalid_parameter(name))
}

/// Whether a content type is that of a form.
fn is_form(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or("").trim();
    essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// Decodes form data: `+` is a space, escapes are UTF-8.
fn decode_form(input: &[u8]) -> Result<Parameters<'_>, ApiError> {
    let mut parameters = Parameters::with_capacity(if input.is_empty() { 0 } else { 16 });
    for pair in input.split(|&b| b == b'&').filter(|pair| !pair.is_empty()) {
        let (name, value) = match pair.iter().position(|&b| b == b'=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &[][..]),
        };
        parameters.push((decode_text(name)?, decode_text(value)?));
    }
    Ok(parameters)
}

fn decode_text(input: &[u8]) -> Result<Cow<'_, str>, ApiError> {
    // Text that is not UTF-8 could be signed as one thing and read as another.
    if !input.contains(&b'+') {
        let text = percent_decode(input).decode_utf8();
        return text.map_err(|_| ApiError::BadRequest);
    }
    let space = |&b: &u8| if b == b'+' { b' ' } else { b };
    let spaced: Vec<u8> = input.iter().map(space).collect();
    percent_decode(&spaced)
        .decode_utf8()
        .map(|text| text.into_owned().into())
        .map_err(|_| ApiError::BadRequest)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const FORM: Option<&str> = Some("application/x-www-form-urlencoded; charset=utf-8");

    fn decode(query: &str) -> RpcRequest<'_> {
        RpcRequest::decode(query, None, b"").unwrap()
    }

    #[test]
    fn query_and_form_are_one_set() {
        let request = RpcRequest::decode("A=1&E=", FORM, b"B=a+b%2Bc&C").unwrap();
        let spaced = Some(" Application/X-WWW-Form-Urlencoded ;charset=utf-8");
        assert_eq!(
            RpcRequest::decode("A=1&E=", spaced, b"B=a+b%2Bc&C"),
            Ok(request.clone())
        );
        let rows = [
            ("A", Some("1")),
            ("B", Some("a b+c")),
            ("C", Some("")),
            ("E", Some("")),
            ("a", None),
        ];
        for (name, value) in rows {
            assert_eq!(request.get(name), value, "{name}");
        }
    }

    #[test]
    fn a_body_of_another_type_has_no_parameters() {
        for content_type in [None, Some("application/octet-stream"), Some("")] {
            let request = RpcRequest::decode("", content_type, b"A=1").unwrap();
            assert_eq!(request, RpcRequest::default(), "{content_type:?}");
        }
    }

    #[test]
    fn duplicates_are_refused_by_name() {
        let rows: [(&str, &[u8]); 4] = [
            ("A=1&A=1", b""),
            ("A=1", b"A=2"),
            ("", b"A=1&A=2"),
            ("A=1&%41=2", b""),
        ];
        let many: String = (0..2 * FEW).map(|number| format!("&B{number}=1")).collect();
        for (query, body) in rows {
            let of_many = format!("{query}{many}");
            let result = RpcRequest::decode(&of_many, FORM, body);
            assert_eq!(
                result,
                Err(ApiError::invalid_parameter("A")),
                "{query} of many"
            );
            let result = RpcRequest::decode(query, FORM, body);
            assert_eq!(result, Err(ApiError::invalid_parameter("A")), "{query}");
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_refused() {
        for query in ["A=%ff", "%C3=1", "A=%ED%A0%80"] {
            let result = RpcRequest::decode(query, None, b"");
            assert_eq!(result, Err(ApiError::BadRequest), "{query}");
        }
        assert_eq!(decode("A=%zz&B=%").get("A"), Some("%zz"));
    }

    #[test]
    fn action_and_version() {
        let missing = |parameter| Err(ApiError::MissingParameter { parameter });
        let good = "Action=ListContainerImages&Version=2018-04-12";
        type Header = (&'static str, &'static str);
        let rows: [(&str, &[Header], Result<(), ApiError>); 14] = [
            (good, &[], Ok(())),
            (
                "",
                &[("x-acs-action", ACTION), ("x-acs-version", VERSION)],
                Ok(()),
            ),
            (good, &[("x-acs-action", "Other")], Ok(())),
            ("", &[], missing("Action")),
            ("Action=&Version=2018-04-12", &[], missing("Action")),
            ("Action=ListContainerImages", &[], missing("Version")),
            (
                "Action=Other&Version=2018-04-12",
                &[],
                Err(ApiError::InvalidActionNotFound),
            ),
            (
                "Action=listcontainerimages&Version=2018-04-12",
                &[],
                Err(ApiError::InvalidActionNotFound),
            ),
            (
                "Action=ListContainerImages&Version=1",
                &[],
                Err(ApiError::InvalidVersion),
            ),
            (
                &format!("{good}&Format=XML"),
                &[],
                Err(ApiError::InvalidParameterFormat),
            ),
            (
                &format!("{good}&Format=xml"),
                &[],
                Err(ApiError::InvalidParameterFormat),
            ),
            (&format!("{good}&Format=json"), &[], Ok(())),
            (&format!("{good}&Format=None"), &[], Ok(())),
            (&format!("{good}&Format="), &[], Ok(())),
        ];
        for (query, headers, expected) in rows {
            let headers = headers
                .iter()
                .map(|&(name, value)| {
                    (
                        http::HeaderName::from_static(name),
                        HeaderValue::from_static(value),
                    )
                })
                .collect();
            assert_eq!(decode(query).check_action(&headers), expected, "{query}");
        }
    }

    #[test]
    fn own_parameters() {
        let ok = |page_number, page_size| {
            Ok(ListContainerImages {
                cluster_id: "c".into(),
                page_number,
                page_size,
            })
        };
        let bad = |name: &str| Err(ApiError::invalid_parameter(name));
        let rows = [
            ("ClusterId=c", ok(1, 10)),
            ("ClusterId=c&ContainerType=singularity", ok(1, 10)),
            ("ClusterId=c&PageNumber=3&PageSize=50", ok(3, 50)),
            ("ClusterId=c&PageNumber=2147483647", ok(2_147_483_647, 10)),
            ("", bad("ClusterId")),
            ("ClusterId=", bad("ClusterId")),
            ("clusterid=c", bad("ClusterId")),
            ("ClusterId=c&PageNumber=0", bad("PageNumber")),
            ("ClusterId=c&PageNumber=-1", bad("PageNumber")),
            ("ClusterId=c&PageNumber=%2B1", bad("PageNumber")),
            ("ClusterId=c&PageNumber=1.0", bad("PageNumber")),
            ("ClusterId=c&PageNumber=1e1", bad("PageNumber")),
            ("ClusterId=c&PageNumber=+1", bad("PageNumber")),
            ("ClusterId=c&PageNumber=", bad("PageNumber")),
            ("ClusterId=c&PageNumber=2147483648", bad("PageNumber")),
            (
                "ClusterId=c&PageNumber=99999999999999999999",
                bad("PageNumber"),
            ),
            ("ClusterId=c&PageSize=0", bad("PageSize")),
            ("ClusterId=c&PageSize=51", bad("PageSize")),
            ("ClusterId=c&PageSize=abc", bad("PageSize")),
            ("ClusterId=c&PageSize=%EF%BC%91", bad("PageSize")),
            (
                "ClusterId=c&ContainerType=docker",
                Err(ApiError::invalid_container_type("docker")),
            ),
            (
                "ClusterId=c&ContainerType=Singularity",
                Err(ApiError::invalid_container_type("Singularity")),
            ),
            (
                "ClusterId=c&ContainerType=",
                Err(ApiError::invalid_container_type("")),
            ),
        ];
        for (query, expected) in rows {
            let result = ListContainerImages::from_request(&decode(query));
            assert_eq!(result, expected, "{query}");
        }
    }

    #[test]
    fn skip_cannot_overflow() {
        let request = ListContainerImages {
            cluster_id: "c".into(),
            page_number: MAX_PAGE_NUMBER,
            page_size: MAX_PAGE_SIZE,
        };
        assert_eq!(request.skip(), 2_147_483_646 * 50);
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_encoded_is_decoded(
            parameters in proptest::collection::btree_map(".*", ".*", 0..8),
            spaces_as_plus: bool,
        ) {
            let encode = |text: &str| {
                let text = percent_encoding::utf8_percent_encode(
                    text,
                    percent_encoding::NON_ALPHANUMERIC,
                )
                .to_string();
                if spaces_as_plus { text.replace("%20", "+") } else { text }
            };
            let query: Vec<String> = parameters
                .iter()
                .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
                .collect();
            let query = query.join("&");
            let decoded = RpcRequest::decode(&query, None, b"").unwrap();
            let expected = parameters
                .into_iter()
                .map(|(name, value)| (Cow::from(name), Cow::from(value)));
            proptest::prop_assert!(decoded.query.into_iter().eq(expected));
        }

        #[test]
        fn no_bytes_are_too_strange(query in ".*", body: Vec<u8>) {
            if let Ok(request) = RpcRequest::decode(&query, FORM, &body) {
                let _ = request.check_action(&HeaderMap::new());
                let _ = ListContainerImages::from_request(&request);
            }
        }
    }
}
