//! Which clusters there are, and which login nodes answer for them.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::ClusterSettings;
use crate::config::NodeAddress;

/// Where clusters are looked up.
pub trait Registry: Send + Sync {
    /// The cluster of that ID.
    fn cluster(&self, id: &str) -> Option<Arc<ClusterSettings>>;

    /// The regions of an account's clusters, each once.
    fn regions(&self, account: &str) -> BTreeSet<String>;

    /// The login nodes of all clusters.
    fn addresses(&self) -> HashSet<NodeAddress>;
}

/// The clusters of the configuration file. Replaced whole; a request under way keeps what it
/// looked up.
#[derive(Debug, Default)]
pub struct FileRegistry {
    clusters: ArcSwap<HashMap<String, Arc<ClusterSettings>>>,
}

impl FileRegistry {
    /// A registry of these clusters.
    pub fn new(clusters: Vec<ClusterSettings>) -> Self {
        let registry = Self::default();
        registry.replace(clusters);
        registry
    }

    /// Takes these clusters instead.
    pub fn replace(&self, clusters: Vec<ClusterSettings>) {
        let clusters = clusters
            .into_iter()
            .map(|cluster| (cluster.id.clone(), Arc::new(cluster)))
            .collect();
        self.clusters.store(Arc::new(clusters));
    }

    /// How many clusters there are.
    pub fn len(&self) -> usize {
        self.clusters.load().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Registry for FileRegistry {
    fn cluster(&self, id: &str) -> Option<Arc<ClusterSettings>> {
        self.clusters.load().get(id).cloned()
    }

    fn regions(&self, account: &str) -> BTreeSet<String> {
        self.clusters
            .load()
            .values()
            .filter(|cluster| cluster.account == account)
            .map(|cluster| cluster.region.clone())
            .collect()
    }

    fn addresses(&self) -> HashSet<NodeAddress> {
        self.clusters
            .load()
            .values()
            .flat_map(|cluster| cluster.login_nodes.iter().cloned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_the_regions_of_its_own_clusters() {
        let cluster = |id: &str, account: &str, region: &str| ClusterSettings {
            id: id.into(),
            account: account.into(),
            region: region.into(),
            login_nodes: Vec::new(),
        };
        let registry = FileRegistry::new(vec![
            cluster("a", "1", "east"),
            cluster("b", "1", "west"),
            cluster("c", "1", "east"),
            cluster("d", "2", "north"),
        ]);
        for (account, expected) in [
            ("1", &["east", "west"][..]),
            ("2", &["north"]),
            ("3", &[]),
            ("", &[]),
        ] {
            let regions = registry.regions(account);
            assert!(regions.iter().eq(expected), "{account}: {regions:?}");
        }
    }
}
