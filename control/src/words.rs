//! Numbers in sentences for people.

/// A number and what is counted: `1 cluster`, `2 clusters`.
pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
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
