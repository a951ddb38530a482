//! Many datagrams in one system call, with everything prepared beforehand.

#![expect(
    unsafe_code,
    reason = "the standard library has no such call, and nix's writes all headers anew each time, which would be measured too"
)]

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// Datagrams of the same content, to send again and again.
pub(crate) struct Outgoing {
    headers: Vec<libc::mmsghdr>,
    /// The headers point to these. Both are on the heap and stay where they are while `self` moves.
    _pieces: Vec<libc::iovec>,
    _payload: Vec<u8>,
}

/// Room for datagrams to come, whose content is not looked at.
pub(crate) struct Incoming {
    headers: Vec<libc::mmsghdr>,
    /// As above.
    _pieces: Vec<libc::iovec>,
    _room: Vec<u8>,
}

/// Of a datagram to come; what is longer is cut off.
const ROOM: usize = 2048;

impl Outgoing {
    pub(crate) fn new(count: usize, bytes: usize) -> Outgoing {
        let mut payload = vec![0; bytes];
        let base = payload.as_mut_ptr();
        let mut pieces = vec![
            libc::iovec {
                iov_base: base.cast(),
                iov_len: bytes
            };
            count
        ];
        Outgoing {
            headers: headers(&mut pieces),
            _pieces: pieces,
            _payload: payload,
        }
    }

    /// Returns how many were sent.
    pub(crate) fn send(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        let count = self.headers.len() as libc::c_uint;
        // SAFETY: `headers` holds `count` headers, each with one piece that `_pieces` and `_payload` keep
        // alive; the kernel only reads the payload, and writes the lengths into the headers.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), count, 0) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

impl Incoming {
    pub(crate) fn new(count: usize) -> Incoming {
        let mut room = vec![0; ROOM * count];
        let piece = |room: &mut [u8]| libc::iovec {
            iov_base: room.as_mut_ptr().cast(),
            iov_len: ROOM,
        };
        let mut pieces: Vec<_> = room.chunks_exact_mut(ROOM).map(piece).collect();
        Incoming {
            headers: headers(&mut pieces),
            _pieces: pieces,
            _room: room,
        }
    }

    /// Does not wait. Returns how many came.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        let count = self.headers.len() as libc::c_uint;
        let (headers, timeout) = (self.headers.as_mut_ptr(), std::ptr::null_mut());
        // SAFETY: `headers` holds `count` headers, each with one piece of `_room` that is its own and that
        // nobody reads or writes beside the kernel.
        let received =
            unsafe { libc::recvmmsg(socket.as_raw_fd(), headers, count, libc::MSG_DONTWAIT, timeout) };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }
}

/// One header for each piece, without an address: the socket is connected, or does not care.
fn headers(pieces: &mut [libc::iovec]) -> Vec<libc::mmsghdr> {
    let header = |piece: &mut libc::iovec| {
        // SAFETY: a header of zeroes is one without address, pieces and control data.
        let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        header.msg_hdr.msg_iov = piece;
        header.msg_hdr.msg_iovlen = 1;
        header
    };
    pieces.iter_mut().map(header).collect()
}
