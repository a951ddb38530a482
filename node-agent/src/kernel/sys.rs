//! Commands of bpf(2), and the few other system calls, that no crate in use wraps.
#![expect(unsafe_code, reason = "raw system calls")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya_obj::generated::{bpf_attach_type, bpf_cmd};

/// What a link is attached to, as `struct bpf_link_info` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LinkInfo {
    pub(super) program_id: u32,
    /// First eight bytes of the part that depends on the kind of link: a cgroup's id, or an interface index in the
    /// lower and an attach type in the upper half. The interface index or cgroup id of a dead link is 0.
    detail: u64,
}

impl LinkInfo {
    /// Of a tcx link; 0 where the interface is gone.
    pub(super) fn ifindex(self) -> u32 {
        // `struct { __u32 ifindex; __u32 attach_type; } tcx`
        let bytes = self.detail.to_ne_bytes();
        u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    /// Of a cgroup link; 0 where the cgroup is gone.
    pub(super) fn cgroup_id(self) -> u64 {
        self.detail
    }
}

/// What `BPF_PROG_TEST_RUN` gave back.
#[derive(Debug)]
pub(super) struct TestRunAnswer {
    pub(super) return_value: u32,
    /// Bytes of the output buffer that were filled.
    pub(super) filled: usize,
    pub(super) nanos_per_run: u32,
}

/// Sizes of one map's keys and values, for the calls below.
#[derive(Debug, Clone, Copy)]
pub(super) struct Widths {
    pub(super) key: usize,
    /// What a look-up writes: for a per-CPU map, the values of all CPUs.
    pub(super) value: usize,
}

/// Where a batch look-up stands: opaque bytes, at least as long as a key.
#[derive(Debug, Clone)]
pub(super) struct Cursor(Vec<u8>);

impl Cursor {
    pub(super) fn new(widths: Widths) -> Self {
        // Hash tables keep a `u32`, everything else a key.
        Self(vec![0; widths.key.max(8)])
    }
}

pub(super) fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjAttr {
        pathname: path.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    // SAFETY: `pathname` is a NUL-terminated string that outlives the call.
    let fd = unsafe { bpf(bpf_cmd::BPF_OBJ_GET, &mut attr) }?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn obj_pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjAttr {
        pathname: path.as_ptr() as u64,
        bpf_fd: number(fd),
        file_flags: 0,
    };
    // SAFETY: `pathname` is a NUL-terminated string that outlives the call.
    unsafe { bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr) }.map(drop)
}

/// `target` is an interface index for tcx and a descriptor of the cgroup's directory for cgroup programs.
pub(super) fn link_create(
    program: BorrowedFd<'_>,
    target: u32,
    kind: bpf_attach_type,
) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr {
        prog_fd: number(program),
        target,
        attach_type: kind as u32,
        flags: 0,
        detail: [0; 2],
    };
    // SAFETY: the attributes hold no pointer.
    let fd = unsafe { bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr) }?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Replaces the link's program in one step.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = [number(link), number(program), 0, 0];
    // SAFETY: the attributes hold no pointer.
    unsafe { bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr) }.map(drop)
}

/// Detaches at once; closing the last descriptor would do so some time later.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = [number(link)];
    // SAFETY: the attributes hold no pointer.
    unsafe { bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr) }.map(drop)
}

pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    // `struct bpf_link_info`: type, id, prog_id, four bytes of padding, then the detail.
    let mut info = [0u64; 16];
    let mut attr = InfoAttr {
        bpf_fd: number(link),
        info_len: size_of_val(&info) as u32,
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: `info` points at `info_len` writable bytes.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    let ids = info[1].to_ne_bytes();
    Ok(LinkInfo {
        program_id: u32::from_ne_bytes([ids[0], ids[1], ids[2], ids[3]]),
        detail: info[2],
    })
}

pub(super) fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = [id, 0, 0];
    // SAFETY: the attributes hold no pointer.
    let fd = unsafe { bpf(bpf_cmd::BPF_PROG_GET_FD_BY_ID, &mut attr) }?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Asks which programs are attached, and throws the answer away: what counts is whether the kernel knows the kind.
pub(super) fn query_kind(ifindex: u32, kind: bpf_attach_type) -> io::Result<()> {
    let mut attr = QueryAttr {
        target: ifindex,
        attach_type: kind as u32,
        ..QueryAttr::default()
    };
    // SAFETY: the pointers are null and the counts zero, so nothing is written through them.
    unsafe { bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr) }.map(drop)
}

/// Runs a program on a packet. `context` is the head of a `struct __sk_buff`.
pub(super) fn prog_test_run(
    program: BorrowedFd<'_>,
    packet: &[u8],
    output: &mut [u8],
    context: &[u8],
    repeat: u32,
) -> io::Result<TestRunAnswer> {
    let mut attr = TestRunAttr {
        prog_fd: number(program),
        data_size_in: length(packet)?,
        data_size_out: length(output)?,
        data_in: packet.as_ptr() as u64,
        data_out: output.as_mut_ptr() as u64,
        repeat,
        ctx_size_in: length(context)?,
        ctx_in: context.as_ptr() as u64,
        ..TestRunAttr::default()
    };
    // SAFETY: every pointer is to a slice that outlives the call, and its length stands beside it.
    unsafe { bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr) }?;
    Ok(TestRunAnswer {
        return_value: attr.retval,
        filled: attr.data_size_out as usize,
        nanos_per_run: attr.duration,
    })
}

/// Fills `value`; `ENOENT` where the key is absent.
pub(super) fn lookup(map: BorrowedFd<'_>, widths: Widths, key: &[u8], value: &mut [u8]) -> io::Result<()> {
    check(key.len() == widths.key && value.len() == widths.value)?;
    let mut attr = ElementAttr::new(map, key, value.as_mut_ptr() as u64, 0);
    // SAFETY: key and value have the sizes that the map has, as checked.
    unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr) }.map(drop)
}

