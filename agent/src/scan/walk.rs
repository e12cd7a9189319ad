//! The parallel walk: a pool of threads over one queue of directories and shares of directories.
//!
//! As many threads work at once as [`Pace`](super::pace::Pace) allows, each with one operation in flight. The queue is
//! a stack, so that a subtree is finished before the next is begun and few descriptors are held.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

use super::panics::caught;
use super::visit::Visitor;
use super::work::{Item, Pending, Shared};
use super::{ScanError, no_thread};
use crate::lock::lock;

/// Known directories that one thread takes at a time, where memory answers and where each operation costs a round trip.
const KNOWN_FAST: usize = 256;
const KNOWN_SLOW: usize = 4;

/// Pieces of work that one thread does in a row without a look at the queue, while every other thread
/// has work of its own: a lock and the counts that all share cost as much as a small directory that is
/// answered from memory.
const IN_A_ROW: usize = 64;

/// Stack of a worker: decompression of a file system inside an image is the deepest user.
pub(super) const STACK_SIZE: usize = 2 << 20;

/// The workers of one scan.
pub(super) struct Walk<'a> {
    shared: Shared<'a>,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Threads that wait for work.
    waiting: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    items: Vec<Item>,
    /// Threads at work.
    active: u32,
    /// Threads that exist.
    threads: u32,
    /// A thread is fetching known directories from the catalogue.
    fetching: bool,
    /// The catalogue has no more known directories.
    known_done: bool,
    /// Why the walk cannot go on.
    failure: Option<ScanError>,
    finished: bool,
}

impl<'a> Walk<'a> {
    pub fn new(shared: Shared<'a>) -> Self {
        Self {
            shared,
            queue: Mutex::default(),
            wake: Condvar::new(),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Walks until nothing is left or the scan is cancelled: through the directories that are known, or from the
    /// root on if that is not among them.
    ///
    /// # Errors
    ///
    /// The catalogue could not say what is known, or a worker could not go on.
    pub fn run(&self) -> Result<(), ScanError> {
        std::thread::scope(|scope| {
            let mut queue = lock(&self.queue);
            queue.known_done = self.shared.known.is_none();
            if !self.shared.known.is_some_and(|known| known.knows_root()) {
                queue.items.push(Item::Directory(Pending {
                    parent: None,
                    path: Box::default(),
                    known: None,
                }));
            }
            self.spawn_up_to_width(scope, &mut queue);
        });
        lock(&self.queue).failure.take().map_or(Ok(()), Err)
    }

    fn spawn_up_to_width<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        queue: &mut Queue,
    ) {
        while queue.threads < self.shared.pace.width() {
            let spawned = std::thread::Builder::new()
                .name("sifter-scan".to_owned())
                .stack_size(STACK_SIZE)
                .spawn_scoped(scope, move || self.work_or_fail(scope));
            match spawned {
                Ok(_) => queue.threads += 1,
                // With fewer threads the scan is slower, not wrong; with none it must not hang.
                Err(_) if queue.threads > 0 => break,
                Err(error) => {
                    let message = no_thread(&error);
                    queue.failure = Some(ScanError::internal(self.shared.settings, message));
                    break;
                }
            }
        }
    }

    /// What a worker was about when it panicked is lost, and its count stays: the others wait for nothing.
    fn work_or_fail<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        if let Err(message) = caught(|| self.work(scope)) {
            let mut queue = lock(&self.queue);
            let failure = ScanError::internal(self.shared.settings, message);
            queue.failure.get_or_insert(failure);
            self.wake.notify_all();
        }
    }

    fn work<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        if self.shared.settings.background {
            super::priority::lower_this_thread();
        }
        let mut visitor = Visitor::new(&self.shared);
        let mut new = Vec::new();
        let mut queue = lock(&self.queue);
        loop {
            if queue.finished || self.shared.progress.is_cancelled() || queue.failure.is_some() {
                break;
            }
            if queue.active < self.shared.pace.width() {
                if let Some(item) = queue.items.pop() {
                    queue.active += 1;
                    drop(queue);
                    visitor.visit(item, &mut new);
                    self.go_on(&mut visitor, &mut new);
                    visitor.hand_on();
                    queue = lock(&self.queue);
                    queue.active -= 1;
                    self.enqueue(scope, &mut queue, &mut new);
                    continue;
                }
                if !queue.known_done && !queue.fetching {
                    queue = self.fetch(queue);
                    continue;
                }
                if queue.active == 0 && queue.known_done {
                    break;
                }
            }
            self.waiting.fetch_add(1, Ordering::Relaxed);
            queue = self
                .wake
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        queue.finished = true;
        self.wake.notify_all();
        drop(queue);
    }

    /// Does some of what a visit found to do at once, as long as nobody else could begin with it.
    fn go_on(&self, visitor: &mut Visitor<'_>, new: &mut Vec<Item>) {
        for _ in 0..IN_A_ROW {
            let nobody_waits = self.waiting.load(Ordering::Relaxed) == 0;
            if !nobody_waits || self.shared.pace.is_slow() || self.shared.progress.is_cancelled() {
                return;
            }
            let Some(item) = new.pop() else { return };
            visitor.visit(item, new);
        }
    }

    /// Adds what a visit found to do, and wakes or starts as many threads as may help.
    fn enqueue<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        queue: &mut Queue,
        new: &mut Vec<Item>,
    ) {
        let width = self.shared.pace.width();
        let added = new.len();
        queue.items.append(new);
        self.shared
            .progress
            .set_queue(queue.items.len() as u64, width);
        if added > 0 || queue.items.len() > 1 {
            self.spawn_up_to_width(scope, queue);
        }
        let idle = queue.threads.saturating_sub(queue.active + 1);
        if idle == 0 {
            return;
        }
        if queue.active == 0 && queue.items.is_empty() {
            self.wake.notify_all();
        } else if queue.active + 1 < width {
            for _ in 0..queue.items.len().min(idle as usize) {
                self.wake.notify_one();
            }
        }
    }

    /// Takes more known directories from the catalogue, without holding up the others.
    fn fetch<'q>(&'q self, mut queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        let Some(known) = self.shared.known else {
            queue.known_done = true;
            return queue;
        };
        queue.fetching = true;
        drop(queue);
        let batch = known.next_directories();
        let mut queue = lock(&self.queue);
        queue.fetching = false;
        match batch {
            Ok(batch) if batch.is_empty() => queue.known_done = true,
            Ok(batch) => {
                let share = if self.shared.pace.is_slow() {
                    KNOWN_SLOW
                } else {
                    KNOWN_FAST
                };
                let mut batch = batch.into_iter().peekable();
                while batch.peek().is_some() {
                    queue
                        .items
                        .push(Item::Known(batch.by_ref().take(share).collect()));
                }
            }
            Err(error) => queue.failure = Some(ScanError::known(self.shared.settings, error)),
        }
        self.wake.notify_all();
        queue
    }
}
