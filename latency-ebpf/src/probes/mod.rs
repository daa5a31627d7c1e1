//! One file per kernel subsystem. The doc of each hook is the prototype of its attach point.

mod irq;
mod napi;
mod preemption;
mod sampler;
mod softirq;
mod tcp;
