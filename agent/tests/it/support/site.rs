//! A root, scanned as the agent scans it, without the agent around it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sifter_agent::catalog::{Catalog, RootIndex};
use sifter_agent::config::RootSettings;
use sifter_agent::scan::{Counts, Supervisor};

use super::tree::{sif, write};
use super::until;

/// A root with its catalogue and the supervisor that scans it.
pub struct Site {
    pub catalog: Arc<Catalog>,
    pub supervisor: Arc<Supervisor>,
}

impl Site {
    pub fn start(root: &Path, state: Option<&Path>) -> Self {
        let mut settings = RootSettings::new(root.into());
        settings.interval = Duration::from_secs(86_400);
        settings.file_interval = Duration::from_secs(86_400);
        settings.hints = false;
        Self::with(settings, state)
    }

    /// A root that is watched, and scanned besides only when asked.
    pub fn watched(root: &Path) -> Self {
        let mut settings = RootSettings::new(root.to_owned());
        settings.interval = Duration::from_secs(86_400);
        settings.file_interval = settings.interval;
        Self::with(settings, None)
    }

    pub fn with(settings: RootSettings, state: Option<&Path>) -> Self {
        let path = state.map(|state| state.join("catalog.sqlite"));
        let catalog = Arc::new(Catalog::open(
            path.as_deref(),
            std::slice::from_ref(&settings.path),
        ));
        let supervisor = Supervisor::start(Arc::clone(&catalog), vec![settings]).unwrap();
        let site = Self {
            catalog,
            supervisor,
        };
        site.wait(1);
        site
    }

    pub fn wait(&self, number: u64) {
        let mut finished = self.supervisor.finished(RootIndex(0)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime
            .block_on(async {
                tokio::time::timeout(
                    Duration::from_secs(60),
                    finished.wait_for(|done| *done >= number),
                )
                .await
                .map(drop)
            })
            .expect("the scan ends");
    }

    pub fn rescan(&self, full: bool, check_files: bool) -> Counts {
        let number = self.supervisor.request(RootIndex(0), full, check_files);
        self.wait(number);
        self.supervisor.status()[0].last.as_ref().unwrap().counts
    }

    pub fn listing(&self) -> Vec<String> {
        let snapshot = self.catalog.snapshot();
        snapshot
            .rows
            .iter()
            .map(|row| {
                let row = row.view();
                format!(
                    "{}:{} {} {:?}",
                    row.repository,
                    row.tag,
                    Path::new(std::str::from_utf8(row.path).unwrap())
                        .file_name()
                        .unwrap()
                        .to_str()
                        .unwrap(),
                    snapshot.status(&row).0
                )
            })
            .collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.supervisor.stop(Duration::from_secs(10));
    }
}

/// Whether the image of this name, tag 1, is listed and can be run.
pub fn is_listed(site: &Site, name: &str) -> bool {
    let line = format!("{name}:1 {name}.sif Ready");
    site.listing().contains(&line)
}

/// Waits until an image that comes there is listed.
pub fn until_seen(site: &Site, directory: &Path, name: &str) {
    until("changes are watched", || {
        write(
            &directory.join(format!("{name}.sif")),
            &sif(&format!("{name}:1"), 9),
        );
        is_listed(site, name)
    });
}
