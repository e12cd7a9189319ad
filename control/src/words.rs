//! Numbers and errors in sentences for people.

/// A number and what is counted: `1 cluster`, `2 clusters`.
pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// An error with its causes, on one line. Some of other people's errors end with their cause already.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn one_is_no_plural() {
        for (number, text) in [(0, "0 keys"), (1, "1 key"), (2, "2 keys")] {
            assert_eq!(super::count(number, "key"), text);
        }
    }
}
