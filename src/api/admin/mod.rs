//! `/admin/…`: what was done, by whom, what was pulled and what was missing, what tags meant over time, what is left of pull quotas, why a pull does what it does, what is pinned, API tokens, and housekeeping.

mod audit;
mod carry;
mod explain;
mod fetch;
mod housekeeping;
mod missing;
mod pins;
mod pulls;
mod quota;
mod tags;
mod tokens;
mod work;

use super::error::ApiError;
use super::record::Record;
use super::{Api, Call};

impl Api {
    /// What pages of administration begin with: the one method that they take, and the right.
    fn administer(
        &self,
        call: &Call<'_>,
        record: &mut Record,
        method: &'static str,
    ) -> Result<(), ApiError> {
        if call.method.as_str() != method {
            return Err(ApiError::method(method));
        }
        self.require_admin(call)?;
        record.note_repository("-", "admin");
        Ok(())
    }
}
