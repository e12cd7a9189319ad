//! The documented reply, and the way to it from an agent's answer.
//!
//! An agent's answer is checked before any of it is passed on: an answer that breaks the contract
//! is [`Malformed`] as a whole, since a listing that is partly wrong cannot be told from a true one.

use serde::Serialize;

use sifter_proto::v1;

use super::ApiError;
use super::ListContainerImages;
use super::request::CONTAINER_TYPE;

/// What one page of an agent's listing becomes: the documented reply but for the request's ID, written
/// once for all requests that share the page.
#[derive(Debug, Clone)]
pub struct Page {
    /// The reply up to the ID.
    head: Vec<u8>,
    /// The reply behind it.
    tail: Vec<u8>,
}

/// One image, with the documented fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageEntry {
    /// Always `singularity`.
    #[serde(rename = "Type")]
    pub container_type: &'static str,
    /// `READY`, `TRANSFER`, `FAILURE` or `UNAVAILABLE`.
    pub status: &'static str,
    /// UTC, `YYYY-MM-DDThh:mm:ss`; empty if the agent knows none.
    pub update_date_time: String,
    /// Repository.
    pub repository: String,
    /// Tag.
    pub tag: String,
    /// The cluster's name.
    pub system: String,
    /// Stable identity of the image.
    pub image_id: String,
}

/// Stands for the request's ID in a reply; no number before it has it.
const PLACE: &str = "-";

/// Longest name of a system. It stands in every entry of a page: a long one would make of an answer that is
/// within its limit a reply fifty times as large.
const MAX_SYSTEM: usize = 255;

/// How an agent's answer breaks the contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// More images than were asked for, or than the total leaves, or fewer than there are.
    #[error("{listed} images on a page of {asked}, after {skip} of {total}")]
    Rows {
        /// Images on the page.
        listed: usize,
        /// The size of the page.
        asked: u32,
        /// Images passed over.
        skip: u64,
        /// The total as answered.
        total: u64,
    },
    /// A name of the system that is none.
    #[error("the name of the system has {0} bytes; at most {MAX_SYSTEM} are taken")]
    System(usize),
    /// A timestamp that has no form in years 1 to 9999.
    #[error("image {index} has the timestamp {seconds} s, {nanos} ns")]
    Timestamp {
        /// Position on the page.
        index: usize,
        /// Seconds as answered.
        seconds: i64,
        /// Nanoseconds as answered.
        nanos: i32,
    },
    /// A status that the contract does not have.
    #[error("image {index} has the status {status}")]
    Status {
        /// Position on the page.
        index: usize,
        /// The number as answered.
        status: i32,
    },
}

impl Page {
    /// Checks an agent's answer to `request` and takes over what the reply shows of it.
    pub fn from_response(
        request: &ListContainerImages,
        response: v1::ListImagesResponse,
    ) -> Result<Self, Malformed> {
        let (listed, total) = (response.images.len(), response.total_size);
        let (asked, skip) = (request.page_size, request.skip());
        // A page that ends early would pass for the end of the list.
        if listed as u64 != total.saturating_sub(skip).min(asked.into()) {
            return Err(Malformed::Rows {
                listed,
                asked,
                skip,
                total,
            });
        }
        let system = response.system;
        if system.len() > MAX_SYSTEM {
            return Err(Malformed::System(system.len()));
        }
        let images: Vec<ImageEntry> = response
            .images
            .into_iter()
            .enumerate()
            .map(|(index, image)| ImageEntry::new(index, image, &system))
            .collect::<Result<_, _>>()?;
        let reply = Reply {
            page_size: listed,
            page_number: request.page_number,
            request_id: PLACE,
            total_count: total,
            db_info: &response.catalog_uri,
            images: Images { images: &images },
        };
        let mut head = json(&reply);
        let place = head
            .windows(PLACE.len())
            .position(|at| at == PLACE.as_bytes());
        let place = place.expect("the reply has an ID");
        let tail = head.split_off(place + PLACE.len());
        head.truncate(place);
        Ok(Self { head, tail })
    }

    /// The documented reply. There is no `Code` at the top: clients take one for an error.
    pub fn to_json(&self, request_id: &str) -> Vec<u8> {
        // Letters, digits and hyphens look the same in JSON.
        let id = request_id;
        debug_assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
        let mut out = Vec::with_capacity(self.head.len() + id.len() + self.tail.len());
        out.extend_from_slice(&self.head);
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(&self.tail);
        out
    }
}

