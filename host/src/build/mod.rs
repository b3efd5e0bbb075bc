//! Builds plugins into stamped components.
