//! One question upstream for many who ask it at the same time.
//!
//! The question runs as a task of its own, so whoever asked first may leave without taking the answer from the others. An answer is shared
//! only among those who joined before it came: it is no cache.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::tasks::Tasks;

type Seats<K, V> = Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>;

/// The questions that are under way.
#[derive(Debug)]
pub(super) struct Flights<K, V> {
    seats: Seats<K, V>,
    tasks: Tasks,
    name: &'static str,
}

/// An answer, and whether another had asked for it first.
#[derive(Debug, Clone)]
pub(super) struct Landed<V> {
    pub(super) value: V,
    pub(super) joined: bool,
}

impl<K, V> Flights<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new(name: &'static str, tasks: Tasks) -> Self {
        Self {
            seats: Arc::default(),
            tasks,
            name,
        }
    }

    /// Joins the flight of `key`, or starts it with `ask`. `None` if the task died before it had an answer.
    pub(super) async fn run<F>(&self, key: K, ask: impl FnOnce() -> F) -> Option<Landed<V>>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let (mut receiver, joined) = {
            let mut seats = lock(&self.seats);
            if let Some(receiver) = seats.get(&key) {
                (receiver.clone(), true)
            } else {
                let (sender, receiver) = watch::channel(None);
                seats.insert(key.clone(), receiver.clone());
                let seat = Seat {
                    seats: Arc::clone(&self.seats),
                    key,
                };
                let future = ask();
                self.tasks.spawn(self.name, async move {
                    let value = future.await;
                    // Out of the table first: whoever asks from here on wants a new answer.
                    drop(seat);
                    sender.send_replace(Some(value));
                });
                (receiver, false)
            }
        };
        let value = receiver.wait_for(Option::is_some).await.ok()?.clone()?;
        Some(Landed { value, joined })
    }
}

/// Takes its key out of the table when dropped, by a panic too.
struct Seat<K: Hash + Eq, V> {
    seats: Seats<K, V>,
    key: K,
}

impl<K: Hash + Eq, V> Drop for Seat<K, V> {
    fn drop(&mut self) {
        lock(&self.seats).remove(&self.key);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The table stays valid whatever happens between lock and unlock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn many_ask_once_and_the_first_may_leave() {
        let flights = Arc::new(Flights::new("test", Tasks::new()));
        let (asked, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let ask = || {
            let (asked, go) = (Arc::clone(&asked), Arc::clone(&go));
            async move {
                asked.fetch_add(1, Ordering::SeqCst);
                go.notified().await;
                7
            }
        };
        // The first is polled once, so that its question is under way, and then leaves.
        {
            let mut first = Box::pin(flights.run("k", ask));
            assert!(futures_util::poll!(first.as_mut()).is_pending());
        }
        let others = futures_util::future::join_all((0..20).map(|_| flights.run("k", ask)));
        let (answers, ()) = tokio::join!(others, async {
            tokio::task::yield_now().await;
            go.notify_one();
        });
        assert!(answers.iter().all(|answer| {
            answer
                .as_ref()
                .is_some_and(|landed| landed.value == 7 && landed.joined)
        }));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_panic_fails_its_flight_and_no_other() {
        let flights = Flights::<_, u8>::new("test", Tasks::new());
        assert!(
            flights
                .run("k", || async { panic!("on purpose") })
                .await
                .is_none()
        );
        assert_eq!(
            flights
                .run("k", || async { 1 })
                .await
                .map(|landed| landed.value),
            Some(1)
        );
    }
}
