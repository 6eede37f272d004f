//! What the codes in refusals of S3, GCS and Azure mean where the status alone does not tell, and what to do about them.

/// How one kind of store is spoken of.
pub(crate) struct Dialect {
    /// What holds objects.
    pub(crate) place: &'static str,
    /// What to do where it is not there.
    pub(crate) no_place: &'static str,
    /// What to do where no resolver knows the host.
    pub(crate) unknown_host: &'static str,
    /// What to do where there is no login, or it is refused by those who hand it out.
    pub(crate) login: &'static str,
    /// What to do where the store itself refuses a login, by status and code.
    pub(crate) denied: fn(u16, &str) -> Option<&'static str>,
}

pub(crate) static S3: Dialect = Dialect {
    place: "bucket",
    no_place: "make the bucket, or correct the storage's `url`, `endpoint` or `region`",
    unknown_host: "check the storage's `endpoint`, and the resolver of this machine",
    login: "set `access_key_id` and `secret_access_key`, or `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`",
    denied: |_, code| match code {
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" => {
            Some("check the access key and its secret: the service does not know them")
        }
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
            Some("get a new temporary key, or use `credential_command`")
        }
        _ => None,
    },
};

pub(crate) static GCS: Dialect = Dialect {
    place: "bucket",
    no_place: "make the bucket, or correct the storage's `url`",
    unknown_host: "check the storage's `endpoint`, and the resolver of this machine",
    login: "set `service_account_file`, `access_token` or `credential_command`, or `GOOGLE_APPLICATION_CREDENTIALS`",
    denied: |status, code| match (status, code) {
        (401, _) => Some(
            "the login is wrong or has ended: get a new token, or use a service account or `credential_command`",
        ),
        (403, "AccessDenied" | "") => Some(
            "give the login the role `Storage Object User` (roles/storage.objectUser) on the bucket",
        ),
        _ => None,
    },
};

pub(crate) static AZURE: Dialect = Dialect {
    place: "container",
    no_place: "make the container, or correct the storage's `url` or `account`",
    unknown_host: "check the storage's `account` (and `endpoint`): an account that does not exist has no address",
    login: "set `account_key`, `sas_token`, `client_secret` or `use_azure_cli`, or the `AZURE_` variables",
    denied: |_, code| match code {
        "AuthenticationFailed" => Some(
            "check that the key or SAS token is of this account and has not ended, and that this machine's clock is right",
        ),
        "InvalidAuthenticationInfo" | "NoAuthenticationInformation" | "ResourceNotFound" => {
            Some("check the token and its tenant, or use another way to log in")
        }
        "AuthorizationPermissionMismatch" => Some(
            "give the login the role `Storage Blob Data Contributor` on the container, or the SAS token the permissions `racwdl`",
        ),
        "AuthorizationFailure" => Some(
            "check that the key or SAS token is of this account, and look at the account's network rules",
        ),
        "AuthorizationResourceTypeMismatch" | "AuthorizationServiceMismatch" => {
            Some("an account SAS needs the service `b` and the resource types `co`")
        }
        "KeyBasedAuthenticationNotPermitted" => Some(
            "this account takes no keys: log in with a role, such as by `use_azure_cli` or an identity",
        ),
        _ => None,
    },
};

/// What to do where an object is retained.
pub(crate) const RETAINED: &str =
    "it goes once its retention or hold ends; pgkeep cannot shorten that";

/// Tells whether it is the bucket or container that is not there.
pub(super) fn is_no_bucket(code: &str) -> bool {
    matches!(
        code,
        "NoSuchBucket" | "ContainerNotFound" | "ContainerBeingDeleted" | "ContainerDisabled"
    )
}

/// Tells whether a retention policy, a lock or a hold forbids to remove or to overwrite an object.
///
/// R2, GCS and Azure have codes for that. S3 has none: there a removal hides, and what is refused of a version is known by
/// its words, as is anything under a lock of MinIO's.
/// <https://developers.cloudflare.com/r2/api/error-codes>,
/// <https://cloud.google.com/storage/docs/xml-api/reference-status>,
/// <https://learn.microsoft.com/en-us/azure/storage/blobs/immutable-storage-overview>
pub(super) fn is_retained(status: u16, code: &str, message: &str) -> bool {
    let is_said = message.contains("object lock") || message.contains("WORM protected");
    code == "ObjectLockedByBucketPolicy"
        || code.eq_ignore_ascii_case("RetentionPolicyNotMet")
        || code.eq_ignore_ascii_case("ObjectUnderActiveHold")
        || code.starts_with("BlobImmutableDueTo")
        || (is_said && matches!(status, 400 | 403 | 409))
}

/// Tells whether the key is taken, where the status says something else: a SAS token that may create and not write.
pub(super) fn is_taken(code: &str) -> bool {
    code == "UnauthorizedBlobOverwrite"
}

/// Tells whether the same request may succeed in a moment, whatever the status.
pub(super) fn is_passing(code: &str) -> bool {
    matches!(
        code,
        "InternalError"
            | "SlowDown"
            | "ServiceUnavailable"
            | "ServerBusy"
            | "OperationTimedOut"
            | "RequestTimeout"
            | "Throttling"
    )
}
