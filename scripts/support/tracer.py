"""Stops a process and all its threads at every system call that changes files, by ptrace (Linux, x86-64).

strace can end a process at a call, but counts them by thread; here the Nth is the Nth of the whole process.
"""
import ctypes, errno, os, platform, signal, struct

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
TRACEME, PEEK_REGISTERS, POKE_REGISTERS, SET_OPTIONS, SYSCALL = 0, 12, 13, 0x4200, 24
TRACE_SYSGOOD, TRACE_FORK, TRACE_VFORK, TRACE_CLONE, EXIT_KILL = 1, 2, 4, 8, 1 << 20
WALL = 0x40000000
# Where struct user_regs_struct has them, in words.
RDI, RAX, ORIG_RAX, WORDS = 14, 10, 15, 27

WRITES = {1: "write", 18: "pwrite64", 20: "writev", 296: "pwritev"}
OTHERS = {74: "fsync", 75: "fdatasync", 77: "ftruncate", 82: "rename", 264: "renameat", 316: "renameat2", 86: "link",
          265: "linkat", 87: "unlink", 263: "unlinkat", 83: "mkdir", 258: "mkdirat"}


def ptrace(request, pid, address=0, data=0):
    if libc.ptrace(request, pid, address, data) == -1:
        raise OSError(ctypes.get_errno(), f"ptrace {request}")


def registers(pid):
    buffer = (ctypes.c_ulonglong * WORDS)()
    ptrace(PEEK_REGISTERS, pid, 0, ctypes.cast(buffer, ctypes.c_void_p))
    return buffer


def run(command, below, at, error=None, stderr=None, started=lambda pid: None):
    """Runs `command`; its calls that change files below `below` are counted.

    At the `at`th it is killed before the call, or, with `error` (an errno), the call does nothing and returns that. Answers the names of the
    calls seen and the status of `waitpid`.
    """
    assert platform.machine() == "x86_64", "system calls have other numbers here"
    child = os.fork()
    if child == 0:
        try:
            if stderr is not None:
                os.dup2(stderr.fileno(), 2)
            ptrace(TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            os.execv(command[0], command)
        finally:
            os._exit(127)
    os.waitpid(child, 0)
    ptrace(SET_OPTIONS, child, 0, TRACE_SYSGOOD | TRACE_FORK | TRACE_VFORK | TRACE_CLONE | EXIT_KILL)
    ptrace(SYSCALL, child)
    started(child)
    seen, inside, spoilt = [], set(), set()
    while True:
        try:
            pid, status = os.waitpid(-1, WALL)
        except ChildProcessError:
            return seen, None
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            if pid == child:
                return seen, status
            continue
        stop, deliver = os.WSTOPSIG(status), 0
        try:
            if stop == signal.SIGTRAP | 0x80:
                if pid in inside:
                    inside.discard(pid)
                    if pid in spoilt:
                        spoilt.discard(pid)
                        values = registers(pid)
                        values[RAX] = (-error) % (1 << 64)
                        ptrace(POKE_REGISTERS, pid, 0, ctypes.cast(values, ctypes.c_void_p))
                else:
                    inside.add(pid)
                    values = registers(pid)
                    name = changes(child, values, below)
                    if name:
                        seen.append(name)
                        if len(seen) == at and error is None:
                            os.kill(child, signal.SIGKILL)
                            continue
                        if len(seen) == at:
                            # No such call: the kernel does nothing, and at the way out its word is replaced.
                            values[ORIG_RAX] = (1 << 64) - 1
                            ptrace(POKE_REGISTERS, pid, 0, ctypes.cast(values, ctypes.c_void_p))
                            spoilt.add(pid)
            elif stop not in (signal.SIGTRAP, signal.SIGSTOP):
                deliver = stop
            ptrace(SYSCALL, pid, 0, deliver)
        except OSError as problem:
            # It was killed in the meantime.
            if problem.errno != errno.ESRCH:
                raise


def changes(child, values, below):
    """The name of the call, where it changes a file below `below`."""
    call = values[ORIG_RAX]
    if call in OTHERS:
        return OTHERS[call]
    if call in WRITES:
        try:
            if os.readlink(f"/proc/{child}/fd/{values[RDI]}").startswith(below):
                return WRITES[call]
        except OSError:
            pass
    return None
