//! `SIOCETHTOOL`: what the ethtool netlink family lacks, the driver's name and its counters.

use std::{
    ffi::CStr,
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
};

use super::directory::Answer;

/// Commands and a string set of `linux/ethtool.h`.
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSTATS: u32 = 0x1d;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETH_SS_STATS: u32 = 1;

/// `SIOCETHTOOL` of `linux/sockios.h`.
const SIOCETHTOOL: libc::c_ulong = 0x8946;

/// Bytes of a counter's name.
const NAME_LENGTH: usize = 32;

/// More counters than any driver has: a larger number is a broken answer.
const MOST_COUNTERS: usize = 1 << 17;

/// Bytes of `struct ethtool_drvinfo`, in which the driver's name follows the command.
const DRIVER_INFO_LENGTH: usize = 196;

/// The name of the driver of `interface`.
///
/// # Errors
///
/// When the kernel refuses, with its error.
pub fn driver(interface: &str) -> Answer<String> {
    let mut info = vec![0_u64; DRIVER_INFO_LENGTH.div_ceil(8)];
    request(interface, ETHTOOL_GDRVINFO, &mut info).map_err(|e| explain("GDRVINFO", &e))?;
    Ok(text(&bytes(&info)[4..4 + NAME_LENGTH]))
}

/// The counters of the driver of `interface`, as `ethtool -S` shows them; empty: it has none.
///
/// # Errors
///
/// When the kernel refuses, with its error.
pub fn counters(interface: &str) -> Answer<Vec<(String, u64)>> {
    let count = count(interface).map_err(|error| explain("GSSET_INFO", &error))?;
    if count == 0 {
        return Ok(Vec::new());
    }
    // command, set, length, names
    let mut names = vec![0_u64; (12 + count * NAME_LENGTH).div_ceil(8)];
    put(&mut names, 4, ETH_SS_STATS);
    put(&mut names, 8, count as u32);
    request(interface, ETHTOOL_GSTRINGS, &mut names).map_err(|e| explain("GSTRINGS", &e))?;
    // command, length, values; one spare value for a driver that gained a counter meanwhile.
    let mut values = vec![0_u64; 2 + count];
    put(&mut values, 4, count as u32);
    request(interface, ETHTOOL_GSTATS, &mut values).map_err(|e| explain("GSTATS", &e))?;
    let names = bytes(&names);
    let name = |index: usize| text(&names[12 + index * NAME_LENGTH..][..NAME_LENGTH]);
    Ok((0..count).map(|index| (name(index), values[1 + index])).collect())
}

fn count(interface: &str) -> io::Result<usize> {
    // command, reserved, mask of sets, number of strings in each set of the mask
    let mut info = [0_u64; 3];
    put(&mut info, 8, 1 << ETH_SS_STATS);
    request(interface, ETHTOOL_GSSET_INFO, &mut info)?;
    let info = bytes(&info);
    let word = |at: usize| u32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
    // The kernel clears the bit of a set that the driver lacks.
    let count = if word(8) == 0 { 0 } else { word(16) as usize };
    if count > MOST_COUNTERS {
        return Err(io::Error::other(format!("{count} counters")));
    }
    Ok(count)
}

/// Sends `command`, written to the start of `data`, and gets `data` back.
fn request(interface: &str, command: u32, data: &mut [u64]) -> io::Result<()> {
    put(data, 0, command);
    // SAFETY: all zero is a valid request.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = ptr::from_mut(data).cast();
    // SAFETY: no memory is touched.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: the request is valid for the call, and `data` is large enough for what the command
    // returns: its callers size it by the command and the count in it.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn put(data: &mut [u64], at: usize, value: u32) {
    let word = &mut data[at / 8];
    let mut bytes = word.to_ne_bytes();
    bytes[at % 8..at % 8 + 4].copy_from_slice(&value.to_ne_bytes());
    *word = u64::from_ne_bytes(bytes);
}

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A name, up to the first NUL if there is one.
fn text(name: &[u8]) -> String {
    let name = match CStr::from_bytes_until_nul(name) {
        Ok(name) => name.to_bytes(),
        Err(_) => name,
    };
    String::from_utf8_lossy(name).trim().to_owned()
}

fn explain(what: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => format!("the driver does not report it (ETHTOOL_{what})"),
        _ => format!("ETHTOOL_{what}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_keeps_its_errno() {
        for name in ["none", "a name that is longer than any"] {
            let error = driver(name).unwrap_err();
            assert!(error.starts_with("ETHTOOL_GDRVINFO: ") && error.contains("19"), "{error}");
            assert!(counters(name).unwrap_err().contains("ETHTOOL_GSSET_INFO"));
        }
    }

    #[test]
    fn names_end_at_a_zero_or_at_their_length() {
        assert_eq!(text(b"rx_drops\0\0x"), "rx_drops");
        assert_eq!(text(b" rx_drops"), "rx_drops");
    }

    #[test]
    fn numbers_are_put_in_their_place() {
        let mut data = [0; 2];
        put(&mut data, 4, 7);
        put(&mut data, 8, 9);
        assert_eq!(bytes(&data)[4..12], [7_u32.to_ne_bytes(), 9_u32.to_ne_bytes()].concat());
    }
}
