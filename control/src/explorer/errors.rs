//! `docs/errors.md` as a page: the target of `Recommend`.
//!
//! Not a Markdown reader: it knows headings, paragraphs, lists, code and emphasis, which is what
//! that one document uses. The document is ours, and still everything is escaped.

const DOCUMENT: &str = include_str!("../../../docs/errors.md");

/// The page.
pub(super) fn page() -> String {
    let mut out = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Error codes</title>\n<link rel=\"icon\" href=\"data:,\">\n\
         <link rel=\"stylesheet\" href=\"/explorer/app.css\">\n</head>\n\
         <body class=\"document\">\n",
    );
    let mut block = String::new();
    let mut in_list = false;
    for line in DOCUMENT.lines().chain([""]) {
        let starts_block = line.is_empty() || line.starts_with('#') || line.starts_with("- ");
        if starts_block && !block.is_empty() {
            let (tag, text) = match block.strip_prefix("- ") {
                Some(text) => ("li", text),
                None => ("p", block.as_str()),
            };
            if tag == "li" && !in_list {
                out.push_str("<ul>\n");
                in_list = true;
            }
            out.push_str(&format!("<{tag}>{}</{tag}>\n", inline(text)));
            block.clear();
        }
        if in_list && !line.starts_with("- ") && starts_block {
            out.push_str("</ul>\n");
            in_list = false;
        }
        if let Some(code) = line.strip_prefix("## ") {
            let code = escape(code);
            out.push_str(&format!("<h2 id=\"{code}\">{code}</h2>\n"));
        } else if let Some(title) = line.strip_prefix("# ") {
            out.push_str(&format!("<h1>{}</h1>\n", inline(title)));
        } else if !line.is_empty() {
            if !block.is_empty() {
                block.push(' ');
            }
            block.push_str(line.trim());
        }
    }
    out.push_str("</body>\n</html>\n");
    out
}

/// Codes that have a section.
#[cfg(test)]
fn sections() -> impl Iterator<Item = &'static str> {
    DOCUMENT.lines().filter_map(|line| line.strip_prefix("## "))
}

/// Code, emphasis and links within the page.
fn inline(text: &str) -> String {
    let mut out = String::new();
    for (at, part) in text.split('`').enumerate() {
        if at % 2 == 1 {
            out.push_str(&format!("<code>{}</code>", escape(part)));
            continue;
        }
        for (at, part) in part.split('*').enumerate() {
            let text = links(part);
            out.push_str(&if at % 2 == 1 {
                format!("<em>{text}</em>")
            } else {
                text
            });
        }
    }
    out
}

fn links(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, name, target, after)) = link(rest) {
        out.push_str(&escape(before));
        out.push_str(&format!(
            "<a href=\"#{}\">{}</a>",
            escape(target),
            escape(name)
        ));
        rest = after;
    }
    out.push_str(&escape(rest));
    out
}

/// The first `[name](#target)`.
fn link(text: &str) -> Option<(&str, &str, &str, &str)> {
    let (before, rest) = text.split_once('[')?;
    let (name, rest) = rest.split_once("](#")?;
    let (target, after) = rest.split_once(')')?;
    Some((before, name, target, after))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::openapi::every_error;
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_has_its_section_status_and_message() {
        let expected: BTreeSet<_> = every_error().iter().map(|error| error.code()).collect();
        assert_eq!(sections().collect::<BTreeSet<_>>(), expected);
        assert_eq!(sections().count(), expected.len());
        for error in every_error() {
            let code = error.code();
            let section = DOCUMENT.split(&format!("\n## {code}\n")).nth(1).unwrap();
            let first = format!(
                "\nHTTP {}. *{}*\n",
                error.status().as_u16(),
                error.message()
            );
            assert!(section.starts_with(&first), "{code}: expected {first}");
            let section = section.split("\n## ").next().unwrap();
            for part in ["- Meaning: ", "- To cause it: ", "- What to do: "] {
                assert!(section.contains(part), "{code} lacks {part}");
            }
        }
    }

    #[test]
    fn rendered() {
        let page = page();
        assert!(page.contains("<h2 id=\"InvalidAccessKeyId.NotFound\">"));
        assert!(page.contains("<a href=\"#ServiceUnavailable\">ServiceUnavailable</a>"));
        assert!(page.contains("<li>To cause it: <code>Format=XML</code>.</li>"));
        assert_eq!(page.matches("<ul>").count(), page.matches("</ul>").count());
        assert_eq!(page.matches("<ul>").count(), every_error().len());
        assert_eq!(
            inline("<b> `<i>` *x*"),
            "&lt;b&gt; <code>&lt;i&gt;</code> <em>x</em>"
        );
    }
}
