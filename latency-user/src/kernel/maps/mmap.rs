//! Map values mapped into this process's memory: read without a system call.

use std::{
    marker::PhantomData,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd},
    slice,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, ensure};
use aya::maps::{Map, MapData};
use latency_common::{cpu_state::CpuState, row::HistogramRow, slot::SlotInfo};
use memmap2::{Mmap, MmapOptions};

/// Marks types that consist of integers only: any bytes are valid, and none is padding.
///
/// # Safety
///
/// The type must be `repr(C)`, consist of integers and arrays of them, have no padding, and its
/// size must be a multiple of 8 bytes.
pub unsafe trait Words: Copy {}

// SAFETY: `repr(C)`, eight u64 and an even number of u32, no padding (its size is asserted).
unsafe impl Words for HistogramRow {}
// SAFETY: `repr(C)`, u64 and pairs of u32, no padding (their sizes are asserted).
unsafe impl Words for CpuState {}

// SAFETY: `repr(C)`, eight u32 and 16 bytes, no padding (its size is asserted).
unsafe impl Words for SlotInfo {}
// SAFETY: an integer.
unsafe impl Words for u64 {}

/// An array map created with `BPF_F_MMAPABLE`, mapped read-only.
pub struct MmapArray<T> {
    memory: Mmap,
    length: usize,
    _map: MapData,
    _value: PhantomData<T>,
}

impl<T: Words> MmapArray<T> {
    /// Maps all `length` values of `map`.
    ///
    /// # Errors
    ///
    /// When `map` is not an array, or the kernel refuses.
    pub fn new(map: Map, length: u32) -> Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let Map::Array(map) = map else { anyhow::bail!("not an array map") };
        let length = length as usize;
        // SAFETY: the memory belongs to the map; the kernel side changes it, so it is read with
        // atomic loads only, below.
        let memory = unsafe {
            MmapOptions::new().len(length * size_of::<T>()).map(map.fd().as_fd().as_raw_fd())
        }
        .context("map an array's values into memory")?;
        ensure!(memory.as_ptr().cast::<AtomicU64>().is_aligned(), "map values are not aligned");
        Ok(Self { memory, length, _map: map, _value: PhantomData })
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The words of value `index`, which the kernel side keeps changing.
    pub fn words(&self, index: usize) -> &[AtomicU64] {
        assert!(index < self.length, "{index} of {}", self.length);
        let words = size_of::<T>() / 8;
        // SAFETY: inside the mapping and aligned, both checked; the kernel side writes whole words.
        unsafe {
            let first = self.memory.as_ptr().cast::<AtomicU64>().add(index * words);
            slice::from_raw_parts(first, words)
        }
    }

    /// Word `word` of value `index`: cheaper than a copy.
    pub fn word(&self, index: usize, word: usize) -> u64 {
        self.words(index)[word].load(Ordering::Relaxed)
    }

    /// A copy of value `index`. Words are read one after another, so they may not be consistent.
    pub fn copy(&self, index: usize) -> T {
        let mut value = MaybeUninit::<T>::uninit();
        for (word, bits) in self.words(index).iter().enumerate() {
            let bits = bits.load(Ordering::Relaxed);
            // SAFETY: `value` has space for size_of::<T>() / 8 words; unaligned since `T` may be
            // aligned to 4 only.
            unsafe { value.as_mut_ptr().cast::<u64>().add(word).write_unaligned(bits) };
        }
        // SAFETY: every byte is written, and any bytes are a `T`: see `Words`.
        unsafe { value.assume_init() }
    }
}
