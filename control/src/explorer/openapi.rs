//! The OpenAPI 3.1 document, written out by hand and held to the code by tests.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use crate::api::ApiError;
use crate::api::request::VERSION;

/// One of every error, with `%s` where a message has a place for something.
pub(super) fn every_error() -> Vec<ApiError> {
    let text = || "%s".to_owned();
    let all = vec![
        ApiError::InvalidParams { parameter: text() },
        ApiError::InvalidContainerType {
            container_type: text(),
        },
        ApiError::LoginNotFound,
        ApiError::AliyunError,
        ApiError::DbError,
        ApiError::ExecFail { command: text() },
        ApiError::AgentError,
        ApiError::NotAuthorized,
        ApiError::UnknownError,
        ApiError::ServiceUnavailable,
        ApiError::InvalidAccessKeyIdNotFound,
        ApiError::InvalidAccessKeyIdInactive,
        ApiError::SignatureDoesNotMatch {
            string_to_sign: text(),
        },
        ApiError::IncompleteSignature,
        ApiError::InvalidSignatureMethod,
        ApiError::InvalidTimeStampFormat,
        ApiError::InvalidTimeStampExpired,
        ApiError::SignatureNonceUsed,
        ApiError::InvalidSecurityTokenExpired,
        ApiError::InvalidSecurityTokenMalformed,
        ApiError::InvalidSecurityTokenMismatch,
        ApiError::MissingSecurityToken,
        ApiError::MissingParameter { parameter: "%s" },
        ApiError::InvalidParameterFormat,
        ApiError::InvalidVersion,
        ApiError::InvalidActionNotFound,
        ApiError::UnsupportedHttpMethod {
            allowed: "GET, POST",
        },
        ApiError::InvalidProtocolNeedSsl,
        ApiError::ThrottlingUser {
            retry_after: Duration::from_secs(1),
        },
        ApiError::BadRequest,
        ApiError::MisdirectedRequest,
        ApiError::RequestTimeout,
        ApiError::RequestTooLarge,
        ApiError::UriTooLong,
        ApiError::HeadersTooLarge,
    ];
    debug_assert!(all.iter().all(listed));
    all
}

/// Without a wildcard, so that a new variant does not compile until it is added above.
fn listed(error: &ApiError) -> bool {
    match error {
        ApiError::InvalidParams { .. }
        | ApiError::InvalidContainerType { .. }
        | ApiError::LoginNotFound
        | ApiError::AliyunError
        | ApiError::DbError
        | ApiError::ExecFail { .. }
        | ApiError::AgentError
        | ApiError::NotAuthorized
        | ApiError::UnknownError
        | ApiError::ServiceUnavailable
        | ApiError::InvalidAccessKeyIdNotFound
        | ApiError::InvalidAccessKeyIdInactive
        | ApiError::SignatureDoesNotMatch { .. }
        | ApiError::IncompleteSignature
        | ApiError::InvalidSignatureMethod
        | ApiError::InvalidTimeStampFormat
        | ApiError::InvalidTimeStampExpired
        | ApiError::SignatureNonceUsed
        | ApiError::InvalidSecurityTokenExpired
        | ApiError::InvalidSecurityTokenMalformed
        | ApiError::InvalidSecurityTokenMismatch
        | ApiError::MissingSecurityToken
        | ApiError::MissingParameter { .. }
        | ApiError::InvalidParameterFormat
        | ApiError::InvalidVersion
        | ApiError::InvalidActionNotFound
        | ApiError::UnsupportedHttpMethod { .. }
        | ApiError::InvalidProtocolNeedSsl
        | ApiError::ThrottlingUser { .. }
        | ApiError::BadRequest
        | ApiError::MisdirectedRequest
        | ApiError::RequestTimeout
        | ApiError::RequestTooLarge
        | ApiError::UriTooLong
        | ApiError::HeadersTooLarge => true,
    }
}

