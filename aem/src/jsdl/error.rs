//! What is wrong with a document, and where.

use super::{ATTRIBUTES_MAX, BYTES_MAX, DEPTH_MAX, ELEMENTS_MAX};
use xos_base::{Error, Kind};

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The author makes it well-formed XML.
    #[error("it is not well-formed XML: {0}")]
    Xml(String),
    /// The author makes it smaller.
    #[error(
        "it is larger than {BYTES_MAX} bytes, deeper than {DEPTH_MAX} elements, or has more than \
         {ELEMENTS_MAX} elements or {ATTRIBUTES_MAX} attributes in one"
    )]
    TooLarge,
    /// The author leaves the document type out.
    #[error("a document type or entity declaration is not allowed")]
    Dtd,
    /// The author uses JSDL's namespace and root.
    #[error(
        "it is no JSDL 1.0 document: the root must be JobDefinition in the namespace {}",
        super::JSDL
    )]
    NotJsdl,
    /// The author leaves the element out, or corrects its name.
    #[error("this element is not supported here")]
    Unsupported,
    /// The author leaves the attribute out.
    #[error("the attribute {0:?} is not supported here")]
    Attribute(String),
    /// The author adds the element.
    #[error("the element {0} is missing in it")]
    Missing(&'static str),
    /// The author leaves one out.
    #[error("the element {0} stands in it more than once")]
    Twice(String),
    /// The author corrects the value.
    #[error("{0}")]
    Value(String),
    /// The author asks for something that is done here.
    #[error("{0}")]
    Cannot(String),
}

/// An error with its place. Lines and columns begin with 1; a column counts characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}, <{element}>: {problem}")]
pub struct JsdlError {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
    /// The element, as its local name.
    pub element: String,
    /// What is wrong.
    pub problem: Problem,
}

impl From<JsdlError> for Error {
    fn from(e: JsdlError) -> Error {
        let kind = match e.problem {
            Problem::TooLarge => Kind::TooLarge,
            Problem::Unsupported | Problem::Attribute(_) | Problem::Cannot(_) => Kind::Unsupported,
            _ => Kind::Invalid,
        };
        Error::new(kind, format!("the JSDL document, {e}"))
            .hint("docs/user.md lists what of JSDL is understood")
    }
}
