//! The job that the process is at, as `oomguard_task` says: in the report it stands in the token's place.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use oomguard_core::contract::TOKEN_MAX_BYTES;
use oomguard_core::text::Text;

const WORDS: usize = TOKEN_MAX_BYTES / 8;

/// Its length plus one; zero where there is none. Release, and Acquire where it is read: it publishes the words. A thread
/// that dies while another says a new name may read some of both.
static LEN: AtomicUsize = AtomicUsize::new(0);
// Relaxed: see above.
static NAME: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];

/// From now on the process is at this; `None`: at nothing in particular. Cut where it is too long.
pub fn begin(name: Option<&[u8]>) {
    // Relaxed: it publishes nothing.
    LEN.store(0, Ordering::Relaxed);
    let Some(name) = name else { return };
    let name = name.get(..TOKEN_MAX_BYTES).unwrap_or(name);
    for (word, bytes) in NAME.iter().zip(name.chunks(8)) {
        let mut whole = [0; 8];
        for (to, from) in whole.iter_mut().zip(bytes) {
            *to = *from;
        }
        word.store(u64::from_ne_bytes(whole), Ordering::Relaxed);
    }
    LEN.store(name.len() + 1, Ordering::Release);
}

/// The name, put into `into`. Makes no system call and takes no lock.
pub(super) fn current(into: &mut Text<TOKEN_MAX_BYTES>) -> Option<&[u8]> {
    let len = LEN.load(Ordering::Acquire).checked_sub(1)?;
    into.truncate(0);
    for (index, word) in NAME.iter().enumerate() {
        let bytes = word.load(Ordering::Relaxed).to_ne_bytes();
        let rest = len.saturating_sub(index * 8).min(8);
        into.push_bytes(bytes.get(..rest).unwrap_or(&bytes));
    }
    Some(into.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_one_that_was_said_last() {
        let mut text = Text::new();
        assert_eq!(current(&mut text), None);
        for name in ["job-17", "12345678", "a much longer name than those before it", ""] {
            begin(Some(name.as_bytes()));
            assert_eq!(current(&mut text), Some(name.as_bytes()));
        }
        begin(Some(&[b'x'; 100]));
        assert_eq!(current(&mut text), Some(&[b'x'; 64][..]));
        begin(None);
        assert_eq!(current(&mut text), None);
    }
}
