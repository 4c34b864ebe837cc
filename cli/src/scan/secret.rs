//! What looks like a secret: it is sent only if the user says so.

use std::{fs::File, io::Read as _, path::Path};

/// How much of a file is looked through, in bytes.
const HEAD: u64 = 64 << 10;
/// Extensions of keys and of stores of keys.
const EXTENSIONS: [&str; 12] = [
    "pem", "key", "p12", "pfx", "jks", "keystore", "kdbx", "ppk", "asc", "gpg", "ovpn", "agekey",
];
/// Names of files that hold credentials.
const NAMES: [&str; 14] = [
    ".netrc",
    "_netrc",
    ".pgpass",
    ".pypirc",
    ".npmrc",
    ".git-credentials",
    ".htpasswd",
    ".dockercfg",
    "kubeconfig",
    "credentials",
    ".my.cnf",
    ".s3cfg",
    ".boto",
    ".vault-token",
];
/// What such a name begins with, before its extension.
const STEMS: [&str; 12] = [
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "credentials",
    "credential",
    "secret",
    "secrets",
    "token",
    "client_secret",
    "service-account",
    "service_account",
];
/// What a credential begins with in the words of those who give it out, and how many characters follow.
const PREFIXES: [(&[u8], usize); 14] = [
    (b"AKIA", 16),
    (b"ASIA", 16),
    (b"ghp_", 36),
    (b"gho_", 36),
    (b"ghs_", 36),
    (b"github_pat_", 40),
    (b"glpat-", 20),
    (b"xoxb-", 20),
    (b"xoxp-", 20),
    (b"sk_live_", 16),
    (b"rk_live_", 16),
    (b"AIza", 35),
    (b"sk-ant-", 24),
    (b"npm_", 36),
];

/// Whether a file looks like a secret, by its name or its content. Of source code only the content counts: `tokens.py` is a module.
pub(crate) fn is_secret(path: &Path, is_source: bool) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    (!is_source && has_secret_name(name)) || has_secret_content(path)
}

fn has_secret_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let (stem, extension) = lower.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).unwrap_or((&lower, ""));
    if ["example", "sample", "template", "dist", "pub"].contains(&extension) {
        return false;
    }
    let is_env = lower == ".env" || lower.starts_with(".env.") || lower == ".envrc";
    is_env
        || NAMES.contains(&lower.as_str())
        || EXTENSIONS.contains(&extension)
        || STEMS.iter().any(|known| stem == *known || stem.starts_with(&format!("{known}-")))
}

fn has_secret_content(path: &Path) -> bool {
    let mut head = Vec::new();
    let is_read = File::open(path).is_ok_and(|file| file.take(HEAD).read_to_end(&mut head).is_ok());
    is_read && holds_secret(&head)
}

fn holds_secret(bytes: &[u8]) -> bool {
    let find = |text: &[u8]| memchr::memmem::find(bytes, text);
    if find(b"-----BEGIN ").is_some_and(|at| memchr::memmem::find(&bytes[at..bytes.len().min(at + 64)], b"PRIVATE KEY-----").is_some()) {
        return true;
    }
    PREFIXES.iter().any(|(prefix, length)| {
        memchr::memmem::find_iter(bytes, prefix).any(|at| {
            let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
            let begins = at == 0 || !is_word(&bytes[at - 1]);
            let rest = bytes[at + prefix.len()..].iter().take_while(|byte| is_word(byte)).count();
            begins && rest >= *length
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_told_by_name_and_by_content() {
        for name in [
            ".env",
            ".env.local",
            "id_rsa",
            "server.key",
            "cert.PEM",
            "credentials.json",
            "token",
            "secrets.yaml",
            "client_secret-42.json",
        ] {
            assert!(has_secret_name(name), "{name}");
        }
        for name in [
            ".env.example",
            "id_rsa.pub",
            "keys.csv",
            "tokenizer.json",
            "env.py",
            "main.py",
            "secretary.txt",
            "key",
        ] {
            assert!(!has_secret_name(name), "{name}");
        }
        let key = format!("-----BEGIN RSA {}-----\nMII", "PRIVATE KEY");
        let token = format!("password = '{}{}'", "ghp_", "a".repeat(36));
        for text in [key.as_str(), &token] {
            assert!(holds_secret(text.as_bytes()), "{text}");
        }
        for text in [
            "-----BEGIN CERTIFICATE-----",
            "ghp_short",
            "xAKIAxxxxxxxxxxxxxxxxxxxx",
            "AKIA is a prefix",
        ] {
            assert!(!holds_secret(text.as_bytes()), "{text}");
        }
    }
}
