//! `[[clusters]]`: which ones there are, and who answers for them.

use std::collections::HashMap;

use super::ClusterSettings;
use super::DEFAULT_REGION;
use super::NodeAddress;
use super::problem::Problems;
use super::raw::RawCluster;

/// Longest `ClusterId` that can be configured; longer ones in requests are unknown anyway.
const MAX_ID: usize = 128;

/// Validates `[[clusters]]`. `tls`: whether agents are spoken to over TLS; `has_keys`: whether access keys
/// say who sees which cluster.
pub(super) fn validate(
    raw: Vec<RawCluster>,
    tls: bool,
    has_keys: bool,
    problems: &mut Problems,
) -> Vec<ClusterSettings> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut clusters = Vec::with_capacity(raw.len());
    for (index, raw) in raw.into_iter().enumerate() {
        let id = &raw.id;
        let name = if id.is_empty() {
            format!("clusters[{index}]")
        } else {
            format!("cluster {id:?}")
        };
        let count = seen.entry(id.clone()).or_default();
        let before = *count;
        *count += 1;
        let mut add = |key: &str, text: String, absent| {
            problems.add_of_cluster((id, before), key, text, absent);
        };
        if id.is_empty() {
            add(
                "id",
                format!("{name}.id is missing: write the ClusterId that clients use"),
                true,
            );
        } else if before > 0 {
            add("id", format!("{name} is configured twice"), false);
        }
        if id.len() > MAX_ID || id.chars().any(char::is_control) {
            add(
                "id",
                format!("{name}: an id has at most {MAX_ID} bytes and no control characters"),
                false,
            );
        }
        if has_keys && raw.account.is_empty() {
            add(
                "account",
                format!(
                    "{name} has no account, so no access key would ever see it: write the \
                     account_id of the keys that may"
                ),
                true,
            );
        }
        let region = raw.region.unwrap_or_else(|| DEFAULT_REGION.to_owned());
        // Both are pieces of the resource that policies name, where `:` and `*` mean something.
        for (key, text) in [("account", &raw.account), ("region", &region)] {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if !text.chars().all(is_plain) {
                add(
                    key,
                    format!(
                        "{name}: {key} = {text:?}: write letters, digits, `-`, `_` and `.` only"
                    ),
                    false,
                );
            }
        }
        if region.is_empty() {
            add(
                "region",
                format!("{name}: region is empty: leave it out for {DEFAULT_REGION:?}"),
                false,
            );
        }
        let mut login_nodes = Vec::with_capacity(raw.login_nodes.len());
        for text in &raw.login_nodes {
            let (problem, absent) = match NodeAddress::parse(text, tls) {
                Ok(NodeAddress::Tls(_)) if !tls => (
                    "needs a table [agent_tls] with ca, cert and key".to_owned(),
                    true,
                ),
                Ok(address) if login_nodes.contains(&address) => {
                    ("is listed twice".to_owned(), false)
                }
                Ok(address) => {
                    login_nodes.push(address);
                    continue;
                }
                Err(error) => {
                    let problem = format!(
                        "is no address: {error}; write host:port, http://host:port, \
                         https://host:port or unix:/path"
                    );
                    (problem, false)
                }
            };
            add(
                "login_nodes",
                format!("{name}: login node {text:?} {problem}"),
                absent,
            );
        }
        clusters.push(ClusterSettings {
            id: raw.id,
            account: raw.account,
            region,
            login_nodes,
        });
    }
    clusters
}
