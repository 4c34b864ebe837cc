//! What looks like a secret: it is sent only if the user says so.

use std::path::Path;

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

/// Whether a file looks like a secret, by its name or its content. Of source code only the content counts: `tokens.py` is a module.
pub(crate) fn is_secret(path: &Path, is_source: bool) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    (!is_source && (has_secret_name(name) || is_in_private_directory(path))) || has_secret_content(path)
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

fn has_secret_content(path: &Path) -> bool {
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

fn holds_secret(bytes: &[u8]) -> bool {
    let find = |text: &[u8]| memchr::memmem::find(bytes, text);
    if find(b"-----BEGIN ").is_some_and(|at| memchr::memmem::find(&bytes[at..bytes.len().min(at + 64)], b"PRIVATE KEY-----").is_some()) {
        return true;
    }
    PREFIXES.iter().any(|&(prefix, length)| {
        memchr::memmem::find_iter(bytes, prefix).any(|at| {
            let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
            let begins = at == 0 || !is_word(&bytes[at - 1]);
            let rest = bytes[at + prefix.len()..].iter().take_while(|byte| is_word(byte)).count();
            begins && rest >= length
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
