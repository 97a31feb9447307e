//! Sizes and durations as people write them. Pure.

use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

pub use crate::clock::parse_span;

/// A number of bytes: `"20GiB"`, `"500MB"`, or a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

/// A duration: `"1500ms"`, `"30s"`, `"5m"`, `"72h"`, `"30d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

/// A duration during which something must happen: a [`Span`] that is not nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timeout(pub(super) Duration);

/// Bytes a second: `"1Gbit/s"`, `"100Mbit/s"`, `"20MiB/s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bandwidth(pub(super) u64);

/// Bits as networks are sold, or bytes as files are measured.
pub(super) fn parse_bandwidth(text: &str) -> Option<u64> {
    let amount = text.trim().strip_suffix("/s")?;
    let (number, unit) = split(amount)?;
    let bits: u64 = match unit {
        "bit" => 1,
        "kbit" => 1000,
        "Mbit" => 1_000_000,
        "Gbit" => 1_000_000_000,
        "Tbit" => 1_000_000_000_000,
        // A number alone would leave it open which of the two is meant.
        "" => return None,
        _ => return parse_size(amount),
    };
    number.checked_mul(bits).map(|bits| bits / 8)
}

/// A number of bytes as the configuration has it.
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, unit.trim()))
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;
        impl Visitor<'_> for SizeVisitor {
            type Value = Size;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a size such as \"20GiB\" or \"500MB\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                parse_size(text).map(Size).ok_or_else(|| {
                    E::custom("this is no size; write \"20GiB\", \"500MB\" or a number of bytes")
                })
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                u64::try_from(bytes)
                    .map(Size)
                    .map_err(|_negative| E::custom("a size is not negative"))
            }
        }
        deserializer.deserialize_any(SizeVisitor)
    }
}

impl<'de> Deserialize<'de> for Bandwidth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BandwidthVisitor;
        impl Visitor<'_> for BandwidthVisitor {
            type Value = Bandwidth;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a bandwidth such as \"100Mbit/s\" or \"20MiB/s\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bandwidth, E> {
                parse_bandwidth(text).map(Bandwidth).ok_or_else(|| {
                    E::custom(
                        "this is no bandwidth; write \"1Gbit/s\", \"100Mbit/s\" or \"20MiB/s\"",
                    )
                })
            }
        }
        deserializer.deserialize_any(BandwidthVisitor)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SpanVisitor;
        impl Visitor<'_> for SpanVisitor {
            type Value = Span;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a duration with its unit, such as \"30s\" or \"5m\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                parse_span(text).map(Span).ok_or_else(|| {
                    E::custom(
                        "this is no duration; write \"1500ms\", \"30s\", \"5m\", \"72h\" or \"30d\"",
                    )
                })
            }
        }
        deserializer.deserialize_any(SpanVisitor)
    }
}

impl<'de> Deserialize<'de> for Timeout {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Span(span) = Span::deserialize(deserializer)?;
        if span.is_zero() {
            return Err(de::Error::custom(
                "nothing can happen in no time at all; write at least \"1ms\"",
            ));
        }
        Ok(Self(span))
    }
}
