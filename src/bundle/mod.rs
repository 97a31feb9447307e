//! Images on their way across an air gap: which are wanted, what they were when they were locked, and the files that somebody carries.

pub mod archive;
pub mod asked;
pub mod copy;
pub mod export;
pub mod found;
pub mod import;
pub mod inventory;
pub mod list;
pub mod lock;
pub mod locking;
pub mod patience;
pub mod progress;
pub mod pulled;
pub mod sync;
mod waiting;
