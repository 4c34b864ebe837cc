//! Where files are stored, as a URL says it.

use std::{borrow::Cow, fmt, path::PathBuf, str::FromStr};

use bus::ids::Token;
use percent_encoding::percent_decode_str;
use url::Url;

/// A store that files can be kept in, read from a URL. `Display` leaves the credentials out.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// `nats://<bucket>?replicas=<n>`: a `JetStream` object store, made if it is absent.
    Nats {
        /// The bucket; `rgrid-files` unless named.
        bucket: Token,
        /// How many servers keep a copy, 1 to 5; 1 unless given.
        replicas: usize,
    },
    /// `s3://<bucket>?endpoint=<url>&region=<name>`: an existing bucket in S3 or `MinIO`.
    S3 {
        /// The bucket.
        bucket: String,
        /// The server, unless it is Amazon's; addressed in path style.
        endpoint: Option<Url>,
        /// The region, unless the environment names it.
        region: Option<String>,
        /// The access key and its secret, from the URL's user info; else the usual `AWS_…` variables count.
        credentials: Option<(String, String)>,
        /// Whether clients send and fetch files there themselves, by presigned URLs.
        public: Public,
    },
    /// `file:///<dir>`: a directory, made if it is absent.
    File {
        /// The directory, absolute.
        dir: PathBuf,
    },
}

/// Where clients find an S3 store, who have no credentials for it.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Public {
    /// Where the services do: at the endpoint.
    #[default]
    AsHere,
    /// At another address: `public=<url>`.
    At(Box<Url>),
    /// Nowhere: `public=none`. Every file goes through the API.
    None,
}

/// A URL that names no store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{url}` is not a file store: {why}; use `nats://<bucket>`, `s3://<bucket>?endpoint=<url>` or `file:///<directory>`")]
pub struct InvalidUrl {
    /// What was given, without its credentials.
    pub url: String,
    /// What is wrong with it.
    pub why: Cow<'static, str>,
}

/// The bucket that `nats://` means.
const DEFAULT_BUCKET: &str = "rgrid-files";

/// The most copies that `JetStream` keeps of a stream.
const REPLICAS_MAX: usize = 5;

impl FromStr for StoreUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        parse(text).map_err(|why| InvalidUrl { url: redacted(text), why })
    }
}

fn parse(text: &str) -> Result<StoreUrl, Cow<'static, str>> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    match url.scheme() {
        "nats" => parse_nats(&url),
        "s3" => parse_s3(&url),
        "file" => url
            .to_file_path()
            .map(|dir| StoreUrl::File { dir })
            .map_err(|()| "a directory is named by its absolute path, after three slashes".into()),
        other => Err(format!("nothing stores files at `{other}:`").into()),
    }
}

fn parse_nats(url: &Url) -> Result<StoreUrl, Cow<'static, str>> {
    if url.port().is_some() || !url.username().is_empty() || !matches!(url.path(), "" | "/") {
        return Err("after `nats://` comes a bucket; the server is the one that the grid is connected to".into());
    }
    let bucket = url.host_str().filter(|host| !host.is_empty()).unwrap_or(DEFAULT_BUCKET);
    let mut replicas = 1;
    for (key, value) in url.query_pairs() {
        match &*key {
            "replicas" => {
                replicas = value
                    .parse()
                    .ok()
                    .filter(|n| (1..=REPLICAS_MAX).contains(n))
                    .ok_or_else(|| format!("`replicas={value}` is not 1 to {REPLICAS_MAX}"))?;
            }
            other => return Err(format!("`nats://` knows no option `{other}`").into()),
        }
    }
    let bucket = bucket.parse().map_err(|error: bus::ids::ParseError| error.to_string())?;
    Ok(StoreUrl::Nats { bucket, replicas })
}

