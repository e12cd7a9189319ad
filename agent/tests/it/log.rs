//! What decides what is logged.

use crate::tool::sifter;

/// What an agent writes that cannot listen, and how it ends.
fn log(rust_log: &str) -> (String, Option<i32>) {
    let output = sifter()
        .args(["agent", "--root", "/", "--listen", "unix:/proc/nowhere"])
        .env("RUST_LOG", rust_log)
        .output()
        .unwrap();
    (
        String::from_utf8(output.stderr).unwrap(),
        output.status.code(),
    )
}

#[test]
fn a_filter_of_the_environment_is_named_where_it_is_none_and_left_out_where_it_is_empty() {
    let (said, code) = log("=x");
    assert!(
        said.starts_with("sifter: RUST_LOG: `=x` is no filter, as in "),
        "{said}"
    );
    assert_eq!(code, Some(2));
    for empty in ["", " "] {
        let (said, _) = log(empty);
        assert!(said.contains("Landlock"), "{said}");
    }
    let (said, _) = log("off");
    assert!(!said.contains("Landlock"), "{said}");
}
