//! Loads, limits, pools and swaps components.
