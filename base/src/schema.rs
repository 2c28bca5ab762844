//! What ids look like, for the document of the API: their parsers in words that other programs
//! read (JSON Schema 2020-12). The linker drops this from the modules of NSS and PAM.

use crate::ids::{
    ClusterId, GroupName, JobId, NodeId, PersonId, ProviderId, RoleName, SiteId, UnitId, VoId,
};
use crate::local_name::LocalName;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;
use std::borrow::Cow;

/// A label of at most 24 characters.
const LABEL: &str = "[a-z]([a-z0-9-]{0,22}[a-z0-9])?";
/// A name of at most 32.
const NAME: &str = "[a-z]([a-z0-9_-]{0,30}[a-z0-9_])?";

/// What is told of a type; the pattern without anchors.
#[cfg(test)]
struct Told {
    name: &'static str,
    pattern: String,
    longest: usize,
    example: &'static str,
    /// Whether a text is one.
    is: fn(&str) -> bool,
}

#[cfg(test)]
fn is<T: std::str::FromStr>(text: &str) -> bool {
    text.parse::<T>().is_ok()
}

macro_rules! text_schemas {
    ($($t:ident $what:literal $longest:literal $example:literal $pattern:expr;)*) => {
        $(impl JsonSchema for $t {
            fn schema_name() -> Cow<'static, str> {
                stringify!($t).into()
            }

            fn schema_id() -> Cow<'static, str> {
                concat!(module_path!(), "::", stringify!($t)).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let mut schema = Schema::default();
                let mut says = |key: &str, value: Value| schema.insert(key.to_owned(), value);
                says("description", $what.into());
                says("type", "string".into());
                says("pattern", format!("^{}$", $pattern).into());
                says("maxLength", Value::from($longest));
                says("examples", vec![$example].into());
                schema
            }
        })*

        #[cfg(test)]
        fn all() -> Vec<Told> {
            vec![$(Told {
                name: stringify!($t),
                pattern: $pattern.to_string(),
                longest: $longest,
                example: $example,
                is: is::<$t>,
            }),*]
        }
    };
}

text_schemas! {
    SiteId "An administrative domain." 24 "rennes" LABEL;
    ProviderId "An identity provider of a site, as that site names it." 24 "uni" LABEL;
    VoId "A virtual organization with its home site: `<vo>.<site>`." 49 "demo.rennes"
        format!("{LABEL}\\.{LABEL}");
    PersonId "A person and the site whose sign-in vouches for them." 57 "alice@rennes"
        format!("{NAME}@{LABEL}");
    NodeId "A node and its site: `<node>.<site>`." 49 "n1.rennes" format!("{LABEL}\\.{LABEL}");
    ClusterId "A cluster and its site: `<cluster>.<site>`." 49 "c1.rennes"
        format!("{LABEL}\\.{LABEL}");
    GroupName "The name of a group inside one VO." 32 "physics" NAME;
    RoleName "The name of a role inside one VO." 32 "admin" NAME;
    JobId "A job: a number given by the core that owns it, and that core's site." 45 "1234.rennes"
        format!("(0|[1-9][0-9]{{0,18}})\\.{LABEL}");
    UnitId "One unit of a job: `<job>:<index>`." 51 "1234.rennes:7"
        format!("(0|[1-9][0-9]{{0,18}})\\.{LABEL}:(0|[1-9][0-9]{{0,4}})");
    LocalName "A name that a site gives to an account; none that systems use for themselves." 31
        "ann" "[a-z][a-z0-9_-]{0,30}";
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::strategy::{Strategy, ValueTree};
    use proptest::test_runner::TestRunner;

    /// If it failed, a program that keeps to the document would be refused. Names of accounts are
    /// left out: which ones systems use for themselves no pattern says.
    #[test]
    fn what_a_pattern_allows_is_an_id() {
        let mut runner = TestRunner::deterministic();
        for Told { name, pattern, longest, example, is } in all() {
            assert!(is(example) && example.len() <= longest, "{name}: {example}");
            if name == "LocalName" {
                continue;
            }
            let texts = proptest::string::string_regex(&pattern).unwrap();
            for _ in 0..500 {
                let text = texts.new_tree(&mut runner).unwrap().current();
                assert!(is(&text), "{name}: {text:?} fits {pattern} and is none");
                assert!(text.len() <= longest, "{name}: {text:?} is longer than {longest}");
            }
        }
    }
}
