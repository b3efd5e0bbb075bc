//! Puts the store behind the WIT interfaces, one capability a file.
