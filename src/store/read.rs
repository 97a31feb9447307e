//! Reading at an offset without leaving the async thread where the page cache has the bytes.
//!
//! `preadv2` with `RWF_NOWAIT` answers from memory or says that it would wait; only then the read moves to a blocking thread. Buffers of
//! the usual size go round in a small pool per thread, because fresh ones would be zeroed each time.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// The most bytes of one read.
pub(super) const READ_MAX: usize = 256 * 1024;
/// Reads below this get a buffer of their own size.
const POOLED_MIN: usize = 32 * 1024;
/// Buffers that a thread keeps.
const POOLED: usize = 4;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Reads up to `max` bytes at `offset`; none only at the end of the file.
pub(super) async fn at(file: &Arc<File>, offset: u64, max: usize) -> io::Result<Bytes> {
    let length = max.min(READ_MAX);
    if length == 0 {
        return Ok(Bytes::new());
    }
    let mut buffer = Buffer::take(length);
    match without_waiting(file, buffer.room(), offset) {
        // Nothing may mean the end or a file system that answers so instead of waiting.
        Ok(read) if read > 0 => return Ok(buffer.finish(read)),
        Ok(_) | Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
        Err(error) => return Err(error.into()),
    }
    let file = Arc::clone(file);
    tokio::task::spawn_blocking(move || {
        let read = blocking(&file, buffer.room(), offset)?;
        Ok(buffer.finish(read))
    })
    .await
    .map_err(io::Error::other)?
}

fn without_waiting(file: &File, room: &mut [u8], offset: u64) -> Result<usize, Errno> {
    loop {
        let slice = &mut [IoSliceMut::new(room)];
        match preadv2(file, slice, offset, ReadWriteFlags::NOWAIT) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// One positional read that may wait.
pub(super) fn blocking(file: &File, room: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(room, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Bytes that go back to a pool when the last reference to them is dropped.
struct Buffer {
    bytes: Vec<u8>,
    length: usize,
}

impl Buffer {
    fn take(length: usize) -> Self {
        let pooled = (length >= POOLED_MIN)
            .then(|| BUFFERS.with_borrow_mut(Vec::pop))
            .flatten();
        let bytes = pooled.unwrap_or_else(|| {
            vec![
                0;
                if length < POOLED_MIN {
                    length
                } else {
                    READ_MAX
                }
            ]
        });
        Self { bytes, length }
    }

    fn room(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.length).unwrap_or_default()
    }

    fn finish(mut self, read: usize) -> Bytes {
        self.length = read.min(self.length);
        if self.bytes.len() == READ_MAX && self.length < POOLED_MIN {
            // A few bytes must not hold on to a whole buffer.
            return Bytes::copy_from_slice(self.as_ref());
        }
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes.len() != READ_MAX {
            return;
        }
        let bytes = std::mem::take(&mut self.bytes);
        // A thread that ends has no pool any more; the buffer is freed then.
        let _ended = BUFFERS.try_with(|pool| {
            if let Ok(mut pool) = pool.try_borrow_mut()
                && pool.len() < POOLED
            {
                pool.push(bytes);
            }
        });
    }
}
