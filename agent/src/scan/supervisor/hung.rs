//! Roots whose file system does not answer, and does again.

use std::time::Duration;

use crate::catalog::Catalog;

use super::{RootState, Supervised};

impl Supervised {
    /// No operation of the running scan came back for so long.
    pub(super) fn hangs(&self, catalog: &Catalog, idle: Duration) {
        let message = format!(
            "the file system has not answered for {} seconds",
            idle.as_secs()
        );
        let _telling = self.tell();
        {
            let mut state = self.lock();
            // It has ended meanwhile: nobody would take this back before the next one.
            if state.progress.is_none() {
                return;
            }
            let hangs = RootState::Unavailable(message.clone());
            let before = std::mem::replace(&mut state.root_state, hangs);
            if before.is_unavailable() {
                return;
            }
            state.before_hanging = Some(before);
        }
        tracing::warn!(root = %crate::escape::path(&self.settings.path), error = message, "root hangs");
        catalog.set_unavailable(self.index, Some(message));
    }

    /// What hung answers again, and may be scanned for hours yet. A root of which nothing is known stays as it is:
    /// nothing of it could be listed, and all others' images would wait for it.
    pub(super) fn answers(&self, catalog: &Catalog) {
        if !self.was_scanned(catalog) {
            return;
        }
        let _telling = self.tell();
        {
            let mut state = self.lock();
            if state.progress.is_none() {
                return;
            }
            let Some(before) = state.before_hanging.take() else {
                return;
            };
            state.root_state = before;
        }
        tracing::info!(root = %crate::escape::path(&self.settings.path), "root answers again");
        catalog.set_unavailable(self.index, None);
    }
}
