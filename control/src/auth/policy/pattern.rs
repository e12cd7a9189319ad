//! Wildcards of RAM policies: `*` for any run of characters, `?` for one.
//!
//! Linear in practice and never worse than pattern × text, whatever a pattern's author writes.

/// Whether `text` fits `pattern` as a whole; letters compare as given.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    search(pattern, text, || ())
}

/// The same, telling of each step.
fn search(pattern: &str, text: &str, mut step: impl FnMut()) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where to resume when the text after the last `*` does not fit: one character further.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        step();
        match pattern.get(p) {
            Some('*') => {
                p += 1;
                retry = Some((p, t));
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((after_star, from)) => {
                    retry = Some((after_star, from + 1));
                    p = after_star;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// The same with ASCII letters of either case being equal: action names.
pub(super) fn matches_ignoring_case(pattern: &str, text: &str) -> bool {
    matches(&pattern.to_ascii_lowercase(), &text.to_ascii_lowercase())
}

/// Whether a resource name fits a pattern, part by part (`acs:code:region:account:relative`), so
/// that a wildcard in one part never swallows the next.
pub(super) fn matches_resource(pattern: &str, resource: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    let mut patterns = pattern.splitn(RESOURCE_PARTS, ':');
    let mut parts = resource.splitn(RESOURCE_PARTS, ':');
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) if matches(pattern, part) => {}
            _ => return false,
        }
    }
}

/// `acs`, service, region, account, and the rest (which may contain colons).
pub(super) const RESOURCE_PARTS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything:at/all", true),
            ("a*", "a", true),
            ("a*", "ba", false),
            ("*a", "banana", true),
            ("b*a*a", "banana", true),
            ("b*x*a", "banana", false),
            ("?", "", false),
            ("?", "中", true),
            ("??", "中", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("**a**", "a", true),
            ("ehpc:List*", "ehpc:ListContainerImages", true),
            ("ehpc:List", "ehpc:ListContainerImages", false),
            ("ehpc:*Images", "ehpc:ListContainerImages", true),
            ("ehpc:list*", "ehpc:ListContainerImages", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
        assert!(matches_ignoring_case(
            "EHPC:list*",
            "ehpc:ListContainerImages"
        ));
    }

    #[test]
    fn resources_part_by_part() {
        let asked = "acs:ehpc:cn-hangzhou:123:*";
        for (pattern, expected) in [
            ("*", true),
            ("acs:ehpc:*:*:*", true),
            ("acs:*:*:123:*", true),
            ("acs:ehpc:cn-hangzhou:123:*", true),
            ("acs:ehpc:cn-*:123:*", true),
            ("acs:ehpc:cn-beijing:123:*", false),
            ("acs:ehpc:cn-hangzhou:124:*", false),
            ("acs:ecs:*:*:*", false),
            ("acs:ehpc:*:*:cluster/one", false),
            // Too few parts never match: a wildcard does not reach across a colon.
            ("acs:ehpc:*", false),
            ("acs:*", false),
        ] {
            assert_eq!(matches_resource(pattern, asked), expected, "{pattern}");
        }
        assert!(matches_resource("acs:x:*:*:a/*", "acs:x:r:1:a/b:c"));
    }

    #[test]
    fn a_hostile_pattern_does_not_explode() {
        let text = "a".repeat(4000);
        for pattern in [
            "a*".repeat(200) + "b",
            "*".to_owned() + &"a".repeat(200) + "b",
        ] {
            let mut steps = 0;
            assert!(!search(&pattern, &text, || steps += 1));
            assert!(steps <= pattern.len() * text.len(), "{steps}");
        }
    }
}
