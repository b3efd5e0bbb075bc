//! Proxies requests: authenticate, admit, forward, settle, record.
