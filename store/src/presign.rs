//! Presigned URLs: a client without credentials stores or reads one content in S3, for a limited time (AWS Signature Version 4 in the query).

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime},
};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{
        PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation, SigningSettings, UriPathNormalizationMode, sign,
    },
    sign::v4::SigningParams,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bus::ids::Digest;
use chrono::{DateTime, Utc};
use object_store::{aws::AwsCredentialProvider, path::Path};
use url::Url;

use super::{Error, key::content_key};

/// The largest request body of S3: 5 GiB.
pub const PUT_MAX: u64 = 5 << 30;

/// How an upload is bound to its content. Servers differ in what they check, which is tried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// A signed `x-amz-checksum-sha256`: S3, and `MinIO` since 2022. Others ignore it.
    Checksum,
    /// The content's hash is signed as the payload's hash (`x-amz-content-sha256`): older `MinIO`.
    Payload,
}

/// A signed request, which is valid until it expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Where to.
    pub url: Url,
    /// The headers that it must carry, unchanged.
    pub headers: BTreeMap<&'static str, String>,
    /// Until when.
    pub expires_at: DateTime<Utc>,
}

/// Signs requests to a bucket in S3.
#[derive(Clone)]
pub struct Presigner {
    pub(super) credentials: AwsCredentialProvider,
    /// The bucket's URL for clients; path style.
    pub(super) bucket: Url,
    /// The bucket's URL for the services.
    pub(super) own: Url,
    pub(super) region: String,
}

impl fmt::Debug for Presigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presigner")
            .field("bucket", &self.bucket.as_str())
            .finish_non_exhaustive()
    }
}

impl Presigner {
    /// The presigner with the services' address of the server, which may differ from the clients'.
    #[must_use]
    pub fn for_services(&self) -> Self {
        Self {
            bucket: self.own.clone(),
            ..self.clone()
        }
    }

    /// The server that requests are signed for.
    #[must_use]
    pub fn host(&self) -> String {
        self.bucket.origin().ascii_serialization()
    }

    /// A request that stores this content of `size` bytes, at most [`PUT_MAX`], and nothing else.
    ///
    /// # Errors
    /// The credentials are not available.
    pub async fn put(&self, binding: Binding, digest: &Digest, size: u64, life: Duration) -> Result<Signed, Error> {
        self.put_at(binding, &content_key(digest), digest, size, life).await
    }

    /// As [`Self::put`], with another key: to test what the server checks.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn put_at(&self, binding: Binding, at: &Path, digest: &Digest, size: u64, life: Duration) -> Result<Signed, Error> {
        let mut headers = BTreeMap::from([
            ("content-length", size.to_string()),
            ("x-amz-checksum-sha256", STANDARD.encode(digest.as_bytes())),
        ]);
        let hash = digest.to_string();
        let body = match binding {
            Binding::Checksum => SignableBody::UnsignedPayload,
            Binding::Payload => {
                headers.insert("x-amz-content-sha256", hash.clone());
                SignableBody::Precomputed(hash)
            }
        };
        self.sign("PUT", at, headers, body, life).await
    }

    /// A request that reads this content, or a range of it.
    ///
    /// # Errors
    /// The credentials are not available.
    pub async fn get(&self, digest: &Digest, life: Duration) -> Result<Signed, Error> {
        let body = SignableBody::UnsignedPayload;
        self.sign("GET", &content_key(digest), BTreeMap::new(), body, life).await
    }

    async fn sign(
        &self,
        method: &str,
        at: &Path,
        headers: BTreeMap<&'static str, String>,
        body: SignableBody<'_>,
        life: Duration,
    ) -> Result<Signed, Error> {
        let credential = self.credentials.get_credential().await;
        let credential = credential.map_err(|source| Error::store("get the credentials of the S3 store", source))?;
        let mut url = self.bucket.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(at.parts().map(|part| part.as_ref().to_owned()));
        }
        let now = Utc::now();
        let mut settings = SigningSettings::default();
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(life);
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        let identity = Credentials::new(
            credential.key_id.as_str(),
            credential.secret_key.as_str(),
            credential.token.clone(),
            None,
            "store",
        )
        .into();
        let unsigned = |source: Box<dyn std::error::Error + Send + Sync>| Error::Store {
            doing: "sign a request to the store",
            transient: false,
            source,
        };
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("s3")
            .time(SystemTime::from(now))
            .settings(settings)
            .build()
            .map_err(|error| unsigned(error.into()))?
            .into();
        let named = headers.iter().map(|(name, value)| (*name, value.as_str()));
        let request = SignableRequest::new(method, url.as_str(), named, body).map_err(|error| unsigned(error.into()))?;
        let (signed, _) = sign(request, &params).map_err(|error| unsigned(error.into()))?.into_parts();
        for (name, value) in signed.params() {
            url.query_pairs_mut().append_pair(name, value);
        }
        Ok(Signed {
            url,
            headers,
            expires_at: now + life,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::{StaticCredentialProvider, aws::AwsCredential};

    use super::*;

    #[tokio::test]
    async fn length_and_checksum_are_signed_and_the_secret_is_nowhere() -> Result<(), Box<dyn std::error::Error>> {
        let presigner = Presigner {
            credentials: Arc::new(StaticCredentialProvider::new(AwsCredential {
                key_id: "key".to_owned(),
                secret_key: "a/secret".to_owned(),
                token: Some("a token+".to_owned()),
            })),
            bucket: "http://127.0.0.1:9000/bucket".parse()?,
            own: "http://127.0.0.1:9000/bucket".parse()?,
            region: "eu-central-1".to_owned(),
        };
        let digest = Digest::of(b"x");
        for (binding, headers) in [
            (Binding::Checksum, "content-length;host;x-amz-checksum-sha256"),
            (Binding::Payload, "content-length;host;x-amz-checksum-sha256;x-amz-content-sha256"),
        ] {
            let signed = presigner.put(binding, &digest, 1, Duration::from_secs(60)).await?;
            assert_eq!(signed.url.path(), format!("/bucket/sha256/{}/{digest}", &digest.to_string()[..2]));
            let query: BTreeMap<String, String> = signed.url.query_pairs().into_owned().collect();
            assert_eq!(
                (query["X-Amz-SignedHeaders"].as_str(), query["X-Amz-Expires"].as_str()),
                (headers, "60")
            );
            assert_eq!(query["X-Amz-Security-Token"], "a token+");
            assert!(query["X-Amz-Credential"].ends_with("/eu-central-1/s3/aws4_request"));
            assert!(!format!("{signed:?} {presigner:?}").contains("secret"));
        }
        assert!(presigner.get(&digest, Duration::from_secs(60)).await?.headers.is_empty());
        Ok(())
    }
}
