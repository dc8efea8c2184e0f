//! The way of the pod's output to the host. A pipe stands between, as with a container
//! runtime: the pod must not write files, whose page cache would be charged to it.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::thread::{self, JoinHandle};

/// A pipe whose far end is the pod's stdout or stderr, and the file it is copied to.
pub struct Carrier {
    from: PipeReader,
    end: PipeWriter,
    to: File,
}

/// A copy under way.
pub struct Copy(JoinHandle<io::Result<()>>);

impl Carrier {
    pub fn new(to: File) -> Result<Carrier, String> {
        let (from, end) = io::pipe().map_err(|e| format!("cannot make a pipe: {e}"))?;
        Ok(Carrier { from, end, to })
    }

    pub fn end(&self) -> Result<PipeWriter, String> {
        self.end.try_clone().map_err(|e| format!("cannot copy a pipe's end: {e}"))
    }

    pub fn file(&self) -> &File {
        &self.to
    }

    pub fn start(self) -> Copy {
        let Carrier { mut from, end, mut to } = self;
        drop(end);
        Copy(thread::spawn(move || {
            let mut block = vec![0; 1 << 16];
            loop {
                match from.read(&mut block)? {
                    0 => return Ok(()),
                    length => to.write_all(&block[..length])?,
                }
            }
        }))
    }
}

impl Copy {
    pub fn finish(self) -> Result<(), String> {
        let copied = self.0.join().unwrap_or_else(|_| Err(io::Error::other("its thread panicked")));
        copied.map_err(|e| format!("cannot copy the pod's output: {e}"))
    }
}
