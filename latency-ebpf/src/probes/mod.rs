//! One file per kernel subsystem. Each hook carries the prototype of what it is attached to.

mod irq;
mod napi;
mod sampler;
mod softirq;
mod tcp;
