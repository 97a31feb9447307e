//! The platform of an image in an index (image-spec `image-index.md`, "platform").

use serde_json::{Map, Value};

use super::json::{Fields, Malformed};

/// What an image runs on. Fields that are absent are empty: build attestations say `unknown`, old tools say nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
    os_version: Option<String>,
}

impl Platform {
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
