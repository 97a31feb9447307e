//! `/admin/…`: what was done, by whom, what tags meant over time, and what is left of pull quotas.

mod audit;
mod quota;
mod tags;
