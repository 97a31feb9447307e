//! The platform of an image in an index (image-spec `image-index.md`, "platform").

use std::fmt;

use serde_json::{Map, Value};

use super::json::{Fields, Malformed};

/// What an image runs on. Fields that are absent are empty: build attestations say `unknown`, old tools say nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
    os_version: Option<String>,
}

/// A text that is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a platform looks like linux/amd64, linux/arm/v7 or windows(10.0.20348)/amd64")]
pub struct PlatformError;

impl Platform {
    /// Parses `linux/arm64/v8` as people and containerd write it; a version of the system stands in parentheses behind its name.
    pub fn parse(text: &str) -> Result<Self, PlatformError> {
        let mut parts = text.split('/');
        let (os, os_version) = parts
            .next()
            .map(|os| match os.split_once('(') {
                Some((os, version)) => (os, version.strip_suffix(')')),
                None => (os, None),
            })
            .ok_or(PlatformError)?;
        let has_parenthesis = text.contains(['(', ')']);
        let architecture = parts.next().ok_or(PlatformError)?;
        let variant = parts.next();
        let fits = |word: &str| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        let all = [Some(os), Some(architecture), variant, os_version];
        let fits = all.into_iter().flatten().all(fits);
        if !fits || parts.next().is_some() || has_parenthesis != os_version.is_some() {
            return Err(PlatformError);
        }
        Ok(Self {
            os: os.to_ascii_lowercase(),
            architecture: architecture.to_ascii_lowercase(),
            variant: variant.map(str::to_ascii_lowercase),
            os_version: os_version.map(str::to_owned),
        })
    }

    /// Whether this is what somebody means who asks for `wanted`: what that leaves open may be anything, `arm64` is `arm64/v8`, and a version
    /// stands for all that begin with it.
    pub fn satisfies(&self, wanted: &Self) -> bool {
        let usual = |platform: &Self| match (platform.architecture.as_str(), &platform.variant) {
            ("arm64", None) => Some("v8".to_owned()),
            (_, variant) => variant.clone(),
        };
        let version = |version: &String| {
            self.os_version.as_ref().is_some_and(|own| {
                own.strip_prefix(version.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && (wanted.variant.is_none() || usual(self) == usual(wanted))
            && wanted.os_version.as_ref().is_none_or(version)
    }

    /// A platform without variant and version.
    pub fn new(os: impl Into<String>, architecture: impl Into<String>) -> Self {
        Self {
            os: os.into(),
            architecture: architecture.into(),
            variant: None,
            os_version: None,
        }
    }

    /// Reads the object of a descriptor.
    pub fn from_value(value: Value) -> Result<Self, Malformed> {
        let mut fields = Fields::open(value, &["os", "architecture", "variant", "os.version"])?;
        Ok(Self {
            os: fields.text("os")?.unwrap_or_default(),
            architecture: fields.text("architecture")?.unwrap_or_default(),
            variant: fields.text("variant")?,
            os_version: fields.text("os.version")?,
        })
    }

    /// The object as it stands in a descriptor.
    pub fn to_value(&self) -> Value {
        let mut object = Map::new();
        let mut put = |key: &str, text: &str| object.insert(key.to_owned(), text.into());
        put("architecture", &self.architecture);
        put("os", &self.os);
        if let Some(version) = &self.os_version {
            put("os.version", version);
        }
        if let Some(variant) = &self.variant {
            put("variant", variant);
        }
        Value::Object(object)
    }

    /// The operating system by Go's name (`linux`), or empty.
    pub fn os(&self) -> &str {
        &self.os
    }

    /// The processor by Go's name (`amd64`), or empty.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The variant of the processor (`v7`).
    pub fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    /// The version of the operating system, which Windows images give.
    pub fn os_version(&self) -> Option<&str> {
        self.os_version.as_deref()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if let Some(version) = &self.os_version {
            write!(f, "({version})")?;
        }
        write!(f, "/{}", self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}
