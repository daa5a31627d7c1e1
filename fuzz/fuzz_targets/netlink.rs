//! `latency_tests::fuzz::netlink`, with input of libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| latency_tests::fuzz::netlink(bytes));
