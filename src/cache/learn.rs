//! What the store knows can be learnt again: its trouble costs knowledge, not answers (RELIABILITY P11, P13).

use std::fmt::Display;
use std::future::Future;

use tracing::warn;

use super::error::Error;
use crate::store::index;

/// Writes down what upstream said. A full or failing disk is logged and survived; false then.
pub(super) async fn learn(
    what: &'static str,
    write: impl Future<Output = index::Result<()>>,
) -> bool {
    match write.await {
        Ok(()) => true,
        Err(error) => {
            warn!(%error, what, "the index could not be written; this will be asked of upstream again");
            false
        }
    }
}

/// Looks up what was learnt. A store that cannot tell counts as one that does not know, as long as there is an upstream to ask.
pub(super) async fn recall<T, E>(
    what: &'static str,
    offline: bool,
    read: impl Future<Output = Result<T, E>>,
) -> Result<T, Error>
where
    T: Default,
    E: Display + Into<Error>,
{
    match read.await {
        Err(error) if !offline => {
            warn!(%error, what, "the store could not be read; upstream is asked instead");
            Ok(T::default())
        }
        answer => answer.map_err(Into::into),
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, learn, recall};
    use crate::store::{IndexError, StoreError};

    #[tokio::test]
    async fn trouble_with_the_store_is_an_unknown_unless_there_is_nobody_else_to_ask() {
        assert!(learn("x", async { Ok(()) }).await);
        assert!(!learn("x", async { Err(IndexError::Closed) }).await);
        let read = async |offline| {
            recall("x", offline, async {
                Err::<Option<u8>, _>(StoreError::Full)
            })
            .await
        };
        assert!(matches!(read(false).await, Ok(None)));
        assert!(matches!(read(true).await, Err(Error::Store(_))));
        assert!(matches!(
            recall("x", true, async { Ok::<_, StoreError>(Some(1)) }).await,
            Ok(Some(1))
        ));
    }
}
