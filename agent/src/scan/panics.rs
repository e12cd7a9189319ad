//! Panics are bugs, and one of them must cost no more than what it is about: in the probe of a file that
//! file, elsewhere in a scan that scan.
//!
//! Nothing is hidden: each is logged with its place, and the image or the root says so.

use std::any::Any;
use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use sifter_image::{Options, ReadAt, Subject, Verdict};

use super::sandbox::SandboxTree;

thread_local! {
    /// Where this thread panicked last, which only the hook is told.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs something that may panic; what it was about is left as it is then, and not used any more.
///
/// # Errors
///
/// It panicked: what is to be said of that.
pub fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    note_places();
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| explain(&*panic))
}

/// As [`sifter_image::probe()`]; where that panics, the file is a FAILURE.
///
/// # Errors
///
/// What reading the file says.
pub fn probe(file: &dyn ReadAt, subject: &Subject<'_>, options: &Options) -> io::Result<Verdict> {
    judged(
        subject,
        || sifter_image::probe(file, subject, options),
        |message| sifter_image::probe::failure(file, subject, options, message),
    )
}

/// As [`sifter_image::probe_directory`]; where that panics, the sandbox is a FAILURE.
///
/// # Errors
///
/// What reading the directory says.
pub fn probe_directory(
    tree: &SandboxTree<'_>,
    subject: &Subject<'_>,
    options: &Options,
) -> io::Result<Verdict> {
    judged(
        subject,
        || sifter_image::probe_directory(tree, subject, options),
        |message| {
            let failed = sifter_image::probe::failure_of_directory(subject, options, message);
            Ok(failed)
        },
    )
}

fn judged(
    subject: &Subject<'_>,
    probe: impl FnOnce() -> io::Result<Verdict>,
    failure: impl FnOnce(&str) -> io::Result<Verdict>,
) -> io::Result<Verdict> {
    let probed = caught(|| {
        #[cfg(test)]
        fail_on_purpose("panics-when-probed", subject.path);
        probe()
    });
    probed.unwrap_or_else(|message| {
        let path = crate::escape::path(subject.path);
        tracing::error!(path, error = message, "the probe of a file panicked");
        // If even naming the file panics, it cannot be read as far as anybody can tell.
        caught(|| failure(&message)).unwrap_or_else(|message| Err(io::Error::other(message)))
    })
}

/// Nothing is known that makes a scan panic: in unit tests a name does.
#[cfg(test)]
pub fn fail_on_purpose(name: &str, path: &std::path::Path) {
    assert!(!path.ends_with(name), "on purpose");
}

/// Has places noted before the messages are printed as ever.
fn note_places() {
    static NOTED: Once = Once::new();
    NOTED.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let place = panic.location().map(ToString::to_string);
            // A thread that is ending has none any more, and nobody asks it.
            let _ = PLACE.try_with(|last| last.replace(place));
            print(panic);
        }));
    });
}

fn explain(panic: &(dyn Any + Send)) -> String {
    let place = PLACE.take().map(|place| format!(" at {place}"));
    let what = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(what), _) => what,
        (_, Some(what)) => what.as_str(),
        _ => "no message",
    };
    format!(
        "internal error of sifter{}: {what}: please report it",
        place.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::caught;

    #[test]
    fn a_panic_is_told_with_its_place() {
        for (index, panic) in [
            (|| panic!("plain")) as fn(),
            || panic!("{}", "formatted"),
            || std::panic::panic_any(7),
        ]
        .into_iter()
        .enumerate()
        {
            let message = caught(panic).unwrap_err();
            let what = ["plain", "formatted", "no message"][index];
            assert!(message.contains(what), "{message}");
            assert!(message.contains(concat!(" at ", file!(), ":")), "{message}");
        }
        assert_eq!(caught(|| 1), Ok(1));
    }
}