/// The document.
pub fn document() -> Value {
    let operation = |id: &str, body: Option<Value>, parameters: Value| {
        let mut operation = json!({
            "operationId": id,
            "summary": "Lists the Singularity images of a cluster",
            "description": "RAM action `ehpc:ListContainerImages` on `acs:ehpc:{region}:{account}:*`.",
            "parameters": parameters,
            "security": [{"acs3": []}, {"v1": []}],
            "responses": responses(),
        });
        if let Some(body) = body {
            operation["requestBody"] = body;
        }
        operation
    };
    let schema_of_form = json!({
        "type": "object",
        "properties": properties(),
        "required": ["ClusterId"],
    });
    let body = json!({
        "description": "The parameters as a form; they may also be sent in the query.",
        "required": true,
        "content": {"application/x-www-form-urlencoded": {"schema": schema_of_form}},
    });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Sifter: ListContainerImages",
            "version": VERSION,
            "summary": "The E-HPC API of that name, answered by the site itself",
            "description": "Every SDK of E-HPC 2018-04-12 works with its endpoint changed. \
                Requests are signed: `/explorer` does it in the browser and shows sample code, \
                `/errors` explains the error codes.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [],
        "paths": {
            "/": {
                "get": operation("ListContainerImages", None, query_parameters()),
                "post": operation("ListContainerImagesByForm", Some(body), headers()),
            },
        },
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "acs3": {
                    "type": "apiKey", "in": "header", "name": "Authorization",
                    "description": "`ACS3-HMAC-SHA256 Credential=…,SignedHeaders=…,Signature=…` \
                        with x-acs-action, x-acs-version, x-acs-date, x-acs-signature-nonce and \
                        x-acs-content-sha256; x-acs-security-token for temporary keys.",
                },
                "v1": {
                    "type": "apiKey", "in": "query", "name": "Signature",
                    "description": "HMAC-SHA1 over all parameters, with Action, Version, \
                        AccessKeyId, SignatureMethod, SignatureVersion, SignatureNonce and \
                        Timestamp; SecurityToken for temporary keys.",
                },
            },
        },
    })
}

/// The action's parameters as properties of a form.
fn properties() -> Value {
    json!({
        "ClusterId": {
            "type": "string", "minLength": 1, "description": "The cluster.",
            "examples": ["ehpc-hz-FYUr32****"],
        },
        "ContainerType": {
            "type": "string", "const": "singularity", "default": "singularity",
            "description": "The container type.",
        },
        "PageNumber": {
            "type": "integer", "minimum": 1, "default": 1, "description": "The page, from 1.",
        },
        "PageSize": {
            "type": "integer", "minimum": 1, "maximum": 50, "default": 10,
            "description": "Rows a page.",
        },
    })
}

fn query_parameters() -> Value {
    let mut all = headers();
    if let (Some(list), Some(properties)) = (all.as_array_mut(), properties().as_object()) {
        let parameters = properties.iter().map(|(name, schema)| {
            let mut schema = schema.clone();
            let description = schema["description"].take();
            if let Some(fields) = schema.as_object_mut() {
                fields.remove("description");
            }
            json!({
                "name": name, "in": "query", "required": name == "ClusterId",
                "description": description, "schema": schema,
            })
        });
        list.extend(parameters);
    }
    all
}

/// Headers of the newer signature that say what is called.
fn headers() -> Value {
    let header = |name: &str, description: &str, schema: Value| {
        json!({
            "name": name, "in": "header", "required": false,
            "description": description, "schema": schema,
        })
    };
    json!([
        header(
            "x-acs-action",
            "With a header signature; otherwise the parameter Action.",
            json!({"type": "string", "const": "ListContainerImages"}),
        ),
        header(
            "x-acs-version",
            "With a header signature; otherwise the parameter Version.",
            json!({"type": "string", "const": VERSION}),
        ),
    ])
}

