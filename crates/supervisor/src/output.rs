//! What a worker wrote to its piped stdout and stderr, drained while it runs, so that neither waits for the other. What
//! is kept is bounded: a worker that never stops writing must not fill the parent's memory.

use super::sys;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{ChildStderr, ChildStdout};

/// How much of each stream is kept where nobody said otherwise, in bytes.
pub(super) const KEPT_BYTES: usize = 1 << 20;

pub(super) struct Output {
    streams: [Stream; 2],
    keep_bytes: usize,
    pub(super) cut: bool,
}

#[derive(Default)]
struct Stream {
    pipe: Option<std::fs::File>,
    bytes: Vec<u8>,
}

impl Stream {
    fn new(pipe: Option<OwnedFd>) -> io::Result<Stream> {
        if let Some(pipe) = &pipe {
            sys::child::set_nonblocking(pipe.as_fd())?;
        }
        Ok(Stream { pipe: pipe.map(std::fs::File::from), bytes: Vec::new() })
    }
}

impl Output {
    /// Takes over the pipes that there are.
    pub(super) fn take_from(
        stdout: &mut Option<ChildStdout>,
        stderr: &mut Option<ChildStderr>,
        keep_bytes: usize,
    ) -> io::Result<Output> {
        let stdout = Stream::new(stdout.take().map(OwnedFd::from))?;
        let stderr = Stream::new(stderr.take().map(OwnedFd::from))?;
        Ok(Output { streams: [stdout, stderr], keep_bytes, cut: false })
    }

    /// The pipes that may still bring something.
    pub(super) fn open_pipes(&self) -> [Option<BorrowedFd<'_>>; 2] {
        let [stdout, stderr] = &self.streams;
        [stdout, stderr].map(|stream| stream.pipe.as_ref().map(AsFd::as_fd))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.streams.iter().all(|stream| stream.pipe.is_none())
    }

    /// Takes what is there without waiting for more, and at most a few pipes full: a writer that never stops must not
    /// keep the caller from looking at its watch.
    pub(super) fn drain(&mut self) {
        const MOST_READS: usize = 64;
        for stream in &mut self.streams {
            for _ in 0..MOST_READS {
                let Some(pipe) = &mut stream.pipe else { break };
                let mut chunk = [0; 16 << 10];
                match pipe.read(&mut chunk) {
                    Ok(0) => stream.pipe = None,
                    Ok(got) => {
                        let room = self.keep_bytes.saturating_sub(stream.bytes.len()).min(got);
                        self.cut |= room < got;
                        stream.bytes.extend_from_slice(chunk.get(..room).unwrap_or(&[]));
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => stream.pipe = None,
                }
            }
        }
    }

    pub(super) fn into_bytes(self) -> (Vec<u8>, Vec<u8>) {
        let [stdout, stderr] = self.streams;
        (stdout.bytes, stderr.bytes)
    }
}
