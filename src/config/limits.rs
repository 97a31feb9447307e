//! The `[limits]` table: how much clients may ask of this mirror.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::Duration;

use toml::Spanned;

use super::file;
use super::resolve::Reader;
use super::units::Bandwidth;
use crate::bandwidth::BANDWIDTH_MIN;
use crate::limits::{Budget, Config, Rate};

/// The most requests a second that may be configured; no limit is a better way to say more.
const REQUESTS_PER_SECOND_MAX: f64 = 1_000_000.0;
/// The fewest: one in about a quarter of an hour.
const REQUESTS_PER_SECOND_MIN: f64 = 0.001;

impl Reader<'_> {
    pub(super) fn limits(&mut self, table: &file::Limits) -> Config {
        if let Some(all) = &table.global.concurrent {
            let one = table.per_client.concurrent.as_ref();
            if one.is_none_or(|one| one.get_ref() >= all.get_ref()) && *all.get_ref() > 0 {
                self.problem(
                    all.span(),
                    "limits.global.concurrent: one client could take every place and keep it",
                    "write a smaller limits.per_client.concurrent beside it",
                );
            }
        }
        Config {
            per_client: self.budget(&table.per_client, "limits.per_client"),
            manifest: self.rate(&table.manifest, "limits.manifest"),
            blob: self.rate(&table.blob, "limits.blob"),
            write: self.rate(&table.write, "limits.write"),
            login: self.rate(&table.login, "limits.login"),
            global: self.budget(&table.global, "limits.global"),
        }
    }

    fn budget(&mut self, written: &file::Budget, key: &str) -> Budget {
        let rate = file::Rate {
            requests_per_second: written.requests_per_second.clone(),
            burst: written.burst.clone(),
        };
        let concurrent = written.concurrent.as_ref().and_then(|written| {
            let concurrent = NonZeroUsize::new(*written.get_ref());
            if concurrent.is_none() {
                self.problem(
                    written.span(),
                    format!("{key}.concurrent lets nothing through"),
                    "write at least 1, or leave it out for no limit",
                );
            }
            concurrent
        });
        Budget {
            rate: self.rate(&rate, key),
            concurrent,
            bandwidth: self.bandwidth(written.bandwidth.as_ref(), &format!("{key}.bandwidth")),
        }
    }

    fn rate(&mut self, written: &file::Rate, key: &str) -> Option<Rate> {
        let Some(per_second) = &written.requests_per_second else {
            if let Some(burst) = &written.burst {
                self.problem(
                    burst.span(),
                    format!("{key}.burst is about a rate that is not there"),
                    "write requests_per_second beside it",
                );
            }
            return None;
        };
        let number = *per_second.get_ref();
        if !(REQUESTS_PER_SECOND_MIN..=REQUESTS_PER_SECOND_MAX).contains(&number) {
            self.problem(
                per_second.span(),
                format!("{key}.requests_per_second is out of range"),
                format!(
                    "write a number from {REQUESTS_PER_SECOND_MIN} to {REQUESTS_PER_SECOND_MAX}"
                ),
            );
            return None;
        }
        let every = Duration::from_secs_f64(number.recip());
        // Unless it is said, a second's worth at once; in range, as the rate is.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 1 and REQUESTS_PER_SECOND_MAX"
        )]
        let usual = NonZeroU32::new(number.ceil() as u32).unwrap_or(NonZeroU32::MIN);
        let burst = match &written.burst {
            None => Some(usual),
            Some(burst) => NonZeroU32::new(*burst.get_ref()).or_else(|| {
                self.problem(
                    burst.span(),
                    format!("{key}.burst lets nothing through"),
                    "write at least 1, or leave it out for a second's worth",
                );
                None
            }),
        };
        burst.map(|burst| Rate { every, burst })
    }

    /// A bandwidth that something can be pulled with.
    pub(super) fn bandwidth(
        &mut self,
        written: Option<&Spanned<Bandwidth>>,
        key: &str,
    ) -> Option<NonZeroU64> {
        let written = written?;
        let bandwidth = NonZeroU64::new(written.get_ref().0);
        let bandwidth = bandwidth.filter(|bandwidth| bandwidth.get() >= BANDWIDTH_MIN);
        if bandwidth.is_none() {
            self.problem(
                written.span(),
                format!("{key} is too little to pull anything with"),
                "write at least \"64KiB/s\"",
            );
        }
        bandwidth
    }
}
