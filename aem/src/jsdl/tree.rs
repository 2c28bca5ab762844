//! A bounded tree of elements with their places.

use super::error::{JsdlError, Problem};
use super::{ATTRIBUTES_MAX, BYTES_MAX, DEPTH_MAX, ELEMENTS_MAX, JSDL, POSIX, XOS};
use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::ResolveResult;
use quick_xml::reader::NsReader;

/// The namespaces that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ns {
    Jsdl,
    Posix,
    Xos,
    Other,
}

/// An element.
#[derive(Debug)]
pub(super) struct Element {
    pub(super) ns: Ns,
    pub(super) name: String,
    attributes: Vec<(String, String)>,
    children: Vec<Element>,
    text: String,
    line: u32,
    column: u32,
}

/// Longest name shown in a message, in characters.
const SHOWN_MAX: usize = 64;

impl Element {
    pub(super) fn error(&self, problem: Problem) -> JsdlError {
        let element = self.name.chars().take(SHOWN_MAX).collect();
        JsdlError { line: self.line, column: self.column, element, problem }
    }

    pub(super) fn value(&self, text: impl Into<String>) -> JsdlError {
        self.error(Problem::Value(text.into()))
    }

    pub(super) fn cannot(&self, text: impl Into<String>) -> JsdlError {
        self.error(Problem::Cannot(text.into()))
    }

    /// The children, to be taken one after another.
    pub(super) fn fields(&self) -> Result<Fields<'_>, JsdlError> {
        if !self.text.trim().is_empty() {
            return Err(self.value("text stands where only elements may"));
        }
        Ok(Fields { of: self, used: vec![false; self.children.len()] })
    }

    /// The text of an element without children or attributes, as it stands.
    pub(super) fn verbatim(&self) -> Result<&str, JsdlError> {
        self.no_attributes(&[])?;
        self.raw_text()
    }

    /// The text of an element without children, whatever its attributes.
    pub(super) fn raw_text(&self) -> Result<&str, JsdlError> {
        match self.children.first() {
            Some(c) => Err(c.error(Problem::Unsupported)),
            None => Ok(&self.text),
        }
    }

    /// The same without white space around it.
    pub(super) fn text(&self) -> Result<&str, JsdlError> {
        self.verbatim().map(str::trim)
    }

    /// An attribute without namespace.
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// Refuses attributes other than these.
    pub(super) fn no_attributes(&self, except: &[&str]) -> Result<(), JsdlError> {
        match self.attributes.iter().find(|(k, _)| !except.contains(&k.as_str())) {
            Some((k, _)) => {
                let k = k.chars().take(SHOWN_MAX).collect();
                Err(self.error(Problem::Attribute(k)))
            }
            None => Ok(()),
        }
    }

    /// Parses the trimmed text.
    pub(super) fn parsed<T: std::str::FromStr>(&self, what: &str) -> Result<T, JsdlError> {
        let text = self.text()?;
        text.parse().map_err(|_| {
            let shown: String = text.chars().take(SHOWN_MAX).collect();
            self.value(format!("{shown:?} is not {what}"))
        })
    }
}

/// The children of an element; what nobody took is refused at the end.
pub(super) struct Fields<'a> {
    of: &'a Element,
    used: Vec<bool>,
}

impl<'a> Fields<'a> {
    /// All children of a name.
    pub(super) fn many(&mut self, ns: Ns, name: &str) -> Vec<&'a Element> {
        let mut found = Vec::new();
        for (i, c) in self.of.children.iter().enumerate() {
            if c.ns == ns && c.name == name {
                self.used[i] = true;
                found.push(c);
            }
        }
        found
    }

    /// At most one.
    pub(super) fn maybe(&mut self, ns: Ns, name: &str) -> Result<Option<&'a Element>, JsdlError> {
        let found = self.many(ns, name);
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            [_, second, ..] => Err(second.error(Problem::Twice(name.to_owned()))),
        }
    }

    /// Exactly one.
    pub(super) fn one(&mut self, ns: Ns, name: &'static str) -> Result<&'a Element, JsdlError> {
        self.maybe(ns, name)?.ok_or_else(|| self.of.error(Problem::Missing(name)))
    }

    /// Takes a child that says nothing to a machine, if it is there.
    pub(super) fn skip(&mut self, ns: Ns, name: &str) {
        self.many(ns, name);
    }

    /// Refuses what was not taken.
    pub(super) fn finish(self) -> Result<(), JsdlError> {
        match self.used.iter().position(|used| !used) {
            Some(i) => Err(self.of.children[i].error(Problem::Unsupported)),
            None => Ok(()),
        }
    }
}

/// Where in the text the reader is. Goes forward only, so that a whole document costs one pass.
#[derive(Clone, Copy)]
struct Spot {
    at: usize,
    line: u32,
    column: u32,
}

impl Spot {
    fn forward(&mut self, text: &str, to: usize) {
        let bytes = text.as_bytes();
        for b in bytes.get(self.at..to.min(bytes.len())).unwrap_or_default() {
            match b {
                b'\n' => {
                    self.line = self.line.saturating_add(1);
                    self.column = 1;
                }
                // The later bytes of a character count nothing.
                0x80..=0xbf => {}
                _ => self.column = self.column.saturating_add(1),
            }
        }
        self.at = self.at.max(to);
    }
}

