//! Fanfare tests.
