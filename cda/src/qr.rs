//! QR codes for terminals.

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// A QR code in rows of half blocks; `None` when the text is too long for one. Light parts are
/// drawn, since most terminals are dark.
pub fn qr_picture(text: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let (light, dark) = (Dense1x2::Light, Dense1x2::Dark);
    Some(code.render::<Dense1x2>().dark_color(light).light_color(dark).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a row would be cut in PAM's messages, and no camera would read it.
    #[test]
    fn rows_of_an_address_are_short() {
        let address = "https://core.rennes.example:7443/device?user_code=BCDF-GHJK";
        let picture = qr_picture(address).unwrap();
        assert!(picture.lines().count() > 10);
        assert!(picture.lines().all(|row| row.len() <= 500 && row.chars().count() <= 79));
        assert!(qr_picture(&"a".repeat(10_000)).is_none());
    }
}
