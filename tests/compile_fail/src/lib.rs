//! Programs that must not compile; see `cases/`.
