//! One MSRP connection of this tool: a non-blocking socket, a reader, and what still has to be written.

use crate::frame::{Event, Reader};
use mio::net::TcpStream;
use std::io::{self, IoSlice, Read, Write};

pub struct Endpoint {
    pub stream: TcpStream,
    tls: Option<Box<rustls::Connection>>,
    pub reader: Reader,
    out: Vec<u8>,
    at: usize,
    /// Our URI, and the To-Path of what we send.
    pub own: String,
    pub peer: String,
    pub closed: bool,
    /// The kernel has told that the other side will send no more: read on to that end.
    pub closing: bool,
    /// Body octets of a chunk that has not ended, where somebody keeps them.
    pub chunk: Vec<u8>,
}

impl Endpoint {
    /// Takes over a connected socket, and the TLS session on it.
    pub fn new(
        stream: std::net::TcpStream,
        tls: Option<rustls::Connection>,
        own: String,
        peer: String,
        congestion: &str,
    ) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { tls: tls.map(Box::new), ..Self::over(TcpStream::from_std(stream), own, peer, congestion)? })
    }

    /// The same over TCP, of a socket that may still be connecting.
    pub fn over(stream: TcpStream, own: String, peer: String, congestion: &str) -> io::Result<Self> {
        tune(&socket2::SockRef::from(&stream), congestion)?;
        Ok(Self {
            stream,
            tls: None,
            reader: Reader::default(),
            out: Vec::new(),
            at: 0,
            own,
            peer,
            closed: false,
            closing: false,
            chunk: Vec::new(),
        })
    }

    /// Octets not yet taken by the kernel.
    pub fn pending(&self) -> usize {
        self.out.len() - self.at + usize::from(self.tls.as_ref().is_some_and(|tls| tls.wants_write()))
    }

    /// Writes up to three pieces now as far as the kernel takes them, and keeps the rest.
    pub fn send(&mut self, pieces: &[&[u8]]) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            for piece in pieces {
                tls.writer().write_all(piece)?;
            }
            return self.flush();
        }
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        let mut done = 0;
        if self.pending() == 0 {
            let mut slices = [IoSlice::new(&[]); 3];
            let slices = &mut slices[..pieces.len()];
            slices.iter_mut().zip(pieces).for_each(|(slice, piece)| *slice = IoSlice::new(piece));
            match self.stream.write_vectored(slices) {
                Ok(written) => done = written,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {}
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
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                match tls.write_tls(&mut self.stream) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            return Ok(());
        }
        while self.pending() > 0 {
            match self.stream.write(&self.out[self.at..]) {
                Ok(written) => self.at += written,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads until a read is short, which says that the kernel has no more (epoll(7)), or `limit` octets; tells what the frames
    /// hold. Returns octets read.
    pub fn receive(&mut self, buffer: &mut [u8], limit: usize, mut tell: impl FnMut(Event<'_>)) -> Result<usize, String> {
        let mut sum = 0;
        while sum < limit {
            // What is left of the last read goes in front of this one: nothing else is copied.
            let held = self.reader.held();
            let room = buffer.len().saturating_sub(held).min(limit - sum);
            if room == 0 {
                return Err("a head that fills the buffer".into());
            }
            let read = match &mut self.tls {
                None => self.stream.read(&mut buffer[held..held + room]),
                Some(tls) => unseal(tls, &mut self.stream, &mut buffer[held..held + room]),
            };
            match read {
                Ok(0) => {
                    self.closed = true;
                    break;
                }
                Ok(read) => {
                    sum += read;
                    self.reader.restore(buffer);
                    self.reader.receive(&buffer[..held + read], &mut tell)?;
                    if read < room && self.tls.is_none() && !self.closing {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(sum)
    }
}

/// Reads plain octets: what is there already, or what the socket has.
fn unseal(tls: &mut rustls::Connection, stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match tls.reader().read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
        if tls.read_tls(stream)? == 0 {
            return Ok(0);
        }
        tls.process_new_packets().map_err(io::Error::other)?;
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