pub(super) fn update(
    map: BorrowedFd<'_>,
    widths: Widths,
    key: &[u8],
    value: &[u8],
    flags: u64,
) -> io::Result<()> {
    check(key.len() == widths.key && value.len() == widths.value)?;
    let mut attr = ElementAttr::new(map, key, value.as_ptr() as u64, flags);
    // SAFETY: key and value have the sizes that the map has, as checked; an update only reads them.
    unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr) }.map(drop)
}

pub(super) fn delete(map: BorrowedFd<'_>, widths: Widths, key: &[u8]) -> io::Result<()> {
    check(key.len() == widths.key)?;
    let mut attr = ElementAttr::new(map, key, 0, 0);
    // SAFETY: the key has the size that the map's keys have, as checked.
    unsafe { bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut attr) }.map(drop)
}

/// Fills `next` with the key that follows `key`, or with the first; `ENOENT` after the last.
pub(super) fn next_key(
    map: BorrowedFd<'_>,
    widths: Widths,
    key: Option<&[u8]>,
    next: &mut [u8],
) -> io::Result<()> {
    check(key.is_none_or(|key| key.len() == widths.key) && next.len() == widths.key)?;
    let mut attr = ElementAttr::new(map, key.unwrap_or_default(), next.as_mut_ptr() as u64, 0);
    if key.is_none() {
        attr.key = 0;
    }
    // SAFETY: both keys have the size that the map's keys have, as checked; a null key asks for the first.
    unsafe { bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attr) }.map(drop)
}

/// Fills keys and values from where the cursor stands, moves it, and says how many there were and whether these
/// were the last.
pub(super) fn lookup_batch(
    map: BorrowedFd<'_>,
    widths: Widths,
    cursor: &mut Option<Cursor>,
    keys: &mut [u8],
    values: &mut [u8],
) -> io::Result<(usize, bool)> {
    let count = pairs(widths, keys, values)?;
    let mut next = Cursor::new(widths);
    let mut attr = BatchAttr {
        in_batch: cursor.as_ref().map_or(0, |cursor| cursor.0.as_ptr() as u64),
        out_batch: next.0.as_mut_ptr() as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count,
        map_fd: number(map),
        ..BatchAttr::default()
    };
    // SAFETY: keys and values have room for `count` of the map's keys and values, as checked, and a cursor has room
    // for the longer of a key and a `u32`.
    let last = match unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) } {
        Ok(_) => false,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
        Err(error) => return Err(error),
    };
    *cursor = Some(next);
    Ok((attr.count as usize, last))
}

pub(super) fn update_batch(
    map: BorrowedFd<'_>,
    widths: Widths,
    keys: &[u8],
    values: &[u8],
) -> io::Result<()> {
    let mut attr = BatchAttr {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: pairs(widths, keys, values)?,
        map_fd: number(map),
        ..BatchAttr::default()
    };
    // SAFETY: there are `count` keys and values of the map's sizes, as checked; an update only reads them.
    unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attr) }.map(drop)
}

pub(super) fn delete_batch(map: BorrowedFd<'_>, widths: Widths, keys: &[u8]) -> io::Result<()> {
    check(keys.len().is_multiple_of(widths.key))?;
    let mut attr = BatchAttr {
        keys: keys.as_ptr() as u64,
        count: (keys.len() / widths.key) as u32,
        map_fd: number(map),
        ..BatchAttr::default()
    };
    // SAFETY: there are `count` keys of the map's size, as checked.
    unsafe { bpf(bpf_cmd::BPF_MAP_DELETE_BATCH, &mut attr) }.map(drop)
}

/// `SO_NETNS_COOKIE` (5.14) of this thread's network namespace.
pub(super) fn netns_cookie() -> io::Result<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    // SAFETY: plain arguments.
    let socket = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `cookie`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Returns when every program that was running at the call has returned (a grace period of RCU).
pub(super) fn wait_for_running_programs() -> io::Result<()> {
    // SAFETY: the call takes no pointer. MEMBARRIER_CMD_GLOBAL is `synchronize_rcu` in the kernel.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[repr(C)]
struct ObjAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

#[repr(C)]
struct LinkCreateAttr {
    prog_fd: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    /// Of tcx: no relative program, no expected revision.
    detail: [u64; 2],
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct TestRunAttr {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
}

#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl ElementAttr {
    fn new(map: BorrowedFd<'_>, key: &[u8], value: u64, flags: u64) -> Self {
        Self {
            map_fd: number(map),
            padding: 0,
            key: key.as_ptr() as u64,
            value,
            flags,
        }
    }
}

#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// How many keys and values there are.
fn pairs(widths: Widths, keys: &[u8], values: &[u8]) -> io::Result<u32> {
    let count = keys.len() / widths.key;
    check(keys.len() == count * widths.key && values.len() == count * widths.value)?;
    u32::try_from(count).map_err(io::Error::other)
}

fn check(holds: bool) -> io::Result<()> {
    if holds {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a buffer's length does not fit the map's keys or values",
        ))
    }
}

fn length(bytes: &[u8]) -> io::Result<u32> {
    u32::try_from(bytes.len()).map_err(io::Error::other)
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// # Safety
///
/// `attr` must be the prefix of `union bpf_attr` that `cmd` reads, and what it points at must be valid for it.
unsafe fn bpf<T>(cmd: bpf_cmd, attr: &mut T) -> io::Result<RawFd> {
    // SAFETY: `attr` is a valid, initialised prefix of `union bpf_attr`; for the rest the caller vouches.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            cmd as libc::c_int,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as RawFd)
}
