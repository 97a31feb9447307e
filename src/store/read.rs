//! Positioned reads that do not block the runtime when the page cache has the bytes.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// At most `max` bytes of `file` from `offset` on: inline where they are in memory (`RWF_NOWAIT`), on a blocking thread otherwise.
/// Fewer bytes than asked for are fine; none means the end of the file.
pub(super) async fn read_at(file: &Arc<File>, offset: u64, max: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; max];
    match preadv2(
        file,
        &mut [IoSliceMut::new(&mut buffer)],
        offset,
        ReadWriteFlags::NOWAIT,
    ) {
        Ok(read) => {
            buffer.truncate(read);
            Ok(buffer.into())
        }
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::INTR) => {
            let file = Arc::clone(file);
            tokio::task::spawn_blocking(move || {
                let read = file.read_at(&mut buffer, offset)?;
                buffer.truncate(read);
                Ok(buffer.into())
            })
            .await
            .map_err(|_died| io::Error::other("the reading thread died"))?
        }
        Err(error) => Err(error.into()),
    }
}