impl ImageEntry {
    fn new(index: usize, image: v1::Image, system: &str) -> Result<Self, Malformed> {
        let status = match v1::Status::try_from(image.status) {
            Ok(v1::Status::Ready) => "READY",
            Ok(v1::Status::Transfer) => "TRANSFER",
            Ok(v1::Status::Failure) => "FAILURE",
            Ok(v1::Status::Unavailable) => "UNAVAILABLE",
            Ok(v1::Status::Unspecified) | Err(_) => {
                return Err(Malformed::Status {
                    index,
                    status: image.status,
                });
            }
        };
        let update_date_time = match image.update_time {
            None => String::new(),
            Some(time) => date_time(time.seconds, time.nanos).ok_or(Malformed::Timestamp {
                index,
                seconds: time.seconds,
                nanos: time.nanos,
            })?,
        };
        Ok(Self {
            container_type: CONTAINER_TYPE,
            status,
            update_date_time,
            repository: image.repository,
            tag: image.tag,
            system: system.to_owned(),
            image_id: image.image_id,
        })
    }
}

/// `YYYY-MM-DDThh:mm:ss` in UTC, the fraction cut off; nothing outside of what a
/// `google.protobuf.Timestamp` may hold.
fn date_time(seconds: i64, nanos: i32) -> Option<String> {
    if !(0..1_000_000_000).contains(&nanos) {
        return None;
    }
    let time = jiff::Timestamp::from_second(seconds).ok()?;
    let civil = jiff::tz::Offset::UTC.to_datetime(time);
    (civil.year() >= 1).then(|| civil.strftime("%Y-%m-%dT%H:%M:%S").to_string())
}

