//! Who says with which keys capabilities are signed.

use async_trait::async_trait;

use crate::ids::{VoName, VolumeId};
use crate::token::PublicKey;

/// Why there is no key for a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoKey {
    /// Those who speak for the VO have said so, or this OSD stores nothing for that VO.
    #[error("this OSD does not serve its volume")]
    NotServed,
    /// They were not heard yet, or not lately: the client should try again.
    #[error("this OSD has not heard yet whether it serves the volume: try again")]
    NotYet,
}

/// Knows the keys of volumes.
#[async_trait]
pub trait VolumeTrust: Send + Sync + 'static {
    /// Key of the MRC that keeps `volume` for `vo`. Only those who speak for a VO say which volumes
    /// it has, and with which keys: two VOs may well name the same id.
    ///
    /// Asked once per good capability, and for each bad one, since the signature cannot be checked
    /// before: what it costs others must be bounded.
    ///
    /// # Errors
    /// [`NoKey`]. Clients take [`NoKey::NotServed`] as final, and drop what they wanted to write.
    async fn volume_key(&self, vo: &VoName, volume: &VolumeId) -> Result<PublicKey, NoKey>;

    /// Capabilities of the volume that name a lesser barrier count no more; 0: none was told. Asked
    /// at every use of one: must answer from memory.
    fn barrier(&self, vo: &VoName, volume: &VolumeId) -> u64;
}
