//! How the core's names for envelopes and units stand in this node's records.

use crate::spec::{EnvelopeId, UnitKey};
use xos_api::node::units;
use xos_base::Error;

/// `12.rennes@1`: the job and the serial.
pub(super) fn envelope(id: &units::EnvelopeId) -> Result<EnvelopeId, Error> {
    id.to_string().parse().map_err(|e| Error::invalid(format!("{e}")))
}

/// Reads what [`envelope`] wrote; `None` for what is not the core's.
pub(super) fn read_envelope(id: &EnvelopeId) -> Option<units::EnvelopeId> {
    let (job, serial) = id.as_str().split_once('@')?;
    Some(units::EnvelopeId { job: job.parse().ok()?, serial: serial.parse().ok()? })
}

/// `12.rennes:7@0`: the unit and the attempt.
pub(super) fn unit(id: &units::EnvelopeId, unit: u32, attempt: u16) -> Result<UnitKey, Error> {
    format!("{}:{unit}@{attempt}", id.job).parse().map_err(|e| Error::invalid(format!("{e}")))
}

/// Unit and attempt of what [`unit`] wrote.
pub(super) fn read_unit(key: &UnitKey) -> Option<(u32, u16)> {
    let (_, rest) = key.as_str().split_once(':')?;
    let (unit, attempt) = rest.split_once('@')?;
    Some((unit.parse().ok()?, attempt.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        let id = units::EnvelopeId { job: "12.rennes".parse().unwrap(), serial: 3 };
        let name = envelope(&id).unwrap();
        assert_eq!(name.as_str(), "12.rennes@3");
        assert_eq!(read_envelope(&name), Some(id.clone()));
        assert_eq!(read_unit(&unit(&id, 7, 2).unwrap()), Some((7, 2)));
        assert_eq!(read_envelope(&"x".parse().unwrap()), None);
    }
}