/// The JSON body of an error.
pub fn error_json(error: &ApiError, request_id: &str, host: &str, base: &str) -> Vec<u8> {
    json(&ErrorReply {
        request_id,
        host_id: host,
        code: error.code(),
        message: error.message(),
        recommend: error.recommend(base),
    })
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply<'a> {
    page_size: usize,
    page_number: u32,
    request_id: &'a str,
    total_count: u64,
    #[serde(rename = "DBInfo")]
    db_info: &'a str,
    images: Images<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Images<'a> {
    images: &'a [ImageEntry],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ErrorReply<'a> {
    request_id: &'a str,
    host_id: &'a str,
    code: &'a str,
    message: String,
    recommend: String,
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Structs of strings and numbers always serialise.
    serde_json::to_vec(value).expect("plain structs serialise")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(page_number: u32, page_size: u32) -> ListContainerImages {
        ListContainerImages {
            cluster_id: "c".into(),
            page_number,
            page_size,
        }
    }

    fn image(status: v1::Status, seconds: i64) -> v1::Image {
        v1::Image {
            repository: "busybox".into(),
            tag: "latest".into(),
            image_id: "sha256:00".into(),
            status: status.into(),
            update_time: Some(sifter_proto::Timestamp { seconds, nanos: 0 }),
            ..Default::default()
        }
    }

    fn response(images: Vec<v1::Image>, total_size: u64) -> v1::ListImagesResponse {
        v1::ListImagesResponse {
            images,
            total_size,
            system: "mycluster".into(),
            catalog_uri: "sqlite:///var/lib/sifter/catalog.db".into(),
            ..Default::default()
        }
    }

    #[test]
    fn golden_reply() {
        let request = request(3, 2);
        let images = vec![
            image(v1::Status::Ready, 1_533_240_696),
            image(v1::Status::Transfer, 0),
        ];
        let page = Page::from_response(&request, response(images, 7)).unwrap();
        let json = page.to_json("04F0F334-1335-436C-A1D7-6C044FE70000");
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        insta::assert_json_snapshot!(value, @r#"
        {
          "DBInfo": "sqlite:///var/lib/sifter/catalog.db",
          "Images": {
            "Images": [
              {
                "ImageId": "sha256:00",
                "Repository": "busybox",
                "Status": "READY",
                "System": "mycluster",
                "Tag": "latest",
                "Type": "singularity",
                "UpdateDateTime": "2018-08-02T20:11:36"
              },
              {
                "ImageId": "sha256:00",
                "Repository": "busybox",
                "Status": "TRANSFER",
                "System": "mycluster",
                "Tag": "latest",
                "Type": "singularity",
                "UpdateDateTime": "1970-01-01T00:00:00"
              }
            ]
          },
          "PageNumber": 3,
          "PageSize": 2,
          "RequestId": "04F0F334-1335-436C-A1D7-6C044FE70000",
          "TotalCount": 7
        }
        "#);
    }

    #[test]
    fn golden_empty_page() {
        let request = request(9, 50);
        let page = Page::from_response(&request, response(vec![], 7)).unwrap();
        let json = String::from_utf8(page.to_json("ID")).unwrap();
        assert_eq!(
            json,
            "{\"PageSize\":0,\"PageNumber\":9,\"RequestId\":\"ID\",\"TotalCount\":7,\
             \"DBInfo\":\"sqlite:///var/lib/sifter/catalog.db\",\"Images\":{\"Images\":[]}}"
        );
    }

    #[test]
    fn golden_error() {
        let error = ApiError::invalid_container_type("do\"cker\u{1b}");
        let json = error_json(&error, "ID", "h:1", "http://h:1");
        assert_eq!(
            String::from_utf8(json).unwrap(),
            "{\"RequestId\":\"ID\",\"HostId\":\"h:1\",\"Code\":\"InvalidContainerType\",\
             \"Message\":\"Unsupported container type: do\\\"cker\u{fffd}.\",\
             \"Recommend\":\"http://h:1/errors#InvalidContainerType\"}"
        );
    }

    #[test]
    fn answers_that_break_the_contract() {
        let ready = || image(v1::Status::Ready, 0);
        let timestamp = |seconds| Malformed::Timestamp {
            index: 1,
            seconds,
            nanos: 0,
        };
        // Of pages of two, the second.
        let rows = |listed, total| Malformed::Rows {
            listed,
            asked: 2,
            skip: 2,
            total,
        };
        let rows = [
            (response(vec![ready(), ready(), ready()], 9), rows(3, 9)),
            (response(vec![ready(), ready()], 3), rows(2, 3)),
            (response(vec![ready()], 1), rows(1, 1)),
            (response(vec![ready()], 9), rows(1, 9)),
            (response(vec![], 3), rows(0, 3)),
            (
                v1::ListImagesResponse {
                    system: "x".repeat(256),
                    ..response(vec![ready(), ready()], 9)
                },
                Malformed::System(256),
            ),
            (
                response(vec![ready(), image(v1::Status::Unspecified, 0)], 9),
                Malformed::Status {
                    index: 1,
                    status: 0,
                },
            ),
            (
                response(vec![ready(), image(v1::Status::Ready, i64::MAX)], 9),
                timestamp(i64::MAX),
            ),
            (
                response(vec![ready(), image(v1::Status::Ready, -70_000_000_000)], 9),
                timestamp(-70_000_000_000),
            ),
        ];
        for (response, expected) in rows {
            let result = Page::from_response(&request(2, 2), response);
            assert_eq!(result.map(drop), Err(expected));
        }
    }

    #[test]
    fn names_of_systems_are_bounded_in_bytes() {
        for (system, bytes, is_taken) in [
            ("", 0, true),
            ("x", 255, true),
            ("x", 256, false),
            ("\u{e9}", 254, true),
            ("\u{e9}", 256, false),
        ] {
            let system = system.repeat(bytes / system.len().max(1));
            let named = v1::ListImagesResponse {
                system,
                ..response(vec![image(v1::Status::Ready, 0)], 1)
            };
            let expected = if is_taken {
                Ok(())
            } else {
                Err(Malformed::System(bytes))
            };
            let page = Page::from_response(&request(1, 1), named);
            assert_eq!(page.map(drop), expected, "{bytes}");
        }
    }

    #[test]
    fn times() {
        let rows = [
            (0, 0, Some("1970-01-01T00:00:00")),
            (0, 999_999_999, Some("1970-01-01T00:00:00")),
            (-1, 999_999_999, Some("1969-12-31T23:59:59")),
            (-62_135_596_800, 0, Some("0001-01-01T00:00:00")),
            (253_402_207_200, 0, Some("9999-12-30T22:00:00")),
            (-62_135_596_801, 0, None),
            (253_402_300_800, 0, None),
            (0, -1, None),
            (0, 1_000_000_000, None),
        ];
        for (seconds, nanos, expected) in rows {
            assert_eq!(date_time(seconds, nanos).as_deref(), expected, "{seconds}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_time_has_the_documented_form_or_none(seconds: i64, nanos: i32) {
            // Half of the time where years are.
            for seconds in [seconds, seconds % 400_000_000_000] {
                if let Some(text) = date_time(seconds, nanos.rem_euclid(1_000_000_000)) {
                    let shape: String = text
                        .chars()
                        .map(|c| if c.is_ascii_digit() { '0' } else { c })
                        .collect();
                    proptest::prop_assert_eq!(shape, "0000-00-00T00:00:00");
                }
            }
        }
    }
}
