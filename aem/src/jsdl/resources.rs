//! `Resources` (GFD.136, section 6.4) and its range values (section 5.2.1).

use super::error::JsdlError;
use super::tree::{Element, Ns};
use xos_api::aem::TaskSpec;
use xos_base::SiteId;

pub(super) fn read(
    e: &Element,
    task: &mut TaskSpec,
    sites: &mut Vec<SiteId>,
) -> Result<(), JsdlError> {
    e.no_attributes(&[])?;
    let mut f = e.fields()?;
    if let Some(hosts) = f.maybe(Ns::Jsdl, "CandidateHosts")? {
        let mut inner = hosts.fields()?;
        for h in inner.many(Ns::Jsdl, "HostName") {
            sites.push(h.parsed("a site, as in rennes; single hosts cannot be chosen")?);
        }
        inner.finish()?;
    }
    if let Some(os) = f.maybe(Ns::Jsdl, "OperatingSystem")? {
        operating_system(os)?;
    }
    if let Some(arch) = f.maybe(Ns::Jsdl, "CPUArchitecture")? {
        let mut inner = arch.fields()?;
        let name = inner.one(Ns::Jsdl, "CPUArchitectureName")?;
        inner.finish()?;
        match name.text()? {
            "other" => return Err(name.cannot("name the architecture, as in x86_64")),
            text => task.resources.arch = Some(text.to_owned()),
        }
    }
    let each = f.maybe(Ns::Jsdl, "IndividualCPUCount")?;
    let all = f.maybe(Ns::Jsdl, "TotalCPUCount")?;
    if let Some(v) = same(each, all, CPUS)? {
        task.resources.cpu_milli = milli(v).ok_or_else(|| e.value("too many processors"))?;
    }
    let each = f.maybe(Ns::Jsdl, "IndividualPhysicalMemory")?;
    let all = f.maybe(Ns::Jsdl, "TotalPhysicalMemory")?;
    if let Some(v) = same(each, all, BYTES)? {
        task.resources.memory_bytes = v.ceil() as u64;
    }
    if let Some(n) = f.maybe(Ns::Jsdl, "TotalResourceCount")?
        && (lower(n, BYTES)? - 1.0).abs() > f64::EPSILON
    {
        return Err(n.cannot("a unit runs on one machine; use xos:Array for many units"));
    }
    if let Some(x) = f.maybe(Ns::Jsdl, "ExclusiveExecution")?
        && !matches!(x.text()?, "false" | "0")
    {
        return Err(x.cannot("a node is not given to one job alone"));
    }
    f.skip(Ns::Jsdl, "Description");
    f.finish()
}

fn operating_system(e: &Element) -> Result<(), JsdlError> {
    let mut f = e.fields()?;
    f.skip(Ns::Jsdl, "Description");
    if let Some(v) = f.maybe(Ns::Jsdl, "OperatingSystemVersion")? {
        return Err(v.cannot("a version of the system cannot be chosen"));
    }
    if let Some(t) = f.maybe(Ns::Jsdl, "OperatingSystemType")? {
        let mut inner = t.fields()?;
        let name = inner.one(Ns::Jsdl, "OperatingSystemName")?;
        inner.finish()?;
        if name.text()? != "LINUX" {
            return Err(name.cannot("every node runs LINUX"));
        }
    }
    f.finish()
}

/// What is taken when a range has only an upper bound.
const CPUS: f64 = 1.0;
const BYTES: f64 = 0.0;
/// Numbers up to this are exact in a double.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Individual and total value of one machine: they must agree.
fn same(
    each: Option<&Element>,
    all: Option<&Element>,
    default: f64,
) -> Result<Option<f64>, JsdlError> {
    match (each, all) {
        (None, None) => Ok(None),
        (Some(e), None) | (None, Some(e)) => lower(e, default).map(Some),
        (Some(each), Some(all)) => {
            let (a, b) = (lower(each, default)?, lower(all, default)?);
            if (a - b).abs() > f64::EPSILON {
                return Err(
                    all.cannot("a unit runs on one machine: the total is the individual value")
                );
            }
            Ok(Some(a))
        }
    }
}

fn milli(cpus: f64) -> Option<u32> {
    // Decimal thousandths have no exact double: 16.277 is a little more than that.
    let milli = (cpus * 1000.0 - 1e-6).ceil();
    (milli >= 0.0 && milli <= f64::from(u32::MAX)).then_some(milli as u32)
}

/// The least that a range asks for.
fn lower(e: &Element, default: f64) -> Result<f64, JsdlError> {
    e.no_attributes(&[])?;
    let mut f = e.fields()?;
    let exact = f.maybe(Ns::Jsdl, "Exact")?;
    let range = f.maybe(Ns::Jsdl, "Range")?;
    let from = f.maybe(Ns::Jsdl, "LowerBoundedRange")?;
    let to = f.maybe(Ns::Jsdl, "UpperBoundedRange")?;
    f.finish()?;
    match (exact, range, from, to) {
        (Some(v), None, None, None) => number(v, &["epsilon"]),
        (None, None, Some(v), None) => bound(v),
        (None, None, None, Some(v)) => Ok(bound(v)?.min(default)),
        (None, None, Some(v), Some(w)) => ordered(e, bound(v)?, bound(w)?),
        (None, Some(r), None, None) => {
            let mut f = r.fields()?;
            let low = bound(f.one(Ns::Jsdl, "LowerBound")?)?;
            let high = bound(f.one(Ns::Jsdl, "UpperBound")?)?;
            f.finish()?;
            ordered(r, low, high)
        }
        _ => Err(e.value("give one value: Exact, Range, LowerBoundedRange or UpperBoundedRange")),
    }
}

fn ordered(e: &Element, low: f64, high: f64) -> Result<f64, JsdlError> {
    if low <= high { Ok(low) } else { Err(e.value("the lower bound is above the upper one")) }
}

fn bound(e: &Element) -> Result<f64, JsdlError> {
    if e.attribute("exclusiveBound").is_some_and(|v| !matches!(v, "false" | "0")) {
        return Err(e.cannot("a bound always belongs to its range here"));
    }
    number(e, &["exclusiveBound"])
}

fn number(e: &Element, attributes: &[&str]) -> Result<f64, JsdlError> {
    e.no_attributes(attributes)?;
    let text = e.raw_text()?.trim();
    let plain = |b: u8| b.is_ascii_digit() || b".eE+-".contains(&b);
    let value = text.parse::<f64>().ok().filter(|_| text.bytes().all(plain));
    match value {
        Some(v) if (0.0..=EXACT_MAX).contains(&v) => Ok(v),
        _ => {
            let shown: String = text.chars().take(64).collect();
            Err(e.value(format!("{shown:?} is not a number from 0")))
        }
    }
}
