//! What kinds of repositories there are in Artifactory's JSON, and what it says of each where nobody said anything (PROTOCOL E9).

use serde_json::{Map, Value, json};

use crate::repository::settings::Settings;

/// What kind of repository: `rclass`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// `local`
    Local,
    /// `remote`
    Remote,
    /// `virtual`
    Virtual,
}

impl Class {
    /// Its name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Virtual => "virtual",
        }
    }

    /// Of a configured repository.
    pub const fn of(settings: &Settings) -> Self {
        match settings {
            Settings::Local(_) => Self::Local,
            Settings::Remote(_) => Self::Remote,
            Settings::Virtual(_) => Self::Virtual,
        }
    }

    /// Fields that say something here.
    pub(super) const fn applied(self) -> &'static [&'static str] {
        match self {
            Self::Local => &["maxUniqueTags"],
            Self::Remote => &[
                "url",
                "username",
                "offline",
                "retrievalCachePeriodSecs",
                "missedRetrievalCachePeriodSecs",
                "socketTimeoutMillis",
                "externalDependenciesEnabled",
                "externalDependenciesPatterns",
            ],
            Self::Virtual => &[
                "repositories",
                "defaultDeploymentRepo",
                "resolveDockerTagsByTimestamp",
                "includesPattern",
                "excludesPattern",
            ],
        }
    }

    /// What Artifactory says where nobody said anything.
    pub(super) fn defaults(self) -> Map<String, Value> {
        let mut all = json!({
            "description": "", "notes": "", "projectKey": "", "environments": [],
            "includesPattern": "**/*", "excludesPattern": "", "repoLayoutRef": "simple-default",
        });
        let more = match self {
            Self::Local => json!({
                "dockerApiVersion": "V2", "maxUniqueTags": 0, "dockerTagRetention": 1, "blockPushingSchema1": true,
                "blackedOut": false, "xrayIndex": false, "propertySets": [], "archiveBrowsingEnabled": false,
                "downloadRedirect": false, "cdnRedirect": false, "priorityResolution": false,
            }),
            Self::Remote => json!({
                "url": "", "username": "", "proxy": "", "hardFail": false, "offline": false,
                "storeArtifactsLocally": true, "socketTimeoutMillis": 15000, "localAddress": "",
                "retrievalCachePeriodSecs": 7200, "metadataRetrievalTimeoutSecs": 60,
                "missedRetrievalCachePeriodSecs": 1800, "unusedArtifactsCleanupPeriodHours": 0,
                "assumedOfflinePeriodSecs": 300, "shareConfiguration": false, "synchronizeProperties": false,
                "blockMismatchingMimeTypes": true, "mismatchingMimeTypesOverrideList": "", "allowAnyHostAuth": false,
                "enableCookieManagement": false, "bypassHeadRequests": false, "clientTlsCertificate": "",
                "queryParams": "", "disableUrlNormalization": false, "curated": false,
                "enableTokenAuthentication": false, "externalDependenciesEnabled": false,
                "blockPushingSchema1": false, "dockerProjectId": "", "dockerApiVersion": "V2",
                "blackedOut": false, "xrayIndex": false, "propertySets": [], "archiveBrowsingEnabled": false,
                "downloadRedirect": false, "cdnRedirect": false, "priorityResolution": false,
            }),
            Self::Virtual => json!({
                "repositories": [], "defaultDeploymentRepo": "", "resolveDockerTagsByTimestamp": false,
                "artifactoryRequestsCanRetrieveRemoteArtifacts": false, "dockerApiVersion": "V2",
            }),
        };
        if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
            all.extend(more);
        }
        all.as_object().cloned().unwrap_or_default()
    }
}