struct Builder<'a> {
    text: &'a str,
    open: Vec<Element>,
    root: Option<Element>,
    count: usize,
    spot: Spot,
}

impl Builder<'_> {
    fn error(&self, at: usize, problem: Problem) -> JsdlError {
        let mut spot = self.spot;
        spot.forward(self.text, at);
        let (line, column) = (spot.line, spot.column);
        let element =
            self.open.last().map_or_else(String::new, |e| e.name.chars().take(SHOWN_MAX).collect());
        JsdlError { line, column, element, problem }
    }

    fn start(&mut self, at: usize, ns: Ns, tag: &BytesStart<'_>) -> Result<(), JsdlError> {
        self.count += 1;
        if self.open.len() >= DEPTH_MAX || self.count > ELEMENTS_MAX {
            return Err(self.error(at, Problem::TooLarge));
        }
        let mut attributes = Vec::new();
        for a in tag.attributes() {
            let a = a.map_err(|e| self.error(at, Problem::Xml(e.to_string())))?;
            let key: &str = a.key.as_ref();
            if key == "xmlns" || key.starts_with("xmlns:") {
                continue;
            }
            if attributes.len() >= ATTRIBUTES_MAX {
                return Err(self.error(at, Problem::TooLarge));
            }
            let value = a
                .normalized_value(XmlVersion::Explicit1_0)
                .map_err(|e| self.error(at, Problem::Xml(e.to_string())))?;
            attributes.push((key.to_owned(), value.into_owned()));
        }
        self.spot.forward(self.text, at);
        let (line, column) = (self.spot.line, self.spot.column);
        let local: &str = tag.local_name().into_inner();
        let name = local.to_owned();
        let (children, text) = (Vec::new(), String::new());
        self.open.push(Element { ns, name, attributes, children, text, line, column });
        Ok(())
    }

    fn end(&mut self, at: usize) -> Result<(), JsdlError> {
        let Some(done) = self.open.pop() else { return Ok(()) };
        match self.open.last_mut() {
            Some(parent) => parent.children.push(done),
            None if self.root.is_none() => self.root = Some(done),
            None => return Err(self.error(at, Problem::Xml("it has two roots".into()))),
        }
        Ok(())
    }

    fn text(&mut self, at: usize, text: &str) -> Result<(), JsdlError> {
        match self.open.last_mut() {
            Some(e) => e.text.push_str(text),
            None if text.trim().trim_start_matches('\u{feff}').is_empty() => {}
            None => return Err(self.error(at, Problem::Xml("text outside of the root".into()))),
        }
        Ok(())
    }
}

/// Reads a document.
pub(super) fn read(text: &str) -> Result<Element, JsdlError> {
    let spot = Spot { at: 0, line: 1, column: 1 };
    let mut b = Builder { text, open: Vec::new(), root: None, count: 0, spot };
    if text.len() > BYTES_MAX {
        return Err(b.error(0, Problem::TooLarge));
    }
    let mut reader = NsReader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    loop {
        let at = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
        let event = reader.read_event();
        let event = event.map_err(|e| {
            let at = usize::try_from(reader.error_position()).unwrap_or(at);
            b.error(at, Problem::Xml(e.to_string()))
        })?;
        match event {
            Event::Start(tag) => {
                let ns = match reader.resolver().resolve_element(tag.name()).0 {
                    ResolveResult::Bound(ns) => match ns.into_inner() {
                        JSDL => Ns::Jsdl,
                        POSIX => Ns::Posix,
                        XOS => Ns::Xos,
                        _ => Ns::Other,
                    },
                    ResolveResult::Unbound => Ns::Other,
                    ResolveResult::Unknown(_) => {
                        let text = "a namespace prefix is not declared".to_owned();
                        return Err(b.error(at, Problem::Xml(text)));
                    }
                };
                b.start(at, ns, &tag)?;
            }
            Event::End(_) => b.end(at)?,
            Event::Empty(_) => {}
            Event::Text(t) => b.text(at, &t.xml10_content())?,
            Event::CData(t) => b.text(at, &t.xml10_content())?,
            Event::GeneralRef(r) => {
                let c = if r.is_char_ref() {
                    r.resolve_char_ref().map_err(|e| b.error(at, Problem::Xml(e.to_string())))?
                } else {
                    let name = r.xml10_content();
                    quick_xml::escape::resolve_predefined_entity(&name)
                        .and_then(|s| s.chars().next())
                };
                let c = c.ok_or_else(|| b.error(at, Problem::Dtd))?;
                b.text(at, c.encode_utf8(&mut [0; 4]))?;
            }
            Event::DocType(_) => return Err(b.error(at, Problem::Dtd)),
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
            Event::Eof => break,
        }
    }
    if !b.open.is_empty() {
        return Err(b.error(text.len(), Problem::Xml("it ends before its elements do".into())));
    }
    let none = b.error(0, Problem::NotJsdl);
    b.root.ok_or(none)
}
