"""A filter of system calls (seccomp): no network, no programs, no processes, no signals to others, no writing.

It is put on after the libraries are imported and before the file is opened, at every level. It is a list of what is
forbidden, not of what is allowed: numerical libraries ask for much, and the namespaces are the other half.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import struct

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x0002_0000, 0x0400_0000, 0x0800_0000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x1000_0000, 0x2000_0000, 0x4000_0000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
_CAPABILITY_VERSION_3 = 0x2008_0522
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def prctl(option: int, argument: int) -> None:
    """prctl(2) with one argument."""
    _checked(_libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0), f"prctl {option}")


def unshare(flags: int) -> None:
    """unshare(2)."""
    _checked(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    texts = [None if text is None else text.encode() for text in (source, target, kind, data)]
    _checked(_libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]), f"mount {target}")


def unmount(target: str) -> None:
    """umount2(2), lazily."""
    _checked(_libc.umount2(target.encode(), MNT_DETACH), f"unmount {target}")


def pivot_root_here() -> None:
    """Make the working directory the root, and let go of the old one."""
    number = _PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise OSError(f"pivot_root is not known on {os.uname().machine}")
    _checked(_libc.syscall(number, b".", b"."), "pivot_root")
    unmount(".")
    os.chdir("/")


def drop_capabilities() -> None:
    """Give up every capability of this thread, and the way back."""
    for number in range(64):
        if _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0) != 0:
            break
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    _checked(_libc.capset(header, bytes(24)), "capset")


def syscall(number: int, *arguments: int) -> int:
    """Any system call with integer arguments. Raises OSError."""
    result = int(_libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(a) for a in arguments)))
    if result < 0:
        _checked(result, f"system call {number}")
    return result


# name: (x86_64, aarch64); None where the architecture does not have it
_FORBIDDEN: dict[str, tuple[int | None, int | None]] = {
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "unshare": (272, 97),
    "setns": (308, 268),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "setuid": (105, 146),
    "open_by_handle_at": (304, 265),
    "personality": (135, 92),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "creat": (85, None),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "truncate": (76, 45),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
}
_MISSING = {"clone3": (435, 435), "openat2": (437, 437)}  # libraries fall back to clone and openat, which are checked
_OPEN, _OPENAT, _CLONE, _TGKILL, _PRLIMIT = (2, None), (257, 56), (56, 220), (234, 131), (302, 261)
_MACHINES = {"x86_64": (0, 0xC000_003E, 317), "aarch64": (1, 0xC000_00B7, 277)}
"""Column of the tables above, AUDIT_ARCH, number of seccomp(2)."""

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CLONE_THREAD = 0x0001_0000
_SET_MODE_FILTER, _FLAG_TSYNC = 1, 1
_ALLOW, _KILL, _ERRNO = 0x7FFF_0000, 0x8000_0000, 0x0005_0000
_EPERM, _ENOSYS = 1, 38
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH = 0, 4  # offsets in struct seccomp_data


def _argument(index: int) -> int:
    return 16 + 8 * index  # the low half


def install() -> bool:
    """Put the filter on every thread of this process; False where the machine has none. Needs no_new_privs."""
    machine = _MACHINES.get(os.uname().machine)
    if machine is None:
        return False
    column, arch, number = machine
    program = _program(column, arch, os.getpid())
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a count and, after padding, a pointer
    header = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer)), 16)
    try:
        return syscall(number, _SET_MODE_FILTER, _FLAG_TSYNC, ctypes.addressof(header)) == 0
    except OSError:
        return False


def _program(column: int, arch: int, pid: int) -> bytes:
    """The filter in classic BPF: each rule loads what it looks at, and falls through where it does not apply."""
    code: list[bytes] = [
        _op(_LOAD, _ARCH),
        _op(_EQUAL, arch, 1, 0),
        _op(_RETURN, _KILL),
        _op(_LOAD, _NUMBER),
    ]
    if column == 0:  # the x32 calls, which nothing here uses
        code += [_op(_AT_LEAST, 0x4000_0000, 0, 1), _op(_RETURN, _ERRNO | _ENOSYS)]
    for error, table in ((_EPERM, _FORBIDDEN), (_ENOSYS, _MISSING)):
        for numbers in table.values():
            if (number := numbers[column]) is not None:
                code += [_op(_EQUAL, number, 0, 1), _op(_RETURN, _ERRNO | error)]
    refuse, allow = _op(_RETURN, _ERRNO | _EPERM), _op(_RETURN, _ALLOW)
    for numbers, index in ((_OPEN, 1), (_OPENAT, 2)):
        if (number := numbers[column]) is not None:
            code += [
                _op(_EQUAL, number, 0, 4),
                _op(_LOAD, _argument(index)),
                _op(_ANY_BIT, _WRITING, 0, 1),
                refuse,
                allow,
            ]
    threads = [_op(_LOAD, _argument(0)), _op(_ANY_BIT, _CLONE_THREAD, 1, 0), refuse, allow]
    code += [_op(_EQUAL, _CLONE[column], 0, 4), *threads]
    for number, own in ((_TGKILL[column], (pid,)), (_PRLIMIT[column], (0, pid))):
        # signals and limits: for oneself alone
        checks = [_op(_EQUAL, value, len(own) - i, 0) for i, value in enumerate(own)]
        rule = [_op(_LOAD, _argument(0)), *checks, refuse, allow]
        code += [_op(_EQUAL, number, 0, len(rule)), *rule]
    return b"".join((*code, allow))


def _op(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", operation, if_true, if_false, value)
