//! Tests of all readers together.

mod fuzz;
