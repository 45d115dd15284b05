//! Randomness that a seed decides: that of hash maps and of `tokio::select!`, which both ask the system for it.

use std::{cell::Cell, fs::File, io::Read as _};

thread_local! {
    /// The next number of this thread's sequence; `None` on threads that take no part in the simulation.
    static NEXT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// One step of the generator `splitmix64`.
pub(crate) fn step(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// From now on whatever this thread asks the system for follows from `seed`.
pub(crate) fn follow(seed: u64) {
    NEXT.set(Some(seed));
    fastrand::seed(seed);
}

/// Takes the place of the C library's function, which Rust's standard library asks by this name so that it can be replaced.
///
/// # Safety
///
/// `buffer` must be good for `length` bytes, as for the original.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    // SAFETY: the caller's promise, which is that of the original.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    match NEXT.get() {
        Some(mut state) => {
            for chunk in bytes.chunks_mut(8) {
                let word = step(&mut state).to_le_bytes();
                chunk.copy_from_slice(&word[..chunk.len()]);
            }
            NEXT.set(Some(state));
        }
        None => {
            if File::open("/dev/urandom").and_then(|mut file| file.read_exact(bytes)).is_err() {
                return -1;
            }
        }
    }
    isize::try_from(length).unwrap_or(-1)
}
