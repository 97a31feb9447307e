//! Places that clients take in turns: whoever asks often stands in line behind oneself, not in front of everybody else.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::Client;

/// How many of one client's requests wait at most; what comes on top is told to come back.
pub(super) const WAITING_MAX: usize = 1024;
/// How many wait at most, of all clients.
const ALL_MAX: usize = 32 * 1024;

/// A number of places, and who waits for one.
#[derive(Debug)]
pub(super) struct Fair {
    line: Arc<Mutex<Line>>,
}

#[derive(Debug)]
struct Line {
    free: usize,
    /// Of each client that waits, in the order of asking.
    waiting: HashMap<Client, VecDeque<oneshot::Sender<Place>>>,
    /// The clients that wait, in the order of their turns; each stands here once.
    turns: VecDeque<Client>,
    /// How many wait, those who left and were not taken out yet included.
    all: usize,
}

/// One who waits; taken out of the line when it is given up.
struct Waits<'a> {
    line: &'a Mutex<Line>,
    client: &'a Client,
    place: oneshot::Receiver<Place>,
}

/// A place that somebody has. The next in turn gets it when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    line: Option<Arc<Mutex<Line>>>,
}

/// Too many of this client's requests wait already.
#[derive(Debug)]
pub(super) struct Full;

impl Fair {
    pub(super) fn new(places: usize) -> Self {
        let line = Line {
            free: places,
            waiting: HashMap::new(),
            turns: VecDeque::new(),
            all: 0,
        };
        Self {
            line: Arc::new(Mutex::new(line)),
        }
    }

    /// Waits for a place. Whoever stops waiting leaves the line.
    pub(super) async fn place(&self, client: &Client) -> Result<Place, Full> {
        let place = {
            let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
            if line.free > 0 {
                line.free -= 1;
                return Ok(Place {
                    line: Some(Arc::clone(&self.line)),
                });
            }
            line.queue(client)?
        };
        let mut waits = Waits {
            line: &self.line,
            client,
            place,
        };
        // The sender is dropped with the line alone, and the line is ours.
        (&mut waits.place).await.map_err(|_gone| Full)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        // What was sent and not taken goes on to the next before the line is locked.
        self.place.close();
        drop(self.place.try_recv());
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.forget(self.client);
    }
}

impl Line {
    fn queue(&mut self, client: &Client) -> Result<oneshot::Receiver<Place>, Full> {
        if self.all >= ALL_MAX {
            return Err(Full);
        }
        let queue = self.waiting.entry(client.clone()).or_insert_with(|| {
            self.turns.push_back(client.clone());
            VecDeque::new()
        });
        if queue.len() >= WAITING_MAX {
            return Err(Full);
        }
        let (sender, receiver) = oneshot::channel();
        queue.push_back(sender);
        self.all += 1;
        Ok(receiver)
    }

    /// Takes those of a client out who left.
    fn forget(&mut self, client: &Client) {
        let Some(queue) = self.waiting.get_mut(client) else {
            return;
        };
        let before = queue.len();
        queue.retain(|one| !one.is_closed());
        self.all -= before - queue.len();
        if queue.is_empty() {
            self.waiting.remove(client);
            self.turns.retain(|one| one != client);
        }
    }

