//! The `netdev` family of generic netlink: RX queues and NAPI instances of an interface.
//!
//! Owns the requests. Instances are identified elsewhere.

use std::{collections::BTreeMap, io};

use netlink_bindings::netdev::{QstatsScope, QueueType, Request};
use netlink_socket2::NetlinkSocket;
use thiserror::Error;

/// An RX queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxQueue {
    /// Its number on the interface.
    pub queue: u32,
    /// The NAPI instance that polls it; `None` when the driver does not report it.
    pub napi_id: Option<u32>,
}

/// A NAPI instance that has an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NapiInstance {
    /// The kernel's id of it.
    pub id: u32,
    /// The hard IRQ that schedules it; `None` when the driver does not report it.
    pub irq: Option<u32>,
}

/// Why a directory has no answer.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// The kernel has no such request.
    #[error(
        "this kernel has no netdev netlink request {request} (needs Linux 6.8): \
         queues cannot be looked up by NAPI id"
    )]
    Unsupported {
        /// Name of the request.
        request: &'static str,
    },
    /// The request was refused, or its answer could not be received. Also for an interface that is
    /// gone: `netlink-socket2` 0.3.5 cannot decode the errno that ends a dump, and reports that the
    /// packet is too short.
    #[error("netdev netlink request {request} for interface index {ifindex}")]
    Request {
        /// Name of the request.
        request: &'static str,
        /// The interface that was asked for.
        ifindex: u32,
        /// The error of the kernel or the socket.
        source: io::Error,
    },
}

/// Lists the queues and NAPI instances of an interface.
pub trait NapiDirectory {
    /// RX queues in use, in unspecified order. None while the interface is down.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Unsupported`] for every interface or for none.
    fn queues(&mut self, ifindex: u32) -> Result<Vec<RxQueue>, DirectoryError>;

    /// NAPI instances that have an id, in unspecified order. None while the interface is down.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Unsupported`] for every interface or for none.
    fn instances(&mut self, ifindex: u32) -> Result<Vec<NapiInstance>, DirectoryError>;
}

/// Packets that each RX queue of an interface received, as its driver reports them to the kernel.
///
/// # Errors
///
/// When the kernel (before Linux 6.10) or the driver does not report them.
pub fn queue_packets(ifindex: u32) -> Result<BTreeMap<u32, u64>, DirectoryError> {
    let failed = |error| explain("qstats-get", ifindex, error);
    let mut request = Request::new().op_qstats_get_dump();
    request.encode().push_ifindex(ifindex).push_scope(QstatsScope::Queue as u32);
    let mut socket = NetlinkSocket::new();
    let mut reply = socket.request(&request).map_err(failed)?;
    let mut packets = BTreeMap::new();
    while let Some(queue) = reply.recv() {
        let queue = queue.map_err(|error| failed(error.into()))?;
        let is_rx = queue.get_queue_type().is_ok_and(|kind| kind == QueueType::Rx as u32);
        if let (true, Ok(id), Ok(count)) = (is_rx, queue.get_queue_id(), queue.get_rx_packets()) {
            packets.insert(id, count.into());
        }
    }
    Ok(packets)
}

/// The live kernel, for the network namespace of the thread that sends the first request.
pub struct NetlinkDirectory {
    socket: NetlinkSocket,
}

impl NetlinkDirectory {
    /// Does not open the socket: the first request does.
    pub fn new() -> Self {
        Self { socket: NetlinkSocket::new() }
    }
}

impl Default for NetlinkDirectory {
    fn default() -> Self {
        Self::new()
    }
}

impl NapiDirectory for NetlinkDirectory {
    fn queues(&mut self, ifindex: u32) -> Result<Vec<RxQueue>, DirectoryError> {
        let failed = |error| explain("queue-get", ifindex, error);
        let mut request = Request::new().op_queue_get_dump();
        request.encode().push_ifindex(ifindex);
        let mut reply = self.socket.request(&request).map_err(failed)?;
        let mut queues = Vec::new();
        while let Some(queue) = reply.recv() {
            let queue = queue.map_err(|error| failed(error.into()))?;
            let kind = queue.get_type().map_err(|error| failed(error.into()))?;
            if kind == QueueType::Rx as u32 {
                queues.push(RxQueue {
                    queue: queue.get_id().map_err(|error| failed(error.into()))?,
                    napi_id: queue.get_napi_id().ok(),
                });
            }
        }
        Ok(queues)
    }

    fn instances(&mut self, ifindex: u32) -> Result<Vec<NapiInstance>, DirectoryError> {
        let failed = |error| explain("napi-get", ifindex, error);
        let mut request = Request::new().op_napi_get_dump();
        request.encode().push_ifindex(ifindex);
        let mut reply = self.socket.request(&request).map_err(failed)?;
        let mut instances = Vec::new();
        while let Some(instance) = reply.recv() {
            let instance = instance.map_err(|error| failed(error.into()))?;
            instances.push(NapiInstance {
                id: instance.get_id().map_err(|error| failed(error.into()))?,
                irq: instance.get_irq().ok(),
            });
        }
        Ok(instances)
    }
}

/// The family exists since Linux 6.3 (before: `ENOENT`), these requests since 6.8 (`EOPNOTSUPP`).
fn explain(request: &'static str, ifindex: u32, source: io::Error) -> DirectoryError {
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::EOPNOTSUPP) => DirectoryError::Unsupported { request },
        _ => DirectoryError::Request { request, ifindex, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_the_request_differs_from_a_refusal() {
        for (errno, unsupported) in [
            (libc::ENOENT, true),
            (libc::EOPNOTSUPP, true),
            (libc::EPERM, false),
            (libc::ENODEV, false),
        ] {
            let error = explain("queue-get", 4, io::Error::from_raw_os_error(errno));
            assert_eq!(
                matches!(error, DirectoryError::Unsupported { .. }),
                unsupported,
                "errno {errno}"
            );
            assert!(error.to_string().contains("queue-get"), "{error}");
        }
    }
}
