//! Job Submission Description Language 1.0 (GFD.136) with the POSIX application, to and from
//! [`JobSpec`]. Usable without the service: the `xos` tool reads documents on the person's machine.
//!
//! What XOS does beyond JSDL (VO, arrays, several tasks, order, retries, checkpoints) stands in
//! elements of the namespace [`XOS`] where JSDL's schema lets foreign elements stand, below
//! `JobDescription`:
//!
//! ```xml
//! <xos:VO>demo.rennes</xos:VO>             <xos:AfterJob>12.rennes</xos:AfterJob>
//! <xos:TaskName>simulate</xos:TaskName>    <xos:Array>0-15</xos:Array>  <xos:Retry>1</xos:Retry>
//! <xos:Checkpointable>true</xos:Checkpointable>
//! <xos:Task>  <!-- another task: JSDL's own elements and ours -->
//!   <xos:TaskName>merge</xos:TaskName> <xos:After>simulate</xos:After>
//!   <jsdl:Application>…</jsdl:Application>
//! </xos:Task>
//! ```
//!
//! Where this differs from a scheduler for whole clusters: a unit runs on one machine, so totals
//! equal individual values; a range asks for its lower bound; `CandidateHosts` names sites. What
//! cannot be done (user names, pipe sizes, other systems than Linux, file systems by name) is
//! refused by name, never left out silently.

mod error;
mod posix;
mod read;
mod resources;
mod staging;
mod tree;
mod write;

pub use error::{JsdlError, Problem};
pub use read::parse;
pub use write::write;

use xos_api::aem::JobSpec;

/// JSDL's namespace.
pub const JSDL: &str = "http://schemas.ggf.org/jsdl/2005/11/jsdl";
/// The namespace of its POSIX application.
pub const POSIX: &str = "http://schemas.ggf.org/jsdl/2005/11/jsdl-posix";
/// Our own namespace.
pub const XOS: &str = "urn:xos:jsdl:1";
/// Longest document, in bytes.
pub const BYTES_MAX: usize = 1024 * 1024;
/// Deepest nesting of elements.
pub const DEPTH_MAX: usize = 32;
/// Most elements.
pub const ELEMENTS_MAX: usize = 50_000;
/// Most attributes of one element.
pub const ATTRIBUTES_MAX: usize = 32;

/// A job whose tasks are empty, to be filled.
fn empty(vo: xos_base::VoId) -> JobSpec {
    JobSpec { vo, name: String::new(), tasks: Vec::new(), after_jobs: vec![], sites: vec![] }
}

#[cfg(test)]
mod tests;
