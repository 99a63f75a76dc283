//! A pipe that the pumps move octets through, from socket to socket, without their entering user space.

use std::io;

/// Octets that a pipe is made for.
pub const CHUNK: usize = 256 * 1024;

/// A pipe, its end to read from first.
pub struct Pipe(pub [i32; 2]);

impl Pipe {
    /// A pipe whose ends do not wait.
    ///
    /// # Errors
    /// The kernel gives none.
    pub fn new() -> io::Result<Self> {
        let mut pipe = [0; 2];
        // SAFETY: the kernel writes two descriptors into the array that outlives the call.
        if unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: plain descriptor and number; a refusal leaves the default size.
        unsafe { libc::fcntl(pipe[0], libc::F_SETPIPE_SZ, CHUNK as i32) };
        Ok(Self(pipe))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // SAFETY: the descriptors are this value's own and closed once.
        unsafe {
            libc::close(self.0[0]);
            libc::close(self.0[1]);
        }
    }
}

/// Moves up to so many octets between a pipe and a socket; 0: nothing more will come.
///
/// # Errors
/// The kernel's; `WouldBlock`: nothing is there, or there is no room.
pub fn splice(from: i32, to: i32, octets: usize) -> io::Result<usize> {
    // SAFETY: no memory is passed, only descriptors that the caller owns.
    let moved = unsafe {
        libc::splice(from, std::ptr::null_mut(), to, std::ptr::null_mut(), octets, libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE)
    };
    if moved < 0 { Err(io::Error::last_os_error()) } else { Ok(moved as usize) }
}
