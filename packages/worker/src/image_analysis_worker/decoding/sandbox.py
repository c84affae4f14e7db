"""Removes rights from a process that reads untrusted data; on Linux only, as far as the kernel supports it."""

import ctypes
import os
import struct
import sys

_NO_NEW_PRIVILEGES = 38
_SET_SECCOMP, _FILTER_MODE = 22, 2

# seccomp: the audit architecture of each machine, and the numbers of `socket` and `io_uring_setup`. On x86-64, numbers
# from 2**30 on belong to another architecture (x32), which is not needed here.
_SOCKET_CALLS = {"x86_64": (0xC000003E, (41, 425)), "aarch64": (0xC00000B7, (198, 425))}
_LOAD, _JUMP_EQUAL, _JUMP_FROM, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4
_ALLOW, _DENY = 0x7FFF0000, 0x00050000 | 1  # EPERM

# Landlock: all rights of its first version except reading files and folders, which lazy imports need.
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_WRITE_AND_EXECUTE = 0x1FFF & ~(1 << 2 | 1 << 3)

# SYS_PTRACE, SYS_ADMIN and PERFMON: with any of them, root can read other processes despite Landlock.
_CAPABILITIES_VERSION = 0x20080522
_SEEING = 1 << 19 | 1 << 21 | 1 << 38


def enter_sandbox() -> None:
    """Forbid this process to open sockets, write files, start programs, and read other processes.

    Call it in a process with one thread; its children inherit the limits. What the kernel does not support is skipped.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0:
        _drop_capabilities(libc)
        _restrict_files(libc)
        _deny_sockets(libc)


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    head, sets = struct.pack("=Ii", _CAPABILITIES_VERSION, 0), ctypes.create_string_buffer(24)
    if libc.capget(head, sets) == 0:
        low, high = ~_SEEING & 0xFFFFFFFF, ~_SEEING >> 32 & 0xFFFFFFFF
        kept = [word & (low if place < 3 else high) for place, word in enumerate(struct.unpack("=6I", sets.raw))]
        libc.capset(head, struct.pack("=6I", *kept))


def _restrict_files(libc: ctypes.CDLL) -> None:
    """Enter a Landlock domain without any rule; this also forbids `ptrace` and /proc/PID/environ of other processes."""
    rules = ctypes.create_string_buffer(struct.pack("=Q", _WRITE_AND_EXECUTE), 8)
    ruleset = libc.syscall(_CREATE_RULESET, rules, ctypes.c_size_t(8), 0)
    if ruleset >= 0:
        libc.syscall(_RESTRICT_SELF, ruleset, 0)
        os.close(ruleset)


def _deny_sockets(libc: ctypes.CDLL) -> None:
    if (machine := os.uname().machine) not in _SOCKET_CALLS:
        return
    architecture, calls = _SOCKET_CALLS[machine]
    checks = [(_JUMP_EQUAL, number) for number in calls] + [(_JUMP_FROM, 2**30)]
    program = [(_LOAD, 0, 0, _ARCHITECTURE_AT), (_JUMP_EQUAL, 0, len(checks) + 2, architecture)]
    program += [(_LOAD, 0, 0, _NUMBER_AT)]
    program += [(code, len(checks) - place, 0, value) for place, (code, value) in enumerate(checks)]
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _DENY)]
    steps = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    head = struct.pack("@HP", len(program), ctypes.addressof(steps))
    libc.prctl(_SET_SECCOMP, _FILTER_MODE, ctypes.c_char_p(head), 0, 0)
