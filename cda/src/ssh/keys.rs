//! The public keys that people and machines send for SSH certificates: one line each, as OpenSSH
//! writes it. The key counts; a comment does not.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};
use ssh_key::public::{EcdsaPublicKey, KeyData, RsaPublicKey};
use ssh_key::{EcdsaCurve, Mpint, PublicKey};
use xos_base::Error;

/// Longest line, in bytes: an RSA key of [`RSA_BITS_MAX`] with a comment.
const LINE_MAX: usize = 8 * 1024;
/// Shortest modulus of a machine's RSA key, in bits.
const RSA_BITS_MIN: usize = 2048;
/// Longest one, in bits; OpenSSH takes no longer ones.
const RSA_BITS_MAX: usize = 16 * 1024;
/// SEC 1, section 2.3.3: the first byte of a point in full.
const POINT_IN_FULL: u8 = 4;

fn refuse(why: &str) -> Error {
    Error::invalid(format!("the SSH key is refused: {why}"))
}

/// The key of a person: Ed25519 or ECDSA on P-256.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] with the reason, [`xos_base::Kind::TooLarge`].
pub(crate) fn person_key(line: &str) -> Result<KeyData, Error> {
    let key = read(line)?;
    match &key {
        KeyData::Ed25519(_) => Ok(key),
        KeyData::Ecdsa(point) if is_p256(point) => Ok(key),
        _ => {
            Err(refuse("it must be Ed25519, or ECDSA on P-256")
                .hint("make one: ssh-keygen -t ed25519"))
        }
    }
}

/// The key of a machine's sshd: as a person's, or RSA.
///
/// # Errors
/// As [`person_key`].
pub(crate) fn host_key(line: &str) -> Result<KeyData, Error> {
    let key = read(line)?;
    match &key {
        KeyData::Ed25519(_) => Ok(key),
        KeyData::Ecdsa(point) if is_p256(point) => Ok(key),
        KeyData::Rsa(rsa) if is_strong(rsa) => Ok(key),
        _ => Err(refuse(&format!(
            "it must be Ed25519, ECDSA on P-256, or RSA of {RSA_BITS_MIN} to {RSA_BITS_MAX} bits"
        ))),
    }
}

fn read(line: &str) -> Result<KeyData, Error> {
    if line.len() > LINE_MAX {
        return Err(Error::too_large(format!("an SSH key is over {LINE_MAX} bytes")));
    }
    let line = line.trim();
    if line.starts_with("-----BEGIN") {
        return Err(refuse("it is PEM, perhaps the private key, which nobody else may see")
            .hint("send the one line in the file that ends in .pub"));
    }
    if line.chars().any(char::is_control) {
        return Err(refuse("it is more than one line"));
    }
    let kind = line.split(' ').next().unwrap_or_default();
    if kind.contains("-cert-v0") {
        return Err(refuse("it is a certificate already")
            .hint("send the key itself, from the file that ends in .pub but not in -cert.pub"));
    }
    if kind.starts_with("sk-") {
        return Err(refuse("keys in security keys (sk-...) are not certified")
            .hint("make another one: ssh-keygen -t ed25519"));
    }
    if kind == "ssh-dss" {
        return Err(refuse("DSA is not safe").hint("make another one: ssh-keygen -t ed25519"));
    }
    PublicKey::from_openssh(line)
        .map(KeyData::from)
        .map_err(|_| refuse("it is no public key as OpenSSH writes it (`ssh-ed25519 AAAA...`)"))
}

/// Whether it is a point of the curve P-256, in full.
fn is_p256(key: &EcdsaPublicKey) -> bool {
    let bytes = key.as_sec1_bytes();
    key.curve() == EcdsaCurve::NistP256
        && bytes.first() == Some(&POINT_IN_FULL)
        && ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, bytes).is_ok()
}

/// Whether an RSA key is long enough, and its numbers can be those of a key.
fn is_strong(key: &RsaPublicKey) -> bool {
    let odd = |n: &Mpint| n.as_positive_bytes().and_then(|b| b.last()).is_some_and(|b| b & 1 == 1);
    let exponent_is_one = key.e.as_positive_bytes() == Some(&[1][..]);
    (RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits(&key.n))
        && odd(&key.n)
        && odd(&key.e)
        && !exponent_is_one
        && bits(&key.e) <= bits(&key.n)
}

