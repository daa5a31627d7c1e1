//! One file per kernel subsystem. Each hook carries the prototype of what it is attached to.

mod irq;
mod napi;
mod softirq;
mod tcp;
