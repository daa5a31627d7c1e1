//! Settings of a network interface that `ethtool` can change, read and written over netlink.
//!
//! Owns the requests that write. Values are validated elsewhere.

use std::{ffi::CString, io};

use netlink_bindings::{ethtool::Request, traits::NetlinkRequest};
use serde::{Deserialize, Serialize};

use super::{
    directory::Answer,
    ethtool::{EthtoolDirectory, Numbered},
};

/// Commands of `linux/ethtool_netlink.h`.
const FEATURES_SET: u8 = 12;
const RINGS_SET: u8 = 16;
const CHANNELS_SET: u8 = 18;
const COALESCE_SET: u8 = 20;

/// `ETHTOOL_FLAG_OMIT_REPLY`: the effective value is read back anyway, as for every setting.
const OMIT_REPLY: u32 = 1 << 1;

/// A setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NicSetting {
    /// The offload with this name in the kernel, such as `rx-gro`.
    Offload(String),
    /// The size of a ring.
    Ring(Ring),
    /// The number of queues.
    Channels(Queues),
    /// When an interrupt is raised.
    Coalesce(Coalesce),
}

/// Rings by direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ring {
    /// Receiving.
    Rx,
    /// Sending.
    Tx,
}

/// Queues by direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Queues {
    /// Receiving only.
    Rx,
    /// Sending only.
    Tx,
    /// Both.
    Combined,
}

/// Parts of interrupt coalescing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coalesce {
    /// Longest delay of the interrupt after a received packet, us.
    RxUsecs,
    /// Received packets after which the interrupt is raised at once.
    RxFrames,
    /// Longest delay of the interrupt after a sent packet, us.
    TxUsecs,
    /// Sent packets after which the interrupt is raised at once.
    TxFrames,
    /// Whether the driver adapts the receiving side to the load.
    AdaptiveRx,
    /// Whether the driver adapts the sending side to the load.
    AdaptiveTx,
}

/// The current state of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingState {
    /// A number, and the driver's maximum.
    Number {
        /// The current value.
        now: u32,
        /// The maximum; `None`: the driver does not report it.
        most: Option<u32>,
    },
    /// A switch.
    Switch {
        /// Whether it is on.
        on: bool,
        /// Whether it was requested. Another setting may prevent it.
        wanted: bool,
    },
}

/// A value to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// For a number.
    Number(u32),
    /// For a switch.
    Switch(bool),
}

impl EthtoolDirectory {
    /// Reads a setting of the interface with this index.
    ///
    /// # Errors
    ///
    /// When the kernel does not report it, or the driver has no such setting.
    pub fn read(&mut self, index: u32, setting: &NicSetting) -> Answer<SettingState> {
        let number = |now: Option<u32>, most| now.map(|now| SettingState::Number { now, most });
        let state = match setting {
            NicSetting::Offload(name) => {
                let features = self.features(index)?;
                let on = features.active.contains(name);
                // A fixed offload cannot be requested otherwise.
                let is_fixed = !features.changeable.contains(name);
                let wanted = if is_fixed { on } else { features.wanted.contains(name) };
                features.known.contains(name).then_some(SettingState::Switch { on, wanted })
            }
            NicSetting::Ring(ring) => {
                let rings = self.rings(index)?;
                match ring {
                    Ring::Rx => number(rings.rx, rings.rx_max),
                    Ring::Tx => number(rings.tx, rings.tx_max),
                }
            }
            NicSetting::Channels(queues) => {
                let channels = self.channels(index)?;
                match queues {
                    Queues::Rx => number(channels.rx, channels.rx_max),
                    Queues::Tx => number(channels.tx, channels.tx_max),
                    Queues::Combined => number(channels.combined, channels.combined_max),
                }
            }
            NicSetting::Coalesce(part) => {
                let coalescing = self.coalescing(index)?;
                let switch =
                    |on: Option<bool>| on.map(|on| SettingState::Switch { on, wanted: on });
                match part {
                    Coalesce::RxUsecs => number(coalescing.rx_usecs, None),
                    Coalesce::RxFrames => number(coalescing.rx_frames, None),
                    Coalesce::TxUsecs => number(coalescing.tx_usecs, None),
                    Coalesce::TxFrames => number(coalescing.tx_frames, None),
                    Coalesce::AdaptiveRx => switch(coalescing.adaptive_rx),
                    Coalesce::AdaptiveTx => switch(coalescing.adaptive_tx),
                }
            }
        };
        state.ok_or_else(|| "the driver has no such setting".into())
    }

    /// Writes a setting of the interface with this index. Read it back to see whether it took
    /// effect.
    ///
    /// # Errors
    ///
    /// When the kernel or the driver refuses it, with their message; when the value is not of the
    /// setting's kind.
    pub fn write(&mut self, index: u32, setting: &NicSetting, value: Value) -> Answer<()> {
        match (setting, value) {
            (NicSetting::Offload(name), Value::Switch(on)) => self.set_offload(index, name, on),
            (NicSetting::Ring(ring), Value::Number(size)) => self.set_ring(index, *ring, size),
            (NicSetting::Channels(queues), Value::Number(count)) => {
                self.set_channels(index, *queues, count)
            }
            (NicSetting::Coalesce(part), value) => self.set_coalesce(index, *part, value),
            _ => Err(not_of_its_kind(value)),
        }
    }

