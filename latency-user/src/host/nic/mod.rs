//! Network devices: settings, driver counters, queues and the IRQs that serve them.

pub mod directory;
pub mod ethtool;
pub mod ethtool_ioctl;
pub mod netdev;
pub mod queue_irqs;
pub mod setting;
