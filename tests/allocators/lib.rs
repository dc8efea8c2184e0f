//! The tests are the files that the manifest names; there is nothing in the library.