/// One response a status; its description has the codes.
fn responses() -> Value {
    let mut by_status: BTreeMap<u16, Vec<&'static str>> = BTreeMap::new();
    for error in every_error() {
        by_status
            .entry(error.status().as_u16())
            .or_default()
            .push(error.code());
    }
    let mut all = serde_json::Map::new();
    all.insert(
        "200".into(),
        json!({
            "description": "A page of the list.",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ListContainerImagesReply"}}},
        }),
    );
    for (status, codes) in by_status {
        let schema = json!({
            "allOf": [{"$ref": "#/components/schemas/Error"}],
            "properties": {"Code": {"enum": codes}},
        });
        let mut response = json!({
            "description": codes.join(", "),
            "content": {"application/json": {"schema": schema}},
        });
        if codes.contains(&"Throttling.User") {
            response["headers"] = json!({"x-acs-retry-after": {
                "description": "With Throttling.User: milliseconds until the next try.",
                "schema": {"type": "integer", "minimum": 1},
            }});
        }
        all.insert(status.to_string(), response);
    }
    Value::Object(all)
}

fn schemas() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let number =
        |description: &str| json!({"type": "integer", "minimum": 0, "description": description});
    json!({
        "ListContainerImagesReply": {
            "type": "object",
            "required": ["RequestId", "PageSize", "PageNumber", "TotalCount", "DBInfo", "Images"],
            "properties": {
                "RequestId": text("Identifies the request in the logs."),
                "PageSize": number("Entries on this page."),
                "PageNumber": number("This page."),
                "TotalCount": number("Entries in the whole list."),
                "DBInfo": text("Where the catalogue is, without credentials."),
                "Images": {
                    "type": "object",
                    "required": ["Images"],
                    "properties": {"Images": {
                        "type": "array", "items": {"$ref": "#/components/schemas/Image"},
                    }},
                },
            },
        },
        "Image": {
            "type": "object",
            "required": [
                "Type", "Status", "UpdateDateTime", "Repository", "Tag", "System", "ImageId",
            ],
            "properties": {
                "Type": {"type": "string", "const": "singularity"},
                "Status": {
                    "type": "string",
                    "enum": ["READY", "TRANSFER", "FAILURE", "UNAVAILABLE"],
                    "description": "UNAVAILABLE: last known, but its directory cannot be read now.",
                },
                "UpdateDateTime": text("UTC, YYYY-MM-DDThh:mm:ss."),
                "Repository": text("Repository name."),
                "Tag": text("Image tag."),
                "System": text("The cluster's own name."),
                "ImageId": text("Identifies the content."),
            },
        },
        "Error": {
            "type": "object",
            "required": ["RequestId", "HostId", "Code", "Message", "Recommend"],
            "properties": {
                "RequestId": text("Identifies the request in the logs."),
                "HostId": text("Host of the request."),
                "Code": text("What clients should decide by."),
                "Message": text("A sentence for people."),
                "Recommend": text("Where the code is explained."),
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn golden() {
        let text = serde_json::to_string_pretty(&document()).unwrap() + "\n";
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/explorer/openapi.golden.json"
        );
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        assert!(
            std::fs::read_to_string(path).unwrap_or_default() == text,
            "the document changed: if it should, run with UPDATE_GOLDEN=1"
        );
    }

    #[test]
    fn every_error_is_listed_once() {
        let all = every_error();
        let codes: BTreeSet<_> = all.iter().map(ApiError::code).collect();
        assert_eq!(codes.len(), all.len());
        // A variant that `listed` knows and the list lacks is one whose code is missing here.
        let source = include_str!("openapi.rs");
        let body = source.split("fn listed").nth(1).unwrap();
        let variants = body
            .split("true,")
            .next()
            .unwrap()
            .matches("ApiError::")
            .count();
        assert_eq!(variants, all.len());
    }

    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(target)) = fields.get("$ref") {
                    found.push(target);
                }
                fields.values().for_each(|v| references(v, found));
            }
            Value::Array(items) => items.iter().for_each(|v| references(v, found)),
            _ => {}
        }
    }

    #[test]
    fn references_resolve_and_operations_are_told_apart() {
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 10);
        for target in found {
            let pointer = target.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{target}");
        }
        let path = &document["paths"]["/"];
        assert_ne!(path["get"]["operationId"], path["post"]["operationId"]);
    }
}