    /// The oldest that waits of the client whose turn it is; that client's next turn is after all others'.
    fn next(&mut self) -> Option<oneshot::Sender<Place>> {
        while let Some(client) = self.turns.pop_front() {
            let Some(queue) = self.waiting.get_mut(&client) else {
                continue;
            };
            while let Some(first) = queue.pop_front() {
                self.all -= 1;
                if first.is_closed() {
                    continue;
                }
                if queue.is_empty() {
                    self.waiting.remove(&client);
                } else {
                    self.turns.push_back(client);
                }
                return Some(first);
            }
            self.waiting.remove(&client);
        }
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(shared) = self.line.take() else {
            return;
        };
        loop {
            let next = {
                let mut line = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let next = line.next();
                if next.is_none() {
                    line.free += 1;
                }
                next
            };
            let Some(next) = next else { return };
            let place = Self {
                line: Some(Arc::clone(&shared)),
            };
            match next.send(place) {
                Ok(()) => return,
                // Left between the look and now: the place goes to the one after, from here and not from its own end.
                Err(mut place) => place.line = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use futures_util::FutureExt as _;

    use super::*;

    /// A client that outlives what it waits for.
    fn client(number: u8) -> &'static Client {
        let address = IpAddr::from([127, 0, 0, number]);
        Box::leak(Box::new(Client::Address(address)))
    }

    #[tokio::test]
    async fn turns_go_from_client_to_client() {
        let fair = Fair::new(1);
        let first = fair.place(client(1)).await.unwrap();
        // Five of the busy one stand in line before the two others come.
        let mut waiting: Vec<_> = [1, 1, 1, 1, 1, 2, 3, 2]
            .into_iter()
            .map(|number| (number, Box::pin(fair.place(client(number)))))
            .collect();
        for (_, one) in &mut waiting {
            assert!(one.now_or_never().is_none());
        }
        let mut held = Some(first);
        let mut order = Vec::new();
        while held.take().is_some() {
            let mut at = None;
            for (number, (_, one)) in waiting.iter_mut().enumerate() {
                if let Some(place) = one.now_or_never() {
                    assert!(at.replace((number, place.unwrap())).is_none());
                }
            }
            if let Some((number, place)) = at {
                order.push(waiting.remove(number).0);
                held = Some(place);
            }
        }
        assert_eq!(order, [1, 2, 3, 1, 2, 1, 1, 1]);
        assert!(fair.place(client(9)).now_or_never().is_some());
    }

    #[tokio::test]
    async fn who_leaves_the_line_holds_nobody_up() {
        let fair = Fair::new(1);
        let held = fair.place(client(1)).await.unwrap();
        let mut leaves = Box::pin(fair.place(client(2)));
        let mut stays = Box::pin(fair.place(client(3)));
        assert!((&mut leaves).now_or_never().is_none() && (&mut stays).now_or_never().is_none());
        drop(leaves);
        drop(held);
        let place = stays.now_or_never().unwrap().unwrap();
        // Given a place and gone before taking it.
        let mut unlucky = Box::pin(fair.place(client(4)));
        assert!((&mut unlucky).now_or_never().is_none());
        drop(place);
        drop(unlucky);
        assert!(fair.place(client(5)).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_line_has_an_end() {
        let fair = Fair::new(1);
        let _held = fair.place(client(1)).await.unwrap();
        let mut waiting: Vec<_> = (0..WAITING_MAX)
            .map(|_| Box::pin(fair.place(client(1))))
            .collect();
        for one in &mut waiting {
            assert!(one.now_or_never().is_none());
        }
        assert!(matches!(
            fair.place(client(1)).now_or_never(),
            Some(Err(Full))
        ));
        assert!(fair.place(client(2)).now_or_never().is_none());
        // Those who left make room, and nothing is left of them.
        drop(waiting);
        let line = fair.line.lock().unwrap();
        assert!(line.waiting.is_empty() && line.turns.is_empty() && line.all == 0);
    }

    #[tokio::test]
    async fn all_lines_together_have_an_end() {
        let fair = Fair::new(1);
        let _held = fair.place(client(1)).await.unwrap();
        let mut waiting = Vec::new();
        for number in 0..ALL_MAX / WAITING_MAX {
            let client = client(u8::try_from(number).unwrap());
            waiting.extend((0..WAITING_MAX).map(|_| Box::pin(fair.place(client))));
        }
        for one in &mut waiting {
            assert!(one.now_or_never().is_none());
        }
        let one_more = fair.place(client(200)).now_or_never();
        assert!(matches!(one_more, Some(Err(Full))));
    }
}