fn parse_s3(url: &Url) -> Result<StoreUrl, Cow<'static, str>> {
    let bucket = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or("it names no bucket")?
        .to_owned();
    if url.port().is_some() || !matches!(url.path(), "" | "/") {
        return Err("after `s3://` comes a bucket and nothing more; the server goes into `?endpoint=`".into());
    }
    let (mut endpoint, mut region, mut public) = (None, None, Public::AsHere);
    for (key, value) in url.query_pairs() {
        match &*key {
            "endpoint" => endpoint = Some(endpoint_of(&value)?),
            "public" if value == "none" => public = Public::None,
            "public" => public = Public::At(Box::new(endpoint_of(&value)?)),
            "region" => region = Some(value.into_owned()),
            other => return Err(format!("`s3://` knows no option `{other}`").into()),
        }
    }
    let plain = |text| {
        percent_decode_str(text)
            .decode_utf8()
            .map(Cow::into_owned)
            .map_err(|_| "its credentials are not UTF-8")
    };
    let credentials = match (url.username(), url.password()) {
        ("", None) => None,
        (key, Some(secret)) if !key.is_empty() => Some((plain(key)?, plain(secret)?)),
        _ => return Err("credentials are `<access key>:<secret>@`, with `/`, `@` and `+` percent-encoded".into()),
    };
    Ok(StoreUrl::S3 {
        bucket,
        endpoint,
        region,
        credentials,
        public,
    })
}

fn endpoint_of(text: &str) -> Result<Url, Cow<'static, str>> {
    let endpoint = Url::parse(text).map_err(|error| format!("its endpoint `{text}` is no URL ({error})"))?;
    if matches!(endpoint.scheme(), "http" | "https") {
        Ok(endpoint)
    } else {
        Err(format!("its endpoint `{text}` is neither `http://` nor `https://`").into())
    }
}

/// The text without what stands before an `@`, so that a secret gets into no log.
fn redacted(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}://…{}", &text[..scheme], &text[at..]),
        _ => text.to_owned(),
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nats { bucket, replicas: 1 } => write!(f, "nats://{bucket}"),
            Self::Nats { bucket, replicas } => write!(f, "nats://{bucket}?replicas={replicas}"),
            Self::S3 {
                bucket, endpoint: None, ..
            } => write!(f, "s3://{bucket}"),
            Self::S3 {
                bucket,
                endpoint: Some(endpoint),
                ..
            } => write!(f, "s3://{bucket}?endpoint={endpoint}"),
            Self::File { dir } => write!(f, "file://{}", dir.display()),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_kinds_are_read() -> Result<(), Box<dyn std::error::Error>> {
        assert_eq!("nats://".parse::<StoreUrl>()?.to_string(), "nats://rgrid-files");
        assert_eq!(
            "nats://other?replicas=3".parse::<StoreUrl>()?.to_string(),
            "nats://other?replicas=3"
        );
        assert_eq!(
            "file:///var/lib/files".parse::<StoreUrl>()?,
            StoreUrl::File {
                dir: "/var/lib/files".into()
            }
        );
        let s3 = "s3://key:se%2Fcret@bucket?endpoint=http://127.0.0.1:9000&region=eu".parse::<StoreUrl>()?;
        let StoreUrl::S3 {
            bucket,
            endpoint,
            region,
            credentials,
            public,
        } = &s3
        else {
            panic!("{s3} is S3")
        };
        assert_eq!((bucket.as_str(), region.as_deref()), ("bucket", Some("eu")));
        assert_eq!(endpoint.as_ref().map(Url::as_str), Some("http://127.0.0.1:9000/"));
        assert_eq!(credentials, &Some(("key".to_owned(), "se/cret".to_owned())));
        assert!(*public == Public::AsHere);
        for (text, expected) in [
            ("none", Public::None),
            ("https://files.example", Public::At(Box::new("https://files.example".parse()?))),
        ] {
            let StoreUrl::S3 { public, .. } = format!("s3://b?public={text}").parse()? else {
                panic!("{text} is S3")
            };
            assert!(public == expected, "{text}");
        }
        assert!(!format!("{s3:?}").contains("cret"), "no secret is shown");
        Ok(())
    }

    #[test]
    fn what_is_no_store_is_refused_with_a_reason() {
        for (text, why) in [
            ("ftp://x", "nothing stores files at `ftp:`"),
            ("/tmp/x", "relative URL without a base"),
            ("nats://127.0.0.1:4222", "comes a bucket"),
            ("nats://b?replicas=9", "not 1 to 5"),
            ("nats://b?replica=3", "no option `replica`"),
            ("s3://", "names no bucket"),
            ("s3://b/prefix", "nothing more"),
            ("s3://b?endpoint=minio:9000", "neither `http://`"),
            ("s3://key@b", "credentials are"),
            ("s3://b?public=minio:9000", "neither `http://`"),
        ] {
            let error = text.parse::<StoreUrl>().expect_err("refused").to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let error = "s3://key:secret@b?x=1".parse::<StoreUrl>().expect_err("refused").to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
