//! `/admin/…`: what was done, by whom, what tags meant over time, what is left of pull quotas, why a pull does what it does, API tokens, and housekeeping.

mod audit;
mod explain;
mod housekeeping;
mod quota;
mod tags;
mod tokens;