    fn set_offload(&mut self, index: u32, name: &str, on: bool) -> Answer<()> {
        let name = CString::new(name).map_err(|error| error.to_string())?;
        let mut request = Request::new().op_features_set_do();
        let header = request.encode().nested_header();
        let wanted = header.push_dev_index(index).push_flags(OMIT_REPLY).end_nested();
        // Only named bits are changed; a bit without a value is switched off.
        let bit = wanted.nested_wanted().nested_bits().nested_bit().push_name(&name);
        match on {
            true => drop(bit.push_value(())),
            false => drop(bit),
        }
        self.send("features-set", FEATURES_SET, request)
    }

    fn set_ring(&mut self, index: u32, ring: Ring, size: u32) -> Answer<()> {
        let mut request = Request::new().op_rings_set_do();
        let rings = request.encode().nested_header().push_dev_index(index).end_nested();
        match ring {
            Ring::Rx => rings.push_rx(size),
            Ring::Tx => rings.push_tx(size),
        };
        self.send("rings-set", RINGS_SET, request)
    }

    fn set_channels(&mut self, index: u32, queues: Queues, count: u32) -> Answer<()> {
        let mut request = Request::new().op_channels_set_do();
        let channels = request.encode().nested_header().push_dev_index(index).end_nested();
        match queues {
            Queues::Rx => channels.push_rx_count(count),
            Queues::Tx => channels.push_tx_count(count),
            Queues::Combined => channels.push_combined_count(count),
        };
        self.send("channels-set", CHANNELS_SET, request)
    }

    fn set_coalesce(&mut self, index: u32, part: Coalesce, value: Value) -> Answer<()> {
        let mut request = Request::new().op_coalesce_set_do();
        let parts = request.encode().nested_header().push_dev_index(index).end_nested();
        match (part, value) {
            (Coalesce::RxUsecs, Value::Number(usecs)) => parts.push_rx_usecs(usecs),
            (Coalesce::RxFrames, Value::Number(frames)) => parts.push_rx_max_frames(frames),
            (Coalesce::TxUsecs, Value::Number(usecs)) => parts.push_tx_usecs(usecs),
            (Coalesce::TxFrames, Value::Number(frames)) => parts.push_tx_max_frames(frames),
            (Coalesce::AdaptiveRx, Value::Switch(on)) => parts.push_use_adaptive_rx(on.into()),
            (Coalesce::AdaptiveTx, Value::Switch(on)) => parts.push_use_adaptive_tx(on.into()),
            _ => return Err(not_of_its_kind(value)),
        };
        self.send("coalesce-set", COALESCE_SET, request)
    }

    /// Sends a request that is only acknowledged.
    fn send<R: NetlinkRequest>(&mut self, what: &str, command: u8, request: R) -> Answer<()> {
        let request = Numbered::new(request, command);
        let mut reply =
            self.socket.request(&request).map_err(|error| format!("{what}: {error}"))?;
        reply.recv_ack().map_err(|error| {
            let missing = match error.as_io_error().raw_os_error() {
                Some(libc::EPERM) => " (CAP_NET_ADMIN)",
                _ => "",
            };
            // The driver's message says more than the errno.
            match error.ext_ack().and_then(|ack| ack.get_msg().ok()) {
                Some(message) => format!("{what}: {}", message.to_string_lossy()),
                None => format!("{what}: {}{missing}", error.as_io_error()),
            }
        })
    }
}

fn not_of_its_kind(value: Value) -> String {
    match value {
        Value::Number(number) => format!("it is a switch, not a number such as {number}"),
        Value::Switch(_) => "it is a number, not a switch".into(),
    }
}

/// Whether there is an interface with this index in the network namespace of this thread.
pub fn exists(index: u32) -> bool {
    let mut name: [libc::c_char; libc::IF_NAMESIZE] = [0; libc::IF_NAMESIZE];
    // SAFETY: the buffer has `IF_NAMESIZE` bytes, the most that the call writes.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr()) };
    // Only `ENXIO` means that there is no such interface; other errors say nothing about it.
    !found.is_null() || io::Error::last_os_error().raw_os_error() != Some(libc::ENXIO)
}

#[cfg(test)]
mod tests {
    use super::{super::ethtool::index_of, *};

    #[test]
    fn loopback_has_a_switch_for_gro_and_no_rings() {
        let index = index_of("lo");
        let mut directory = EthtoolDirectory::new();
        let gro = directory.read(index, &NicSetting::Offload("rx-gro".into()));
        assert!(matches!(gro, Ok(SettingState::Switch { .. })), "{gro:?}");
        assert!(directory.read(index, &NicSetting::Offload("rx-magic".into())).is_err());
        assert!(directory.read(index, &NicSetting::Ring(Ring::Rx)).is_err());
        assert!(exists(index) && !exists(u32::MAX >> 1));
    }

    #[test]
    fn refusals_carry_the_message_of_the_kernel() {
        let mut directory = EthtoolDirectory::new();
        let gone = u32::MAX >> 1;
        let rings = directory.write(gone, &NicSetting::Ring(Ring::Rx), Value::Number(1));
        let message = rings.unwrap_err();
        assert!(message.starts_with("rings-set: "), "{message}");
        let kind = directory.write(gone, &NicSetting::Ring(Ring::Rx), Value::Switch(true));
        assert_eq!(kind.unwrap_err(), "it is a number, not a switch");
    }

    #[test]
    fn settings_read_back_from_a_journal() {
        let setting = NicSetting::Coalesce(Coalesce::RxUsecs);
        let text = serde_json::to_string(&setting).unwrap();
        assert_eq!(text, r#"{"coalesce":"rx_usecs"}"#);
        assert_eq!(serde_json::from_str::<NicSetting>(&text).unwrap(), setting);
    }
}
