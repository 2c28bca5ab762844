//! By what sshd let somebody in, as it tells PAM, and whether that counts for a grid account.

use thiserror::Error;

/// What the type of an OpenSSH certificate ends with (PROTOCOL.certkeys of OpenSSH).
const CERTIFICATE_TYPE: &str = "-cert-v01@openssh.com";

/// Why the way in does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SshProofError {
    /// A key without a certificate: a file in the home names it, which no suspension, new password
    /// or end of a certificate reaches.
    #[error(
        "keys in ~/.ssh/authorized_keys do not count for an account of the grid; sign in by your \
         certificate: xos login, then ssh or xos ssh"
    )]
    OwnKey,
    /// Something else, as Kerberos or the word of another host: files in the home say whom to
    /// believe. Or sshd tells nothing.
    #[error(
        "sshd let you in by a way that does not count for an account of the grid; sign in by your \
         certificate: xos login, then ssh or xos ssh"
    )]
    OtherWay,
}

/// The certificate, type and base64, in what sshd leaves in `SSH_AUTH_INFO_0`: one line for each
/// method that let the person in (sshd_config(5), `ExposeAuthInfo`). `None` when PAM asked for all
/// of it, where `pam_xos` decides.
///
/// # Errors
/// [`SshProofError`] when a line is neither: each must count, whichever sshd asks for.
pub fn ssh_proof(info: &str) -> Result<Option<String>, SshProofError> {
    let mut certificate = None;
    let mut lines = info.lines().peekable();
    if lines.peek().is_none() {
        return Err(SshProofError::OtherWay);
    }
    for line in lines {
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("publickey"), Some(kind), Some(key)) if kind.ends_with(CERTIFICATE_TYPE) => {
                certificate.get_or_insert_with(|| format!("{kind} {key}"));
            }
            (Some("publickey"), ..) => return Err(SshProofError::OwnKey),
            (Some("password" | "keyboard-interactive/pam"), None, _) => {}
            _ => return Err(SshProofError::OtherWay),
        }
    }
    Ok(certificate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = "publickey ssh-ed25519-cert-v01@openssh.com AAAA";

    /// If it failed, nobody could sign in by their certificate, or by proving themselves to PAM.
    #[test]
    fn certificates_count_and_what_pam_asked() {
        let shown = Some("ssh-ed25519-cert-v01@openssh.com AAAA".to_owned());
        for by_it in [
            CERTIFICATE.to_owned(),
            format!("{CERTIFICATE}\n"),
            format!("{CERTIFICATE}\npublickey ssh-rsa-cert-v01@openssh.com BBBB\n"),
            format!("keyboard-interactive/pam\n{CERTIFICATE}\n"),
        ] {
            assert_eq!(ssh_proof(&by_it), Ok(shown.clone()), "{by_it:?}");
        }
        let hardware = "publickey sk-ssh-ed25519-cert-v01@openssh.com AAAA\n";
        assert!(ssh_proof(hardware).is_ok_and(|shown| shown.is_some()));
        for by_pam in
            ["password\n", "keyboard-interactive/pam", "password\nkeyboard-interactive/pam"]
        {
            assert_eq!(ssh_proof(by_pam), Ok(None), "{by_pam:?}");
        }
    }

    /// If it failed, whoever got at a home once would come in as its person for as long as the
    /// membership lasts, whatever is done about it.
    #[test]
    fn what_a_file_in_the_home_says_does_not_count() {
        use SshProofError::{OtherWay, OwnKey};
        let own = "publickey ssh-ed25519 AAAA";
        for (info, why) in [
            (own.to_owned(), OwnKey),
            (format!("{CERTIFICATE}\n{own}\n"), OwnKey),
            (format!("{own}\n{CERTIFICATE}\n"), OwnKey),
            (format!("password\n{own}\n"), OwnKey),
            ("publickey sk-ssh-ed25519@openssh.com AAAA".to_owned(), OwnKey),
            ("publickey ssh-rsa -cert-v01@openssh.com".to_owned(), OwnKey),
            ("publickey".to_owned(), OwnKey),
            ("publickey ssh-ed25519-cert-v01@openssh.com".to_owned(), OwnKey),
            (String::new(), OtherWay),
            ("\n".to_owned(), OtherWay),
            ("none\n".to_owned(), OtherWay),
            ("gssapi-with-mic ann@EXAMPLE.ORG\n".to_owned(), OtherWay),
            ("hostbased ssh-ed25519 AAAA client user ann\n".to_owned(), OtherWay),
            ("keyboard-interactive/bsdauth\n".to_owned(), OtherWay),
            (format!("{CERTIFICATE}\nsomething new\n"), OtherWay),
        ] {
            assert_eq!(ssh_proof(&info), Err(why), "{info:?}");
        }
    }
}
