//! `/admin/…`: what was done, by whom, and what tags meant over time.

mod audit;
mod tags;
