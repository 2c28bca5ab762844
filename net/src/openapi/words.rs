//! Comments of Rust as the document's descriptions.

use serde_json::Value;

/// The first sentence of a description.
pub(super) fn summary(description: &str) -> String {
    let first = description.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    match first.split_once(". ") {
        Some((sentence, _)) => format!("{sentence}."),
        None => first,
    }
}

/// Makes links to Rust's items plain names, in every description below `value`.
pub(super) fn plain(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "description" || name == "summary" => {
                        *text = text.replace("[`", "`").replace("`]", "`");
                    }
                    value => plain(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(plain),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_summary_is_one_sentence_and_links_are_names() {
        assert_eq!(summary("Lists VOs, by\nid. Needs no proof.\n\nMore."), "Lists VOs, by id.");
        assert_eq!(summary("Who asks"), "Who asks");
        let mut value = json!({ "x": [{ "description": "see [`GetVo`]", "pattern": "[`]" }] });
        plain(&mut value);
        assert_eq!(value, json!({ "x": [{ "description": "see `GetVo`", "pattern": "[`]" }] }));
    }
}
