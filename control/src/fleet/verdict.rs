//! What is answered of what the login nodes said.

use super::CallContext;
use super::failure::Failure;
use super::lease::Lease;
use crate::api::ApiError;
use crate::api::Page;
use crate::config::PartialListings;

/// A page, and the agent's promise that nothing of it changes, if it gave one.
#[derive(Debug)]
pub(super) struct Leased {
    /// The page.
    pub(super) page: Page,
    /// The promise.
    pub(super) lease: Option<Lease>,
}

/// What a login node answered.
pub(super) enum Answer {
    /// The whole listing's page.
    Whole(Leased),
    /// The same where that many roots could not be read, so that what was known of them is listed. Good if nobody
    /// has better: a login node that has lost a mount tells others nothing new, one that has it does.
    Stale(Page, usize),
    /// A page of a listing that lacks a root, or what its caller may not see, and why.
    Partial(Page, Failure),
}

/// What remains to be said when no login node had a whole listing.
#[derive(Default)]
pub(super) struct Verdict {
    failure: Option<Failure>,
    page: Option<Page>,
    stale: Option<Stale>,
}

/// A whole listing with roots that could not be read.
struct Stale {
    page: Page,
    roots: usize,
}

impl Verdict {
    /// A login node gave no listing.
    pub(super) fn failed(&mut self, failure: Failure) {
        let heavier = self
            .failure
            .as_ref()
            .is_none_or(|other| failure.weight() > other.weight());
        if heavier {
            self.failure = Some(failure);
        }
    }

    /// A login node gave a listing that is not whole.
    pub(super) fn partial(&mut self, page: Page, failure: Failure) {
        self.page.get_or_insert(page);
        self.failed(failure);
    }

    /// A login node gave a listing with so many roots that it cannot read now.
    pub(super) fn stale(&mut self, page: Page, roots: usize) {
        if self.stale.as_ref().is_none_or(|other| roots < other.roots) {
            self.stale = Some(Stale { page, roots });
        }
    }

    /// What is answered, now that nobody is left to ask.
    pub(super) fn conclude(
        self,
        partial_listings: PartialListings,
        cluster: &str,
        context: CallContext<'_>,
    ) -> Result<Leased, ApiError> {
        // No promise goes along with either: it would be one login node's, and another may have better at any time.
        if let Some(Stale { page, .. }) = self.stale {
            return Ok(Leased { page, lease: None });
        }
        let failure = self.failure.unwrap_or(Failure::Timeout);
        match (self.page, partial_listings) {
            (Some(page), PartialListings::Serve) => {
                tracing::warn!(
                    request_id = context.request_id,
                    cluster,
                    error = %failure.line(),
                    "served a listing that is not whole"
                );
                Ok(Leased { page, lease: None })
            }
            _ => Err(failure.api_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use sifter_proto::v1;

    use super::*;
    use crate::api::ListContainerImages;
    use crate::api::Malformed;

    #[test]
    fn the_failure_that_says_most_is_answered() {
        let transport = || Failure::Transport(String::new());
        let not_ready = || Failure::NotReady(String::new());
        let scan = || Failure::ScanFailed("scan /a: EACCES".into());
        let catalog = || Failure::CatalogFailed(String::new());
        let other = || Failure::Other {
            code: String::new(),
            message: String::new(),
        };
        let malformed = || Failure::Malformed(Malformed::System(256));
        let rows = [
            (vec![], ApiError::AgentError),
            (vec![transport(), Failure::Timeout], ApiError::AgentError),
            (vec![not_ready(), not_ready()], ApiError::ServiceUnavailable),
            (vec![transport(), not_ready()], ApiError::ServiceUnavailable),
            (vec![catalog(), not_ready()], ApiError::DbError),
            (
                vec![transport(), scan(), catalog()],
                ApiError::exec_fail("scan /a: EACCES"),
            ),
            (
                vec![Failure::Restricted, scan()],
                ApiError::exec_fail("scan /a: EACCES"),
            ),
            (
                vec![catalog(), Failure::Restricted],
                Failure::Restricted.api_error(),
            ),
            (vec![other(), not_ready()], ApiError::ServiceUnavailable),
            (vec![malformed(), other()], ApiError::UnknownError),
            (vec![Failure::Timeout, malformed()], ApiError::AgentError),
        ];
        for (failures, expected) in rows {
            let mut verdict = Verdict::default();
            let text = format!("{failures:?}");
            for failure in failures {
                verdict.failed(failure);
            }
            let context = CallContext {
                request_id: "",
                deadline: Instant::now(),
            };
            let error = verdict
                .conclude(PartialListings::Refuse, "c", context)
                .unwrap_err();
            assert_eq!(error, expected, "{text}");
        }
    }

    fn page(system: &str) -> Page {
        let request = ListContainerImages {
            cluster_id: String::new(),
            page_number: 1,
            page_size: 10,
        };
        let image = v1::Image {
            status: v1::Status::Ready.into(),
            ..Default::default()
        };
        let response = v1::ListImagesResponse {
            images: vec![image],
            total_size: 1,
            system: system.into(),
            ..Default::default()
        };
        Page::from_response(&request, response).unwrap()
    }

    #[test]
    fn what_is_known_of_roots_that_cannot_be_read_is_better_than_nothing() {
        for (stale, expected) in [
            (vec![("first", 1)], "first"),
            (vec![("first", 1), ("second", 1)], "first"),
            (vec![("first", 2), ("second", 1), ("third", 2)], "second"),
        ] {
            let mut verdict = Verdict::default();
            verdict.failed(Failure::Timeout);
            verdict.partial(page("lacks"), Failure::ScanFailed("scan /a: gone".into()));
            for &(system, roots) in &stale {
                verdict.stale(page(system), roots);
            }
            let context = CallContext {
                request_id: "",
                deadline: Instant::now(),
            };
            let leased = verdict
                .conclude(PartialListings::Refuse, "c", context)
                .unwrap();
            assert!(leased.lease.is_none());
            let told = leased.page.to_json("id");
            assert_eq!(told, page(expected).to_json("id"), "{stale:?}");
        }
    }

    #[test]
    fn a_page_that_is_not_whole_is_served_only_where_that_is_wanted() {
        for (partial_listings, expected) in [
            (PartialListings::Serve, Ok(page("first").to_json("id"))),
            (
                PartialListings::Refuse,
                Err(ApiError::exec_fail("scan /a: gone")),
            ),
        ] {
            let mut verdict = Verdict::default();
            verdict.failed(Failure::Timeout);
            verdict.partial(page("first"), Failure::ScanFailed("scan /a: gone".into()));
            // The first one stays.
            verdict.partial(page("second"), Failure::ScanFailed("scan /b: gone".into()));
            let context = CallContext {
                request_id: "",
                deadline: Instant::now(),
            };
            let concluded = verdict.conclude(partial_listings, "c", context);
            let told = concluded.map(|leased| {
                assert!(leased.lease.is_none());
                leased.page.to_json("id")
            });
            assert_eq!(told, expected, "{partial_listings:?}");
        }
    }
}
