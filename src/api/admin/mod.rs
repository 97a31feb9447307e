//! `/admin/…`: what was done, by whom, what tags meant over time, what is left of pull quotas, and why a pull does what it does.

mod audit;
mod explain;
mod quota;
mod tags;
