//! One MSRP connection of this tool: a non-blocking socket, a reader, and what still has to be written.

use crate::frame::{Event, Reader};
use mio::net::TcpStream;
use std::io::{self, IoSlice, Read, Write};

pub struct Endpoint {
    pub stream: TcpStream,
    pub reader: Reader,
    out: Vec<u8>,
    at: usize,
    /// Our URI, and the To-Path of what we send.
    pub own: String,
    pub peer: String,
    pub closed: bool,
}

impl Endpoint {
    /// Takes over a connected socket.
    pub fn new(stream: std::net::TcpStream, own: String, peer: String, congestion: &str) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        tune(&socket2::SockRef::from(&stream), congestion)?;
        Ok(Self {
            stream: TcpStream::from_std(stream),
            reader: Reader::default(),
            out: Vec::new(),
            at: 0,
            own,
            peer,
            closed: false,
        })
    }

    /// Octets not yet taken by the kernel.
    pub fn pending(&self) -> usize {
        self.out.len() - self.at
    }

    /// Writes pieces now as far as the kernel takes them, and keeps the rest.
    pub fn send(&mut self, pieces: &[&[u8]]) -> io::Result<()> {
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        let mut done = 0;
        if self.pending() == 0 {
            let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            match self.stream.write_vectored(&slices) {
                Ok(written) => done = written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if done < total {
            if self.at == self.out.len() {
                self.out.clear();
                self.at = 0;
            }
            for piece in pieces {
                let skip = done.min(piece.len());
                self.out.extend_from_slice(&piece[skip..]);
                done -= skip;
            }
        }
        Ok(())
    }

    /// Writes what was kept.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.pending() > 0 {
            match self.stream.write(&self.out[self.at..]) {
                Ok(written) => self.at += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads until the kernel has no more, or `limit` octets; tells what the frames hold. Returns octets read.
    pub fn receive(&mut self, buffer: &mut [u8], limit: usize, mut tell: impl FnMut(Event<'_>)) -> Result<usize, String> {
        let mut sum = 0;
        while sum < limit {
            let room = buffer.len().min(limit - sum);
            match self.stream.read(&mut buffer[..room]) {
                Ok(0) => {
                    self.closed = true;
                    break;
                }
                Ok(read) => {
                    sum += read;
                    self.reader.receive(&buffer[..read], &mut tell)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(sum)
    }
}

/// No delay, the wanted congestion control, and a reset at close so that thousands of sockets leave no TIME_WAIT behind.
pub fn tune(socket: &socket2::SockRef<'_>, congestion: &str) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_linger(Some(std::time::Duration::ZERO))?;
    if !congestion.is_empty() {
        socket.set_tcp_congestion(congestion.as_bytes())?;
    }
    Ok(())
}