fn bits(n: &Mpint) -> usize {
    match n.as_positive_bytes() {
        Some(bytes @ [first, ..]) => bytes.len() * 8 - first.leading_zeros() as usize,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    fn field(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
    }

    fn line(kind: &str, fields: &[&[u8]]) -> String {
        let mut bytes = field(kind.as_bytes());
        fields.iter().for_each(|f| bytes.extend(field(f)));
        format!("{kind} {}", STANDARD.encode(bytes))
    }

    fn ed25519() -> String {
        line("ssh-ed25519", &[&[7; 32]])
    }

    fn p256() -> String {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        line("ecdsa-sha2-nistp256", &[b"nistp256", key.public_key_raw()])
    }

    fn rsa_with(exponent: &[u8], last: u8, bits: usize) -> String {
        let mut n = vec![0xff; bits / 8];
        n.insert(0, 0);
        n[bits / 8] = last;
        line("ssh-rsa", &[exponent, &n])
    }

    fn rsa(bits: usize) -> String {
        rsa_with(&[1, 0, 1], 0xff, bits)
    }

    fn why(result: Result<KeyData, Error>) -> String {
        result.unwrap_err().message
    }

    #[test]
    fn the_usual_keys_are_taken_and_their_comments_left() {
        for good in [ed25519(), p256()] {
            let key = person_key(&good).unwrap();
            assert_eq!(person_key(&format!("{good} alice@laptop, my key\n")).unwrap(), key);
            assert_eq!(host_key(&good).unwrap(), key);
        }
        for bits in [2048, 4096, RSA_BITS_MAX] {
            host_key(&rsa(bits)).unwrap();
        }
    }

    /// If it failed, weak keys would carry the VO's word, or people would wonder at sshd's refusal
    /// instead of reading the reason here.
    #[test]
    fn other_keys_are_refused_with_the_reason() {
        assert!(why(person_key(&rsa(4096))).contains("must be Ed25519"));
        assert!(why(host_key(&rsa(1024))).contains("2048"));
        let negative = line("ssh-rsa", &[&[1, 0, 1], &[0xff; 256]]);
        for bad in [
            rsa_with(&[1], 0xff, 2048),
            rsa_with(&[2], 0xff, 2048),
            rsa_with(&[1, 0, 1], 0xfe, 2048),
            rsa(RSA_BITS_MAX + 8),
            negative,
        ] {
            assert!(why(host_key(&bad)).contains("RSA"), "{bad:.60}");
        }
        let off_curve = [&[4u8][..], &[1; 64]].concat();
        let p384 = [&[4u8][..], &[1; 96]].concat();
        let short = [&[2u8][..], &[1; 32]].concat();
        for (name, curve, point) in [
            ("ecdsa-sha2-nistp256", "nistp256", &off_curve),
            ("ecdsa-sha2-nistp256", "nistp256", &short),
            ("ecdsa-sha2-nistp384", "nistp384", &p384),
        ] {
            let key = line(name, &[curve.as_bytes(), point]);
            assert!(why(person_key(&key)).contains("refused"), "{key}");
            assert!(why(host_key(&key)).contains("refused"), "{key}");
        }
        let sk = line("sk-ssh-ed25519@openssh.com", &[&[7; 32], b"ssh:"]);
        let dss = line("ssh-dss", &[&[1], &[1], &[1], &[1]]);
        let certificate = ed25519().replace("ssh-ed25519 ", "ssh-ed25519-cert-v01@openssh.com ");
        for (bad, reason) in [
            (sk, "security keys"),
            (dss, "DSA"),
            (certificate, "certificate already"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----".to_owned(), "private key"),
            (format!("{}\n{}", ed25519(), ed25519()), "more than one line"),
            (line("ssh-ed25519", &[&[7; 31]]), "no public key"),
            (line("ssh-ed25519", &[&[7; 32], b"more"]), "no public key"),
            (ed25519().replace("ssh-ed25519 ", "ssh-rsa "), "no public key"),
            ("ssh-ed25519".to_owned(), "no public key"),
            (String::new(), "no public key"),
            ("a".repeat(1 << 20), "bytes"),
        ] {
            assert!(why(person_key(&bad)).contains(reason), "{bad:.100}");
            assert!(why(host_key(&bad)).contains(reason), "{bad:.100}");
        }
    }

    proptest! {
        /// A panic here would let a stranger end a core.
        #[test]
        fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let text = String::from_utf8_lossy(&bytes);
            prop_assert!(person_key(&text).is_err());
            let known = format!("ssh-ed25519 {}", STANDARD.encode(&bytes));
            prop_assert!(person_key(&known).is_err() || bytes.len() == 51);
        }

        /// What was read is what was sent: no other key is certified than the person's own.
        #[test]
        fn a_key_reads_back(raw in any::<[u8; 32]>(), comment in "[ -~]{0,40}") {
            let sent = line("ssh-ed25519", &[&raw]);
            let key = person_key(&format!("{sent} {comment}")).unwrap();
            prop_assert_eq!(PublicKey::from(key).to_openssh().unwrap(), sent);
        }
    }
}
