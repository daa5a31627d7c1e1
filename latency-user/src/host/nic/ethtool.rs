//! The `ethtool` family of generic netlink, and queueing disciplines over route netlink, read from
//! the live kernel.
//!
//! Owns the requests that read. Requests that write are in `setting`; drivers' own counters, which
//! netlink lacks, are in `ethtool_ioctl`.

use std::{ffi::CString, io};

use netlink_bindings::{
    ethtool::{IterableBitset, IterableBitsetBit, Request},
    tc,
    traits::{NetlinkRequest, Protocol},
};
use netlink_socket2::NetlinkSocket;

use super::{
    directory::{Answer, Channels, Coalescing, Features, Nic, NicDirectory, Qdisc, Rings},
    ethtool_ioctl, netdev,
};

/// `TC_H_ROOT`: the parent of a root.
const ROOT: u32 = 0xFFFF_FFFF;

/// Commands of `linux/ethtool_netlink.h`.
const FEATURES_GET: u8 = 11;
const RINGS_GET: u8 = 15;
const CHANNELS_GET: u8 = 17;
const COALESCE_GET: u8 = 19;

/// A request with the correct command number: `netlink-bindings` 0.3.5 numbers the family's
/// commands as if replies had numbers in between, so that its `features-get` would ask for rings.
pub(super) struct Numbered<R> {
    request: R,
    payload: Vec<u8>,
}

impl<R: NetlinkRequest> Numbered<R> {
    pub(super) fn new(request: R, command: u8) -> Self {
        let mut payload = request.payload().to_vec();
        // The generic netlink header starts with the command.
        payload[0] = command;
        Self { request, payload }
    }
}

impl<R: NetlinkRequest> NetlinkRequest for Numbered<R> {
    fn protocol(&self) -> Protocol {
        self.request.protocol()
    }

    fn flags(&self) -> u16 {
        self.request.flags()
    }

    fn payload(&self) -> &[u8] {
        &self.payload
    }

    type ReplyType<'buf> = R::ReplyType<'buf>;

    fn decode_reply(buf: &[u8]) -> Self::ReplyType<'_> {
        R::decode_reply(buf)
    }
}

/// The live kernel, for the network namespace of the thread that sends the first request.
pub struct EthtoolDirectory {
    pub(super) socket: NetlinkSocket,
}

impl EthtoolDirectory {
    /// Does not open the socket: the first request does.
    pub fn new() -> Self {
        Self { socket: NetlinkSocket::new() }
    }

