//! What looks like a secret: it is sent only if the user says so.

use std::{path::Path, sync::LazyLock};

use aho_corasick::AhoCorasick;

use super::regular;

/// How much of a file is looked through, in bytes.
const HEAD: u64 = 64 << 10;
/// Extensions of keys and of stores of keys.
const EXTENSIONS: &[&str] = &[
    "p8", "pem", "key", "p12", "pfx", "jks", "keystore", "kdbx", "ppk", "asc", "gpg", "ovpn", "agekey",
];
/// Names of files that hold credentials.
const NAMES: &[&str] = &[
    "htpasswd",
    "cookies.txt",
    "terraform.tfstate",
    "wallet.dat",
    ".ssh_key",
    "deploy_key",
    ".aws_credentials",
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
/// Directories in which programs keep keys.
const PRIVATE_DIRECTORIES: &[&str] = &[".ssh", ".aws", ".gnupg", ".docker", ".kube", ".azure", ".gcloud", ".password-store"];
/// Words of such names, where they stand alone or between `_`, `-` and `.`.
const STEMS: &[&str] = &[
    "password",
    "passwords",
    "passwd",
    "privkey",
    "apikey",
    "api_key",
    "api_token",
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
const PREFIXES: &[(&[u8], usize)] = &[
    (b"sk-proj-", 20),
    (b"hf_", 30),
    (b"https://hooks.slack.com/services/", 10),
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

/// Whether a file that is not source code looks like a secret by its name and place. `tokens.py` is a module.
pub(crate) fn is_named_as_secret(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    has_secret_name(name) || is_in_private_directory(path)
}

/// Directories in which programs keep the user's keys.
fn is_in_private_directory(path: &Path) -> bool {
    let dirs = path.parent().into_iter().flat_map(Path::components);
    dirs.filter_map(|part| part.as_os_str().to_str())
        .any(|name| PRIVATE_DIRECTORIES.contains(&name))
}

fn has_secret_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let (stem, extension) = lower.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).unwrap_or((&lower, ""));
    if ["example", "sample", "template", "dist", "pub"].contains(&extension) {
        return false;
    }
    // A copy of a secret is one.
    if ["bak", "old", "orig", "save", "backup"].contains(&extension) {
        return has_secret_name(stem);
    }
    let lower = lower.trim_end_matches('~');
    let is_env = lower == ".env" || lower.starts_with(".env.") || lower == ".envrc" || lower == "env.local";
    let is_key_file = ["id_rsa", "id_dsa", "id_ecdsa", "id_ed25519"]
        .iter()
        .any(|known| lower.starts_with(known));
    // Data and documents may speak of tokens; what is short and plain may be one.
    let is_plain = [
        "",
        "json",
        "txt",
        "yaml",
        "yml",
        "toml",
        "ini",
        "cfg",
        "conf",
        "properties",
        "xml",
        "der",
        "p8",
    ]
    .contains(&extension);
    let words = stem.trim_start_matches('.').split(['_', '-', '.', ' ']);
    let names_secret = words.into_iter().any(|word| STEMS.contains(&word)) || STEMS.contains(&stem);
    is_env
        || is_key_file
        || NAMES.contains(&lower)
        || NAMES.contains(&stem)
        || EXTENSIONS.contains(&extension)
        || (is_plain && names_secret)
}

/// Whether what a file holds looks like a secret.
pub(crate) fn has_secret_content(path: &Path) -> bool {
    let Some(head) = regular::head(path, HEAD) else { return false };
    // UTF-16 is the same letters with zeros between them.
    let is_wide = head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]);
    let head = if is_wide {
        head.into_iter().filter(|byte| *byte != 0).collect()
    } else {
        head
    };
    let sets_variables = path.extension().is_some_and(|extension| extension == "env");
    holds_secret(&head) || (sets_variables && sets_secret(&head))
}

/// Whether a file of variables (`staging.env`) sets one whose name speaks of a secret.
fn sets_secret(bytes: &[u8]) -> bool {
    const WORDS: [&str; 8] = [
        "secret",
        "token",
        "passw",
        "apikey",
        "api_key",
        "private_key",
        "access_key",
        "credential",
    ];
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let set = text.lines().filter_map(|line| line.trim_start_matches("export ").split_once('='));
    set.into_iter()
        .any(|(name, value)| !value.trim().trim_matches(['"', '\'']).is_empty() && WORDS.iter().any(|word| name.contains(word)))
}

/// What a private key begins with, in PEM (RFC 7468), and how many bytes behind that say which.
const PEM: (&[u8], usize) = (b"-----BEGIN ", 64);

fn holds_secret(bytes: &[u8]) -> bool {
    static BEGINNINGS: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
        let prefixes = PREFIXES.iter().map(|(prefix, _)| *prefix);
        AhoCorasick::new(prefixes.chain([PEM.0])).ok()
    });
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let Some(beginnings) = &*BEGINNINGS else { return true };
    beginnings.find_overlapping_iter(bytes).any(|found| {
        let rest = &bytes[found.end()..];
        match PREFIXES.get(found.pattern().as_usize()) {
            Some((_, length)) => {
                let begins = found.start() == 0 || !is_word(&bytes[found.start() - 1]);
                begins && rest.iter().take_while(|byte| is_word(byte)).count() >= *length
            }
            None => memchr::memmem::find(&rest[..rest.len().min(PEM.1)], b"PRIVATE KEY-----").is_some(),
        }
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
            "my_credentials.json",
            "api_token.txt",
            "server.pem.bak",
            "id_rsa_work",
            "deploy_key",
            "passwords.txt",
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
        assert!(sets_secret(b"HOST=a\nexport API_TOKEN='x'\n") && !sets_secret(b"HOST=a\nTOKEN=\n"));
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
