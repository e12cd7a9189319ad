//! Which requests may share a call to a login node.

use std::hash::Hash;
use std::hash::Hasher;
use std::sync::Arc;

use crate::api::ListContainerImages;
use crate::config::ClusterSettings;

/// What requests must agree in to share a call or its outcome: the page, and the cluster as configured
/// now, which is another one after a change.
#[derive(Clone)]
pub(super) struct PageKey {
    cluster: Arc<ClusterSettings>,
    page_number: u32,
    page_size: u32,
}

impl PageKey {
    pub(super) fn new(cluster: &Arc<ClusterSettings>, request: &ListContainerImages) -> Self {
        Self {
            cluster: Arc::clone(cluster),
            page_number: request.page_number,
            page_size: request.page_size,
        }
    }

    fn parts(&self) -> (*const ClusterSettings, u32, u32) {
        (Arc::as_ptr(&self.cluster), self.page_number, self.page_size)
    }
}

impl PartialEq for PageKey {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for PageKey {}

impl Hash for PageKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}