    /// Sends a request for one interface and reads its single answer.
    fn ask<R: NetlinkRequest, T>(
        &mut self,
        what: &str,
        (command, request): (u8, R),
        read: impl FnOnce(R::ReplyType<'_>) -> T,
    ) -> Answer<T> {
        let failed = |error: io::Error| explain(what, &error);
        let request = Numbered::new(request, command);
        let mut reply = self.socket.request(&request).map_err(failed)?;
        match reply.recv() {
            Some(Ok(answer)) => Ok(read(answer)),
            Some(Err(error)) => Err(failed(error.into())),
            None => Err(format!("netlink request {what}: no answer")),
        }
    }

    /// Sizes of the rings of the interface with this index.
    ///
    /// # Errors
    ///
    /// When the kernel does not report it, with the reason.
    pub fn rings(&mut self, index: u32) -> Answer<Rings> {
        let mut request = Request::new().op_rings_get_do();
        request.encode().nested_header().push_dev_index(index);
        self.ask("rings-get", (RINGS_GET, request), |rings| Rings {
            rx: rings.get_rx().ok(),
            rx_max: rings.get_rx_max().ok(),
            tx: rings.get_tx().ok(),
            tx_max: rings.get_tx_max().ok(),
        })
    }

    /// Numbers of its queues.
    ///
    /// # Errors
    ///
    /// As [`Self::rings`].
    pub fn channels(&mut self, index: u32) -> Answer<Channels> {
        let mut request = Request::new().op_channels_get_do();
        request.encode().nested_header().push_dev_index(index);
        self.ask("channels-get", (CHANNELS_GET, request), |channels| Channels {
            rx: channels.get_rx_count().ok(),
            rx_max: channels.get_rx_max().ok(),
            tx: channels.get_tx_count().ok(),
            tx_max: channels.get_tx_max().ok(),
            combined: channels.get_combined_count().ok(),
            combined_max: channels.get_combined_max().ok(),
        })
    }

    /// When its interrupts are raised.
    ///
    /// # Errors
    ///
    /// As [`Self::rings`].
    pub fn coalescing(&mut self, index: u32) -> Answer<Coalescing> {
        let mut request = Request::new().op_coalesce_get_do();
        request.encode().nested_header().push_dev_index(index);
        self.ask("coalesce-get", (COALESCE_GET, request), |coalescing| Coalescing {
            rx_usecs: coalescing.get_rx_usecs().ok(),
            rx_frames: coalescing.get_rx_max_frames().ok(),
            adaptive_rx: coalescing.get_use_adaptive_rx().ok().map(|on| on != 0),
            tx_usecs: coalescing.get_tx_usecs().ok(),
            tx_frames: coalescing.get_tx_max_frames().ok(),
            adaptive_tx: coalescing.get_use_adaptive_tx().ok().map(|on| on != 0),
        })
    }

    /// Its offloads.
    ///
    /// # Errors
    ///
    /// As [`Self::rings`].
    pub fn features(&mut self, index: u32) -> Answer<Features> {
        let mut request = Request::new().op_features_get_do();
        request.encode().nested_header().push_dev_index(index);
        self.ask("features-get", (FEATURES_GET, request), |features| Features {
            active: features.get_active().map(|set| names(&set)).unwrap_or_default(),
            changeable: features.get_hw().map(|set| names(&set)).unwrap_or_default(),
            wanted: features.get_wanted().map(|set| names(&set)).unwrap_or_default(),
            known: features.get_hw().map(|set| all_names(&set)).unwrap_or_default(),
        })
    }

    fn qdiscs(&mut self, index: u32) -> Answer<Vec<Qdisc>> {
        let failed = |error: io::Error| explain("getqdisc", &error);
        let mut header = tc::Tcmsg::new();
        header.ifindex = index as i32;
        let request = tc::Request::new().op_getqdisc_dump(&header);
        let mut reply = self.socket.request(&request).map_err(failed)?;
        let mut qdiscs = Vec::new();
        while let Some(answer) = reply.recv() {
            let (header, attributes) = answer.map_err(|error| failed(error.into()))?;
            // The kernel dumps the qdiscs of all interfaces, whatever the request says.
            if header.ifindex != index as i32 {
                continue;
            }
            let queue = attributes.get_stats2().and_then(|stats| stats.get_queue()).ok();
            qdiscs.push(Qdisc {
                kind: attributes
                    .get_kind()
                    .map(|kind| kind.to_string_lossy().into_owned())
                    .unwrap_or_default(),
                root: header.parent == ROOT,
                drops: queue.as_ref().map_or(0, |queue| queue.drops),
                backlog: queue.as_ref().map_or(0, |queue| queue.backlog),
            });
        }
        Ok(qdiscs)
    }
}

impl Default for EthtoolDirectory {
    fn default() -> Self {
        Self::new()
    }
}

impl NicDirectory for EthtoolDirectory {
    fn nic(&mut self, name: &str) -> Nic {
        let index = index_of(name);
        Nic {
            name: name.to_owned(),
            driver: ethtool_ioctl::driver(name),
            rings: self.rings(index),
            channels: self.channels(index),
            coalescing: self.coalescing(index),
            features: self.features(index),
            counters: ethtool_ioctl::counters(name),
            queue_packets: netdev::queue_packets(index).map_err(|error| error.to_string()),
            qdiscs: match index {
                0 => Err(format!("no interface {name}")),
                index => self.qdiscs(index),
            },
        }
    }
}

/// The index of an interface; 0: there is none of that name.
pub fn index_of(name: &str) -> u32 {
    let name = CString::new(name).unwrap_or_default();
    // SAFETY: the string is NUL-terminated.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

/// Names of the bits that are set. A set without a mask lists only these.
fn names(set: &IterableBitset<'_>) -> Vec<String> {
    let plain = set.get_nomask().is_ok();
    let Ok(bits) = set.get_bits() else { return Vec::new() };
    bits.get_bit()
        .filter(|bit| plain || bit.get_value().is_ok())
        .filter_map(|bit| bit.get_name().ok().map(|name| name.to_string_lossy().into_owned()))
        .collect()
}

/// Names of all bits of the set, whether set or not.
fn all_names(set: &IterableBitset<'_>) -> Vec<String> {
    let Ok(bits) = set.get_bits() else { return Vec::new() };
    let name = |bit: IterableBitsetBit<'_>| bit.get_name().ok().map(|n| n.to_string_lossy().into());
    bits.get_bit().filter_map(name).collect()
}

/// `EOPNOTSUPP` comes from the driver; `ENOENT` means no such family (before Linux 5.6).
fn explain(what: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => format!("the driver does not report it (netlink request {what})"),
        Some(libc::ENOENT) => format!("this kernel has no netlink request {what}"),
        _ => format!("netlink request {what}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_offloads_and_a_qdisc_but_no_rings() {
        let nic = EthtoolDirectory::new().nic("lo");
        let features = nic.features.unwrap();
        assert!(features.active.iter().any(|name| name == "rx-gro"), "{features:?}");
        assert!(nic.rings.unwrap_err().contains("the driver does not report it"));
        assert!(nic.qdiscs.is_ok());
    }

    #[test]
    fn an_interface_that_is_not_there_answers_nothing() {
        let nic = EthtoolDirectory::new().nic("no such one");
        assert!(nic.driver.is_err() && nic.features.is_err() && nic.qdiscs.is_err());
    }

    #[test]
    fn a_driver_that_does_not_report_differs_from_a_kernel_that_cannot() {
        let message = |errno| explain("rings-get", &io::Error::from_raw_os_error(errno));
        assert!(message(libc::EOPNOTSUPP).starts_with("the driver does not report it"));
        assert!(message(libc::ENOENT).starts_with("this kernel has no"));
        assert!(message(libc::EPERM).contains("os error 1"));
    }
}
