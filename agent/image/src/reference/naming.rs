//! Rule 1: a site's own naming rules.

use std::path::Path;

/// Memory that one compiled rule may take: a typing error in a repetition is refused at start.
const SIZE_LIMIT: usize = 1 << 20;

/// A site's own naming rule: a regular expression over the absolute path with the named groups
/// `repository` and, optionally, `tag`.
#[derive(Debug, Clone)]
pub struct NamingRule {
    pattern: regex::Regex,
}

impl NamingRule {
    /// Compiles a rule.
    ///
    /// # Errors
    ///
    /// What is wrong with the expression, or which group it lacks.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let pattern = regex::RegexBuilder::new(pattern)
            .size_limit(SIZE_LIMIT)
            .build()
            .map_err(|error| error.to_string())?;
        if pattern
            .capture_names()
            .flatten()
            .any(|group| group == "repository")
        {
            Ok(Self { pattern })
        } else {
            Err(
                "the expression has no group named `repository`, as in `(?<repository>[^/]+)`"
                    .to_owned(),
            )
        }
    }

    /// The expression as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.pattern.as_str()
    }

    /// Repository and tag, where the path matches and the repository is not empty.
    pub(crate) fn apply(&self, path: &str) -> Option<(String, String)> {
        let groups = self.pattern.captures(path)?;
        let group = |name| {
            groups
                .name(name)
                .map(|group| group.as_str())
                .filter(|text| !text.is_empty())
        };
        let repository = group("repository")?;
        Some((
            repository.to_owned(),
            group("tag").unwrap_or("latest").to_owned(),
        ))
    }
}

/// What the first of the rules that matches gives.
pub(crate) fn first(rules: &[NamingRule], path: &Path) -> Option<(String, String)> {
    if rules.is_empty() {
        return None;
    }
    let path = path.to_string_lossy();
    rules.iter().find_map(|rule| rule.apply(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applying() {
        let rule = NamingRule::new(r"^/apps/(?<repository>[^/]+)/(?:(?<tag>[^/]+)/)?image\.sif$")
            .expect("a good rule");
        for (path, expected) in [
            (
                "/apps/gromacs/2024.1/image.sif",
                Some(("gromacs", "2024.1")),
            ),
            ("/apps/gromacs/image.sif", Some(("gromacs", "latest"))),
            ("/apps/gromacs/2024.1/other.sif", None),
        ] {
            let given = rule.apply(path);
            let given = given.as_ref().map(|(r, t)| (r.as_str(), t.as_str()));
            assert_eq!(given, expected, "{path}");
        }
    }

    #[test]
    fn the_first_match_counts_and_an_empty_repository_is_none() {
        let rules = [
            NamingRule::new(r"/(?<repository>x?)\.sif").expect("a good rule"),
            NamingRule::new(r"/(?P<repository>[a-z]+)").expect("a good rule"),
        ];
        let given = first(&rules, Path::new("/abc/.sif"));
        assert_eq!(given, Some(("abc".to_owned(), "latest".to_owned())));
        assert_eq!(first(&[], Path::new("/abc/.sif")), None);
    }

    #[test]
    fn refusals() {
        for (pattern, part) in [
            ("/(?<tag>.*)", "repository"),
            ("/(.*)", "repository"),
            ("(?<repository>", ""),
            ("(?<repository>(a{1000}){1000})", "size"),
        ] {
            let error = NamingRule::new(pattern).expect_err(pattern);
            assert!(error.contains(part), "{pattern}: {error}");
        }
    }
}
