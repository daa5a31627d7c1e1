//! Links of programs, whatever they are attached to.

use std::any::Any;

/// A link that detaches its program when it is dropped.
pub(super) type Link = Box<dyn Any>;
