/* SPDX-License-Identifier: MIT
 *
 * A new program without a copy of this one. The child borrows this process's memory, while the thread that made it
 * waits, until it is another program; so the cost is the same for a process of a megabyte and of a terabyte.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../plat.h"
#include "linux.h"
#include "tercio.h"

enum { clone_pidfd = 0x1000 };
enum { stack_bytes = 64 << 10 };
enum { kernel_mask_bytes = 8, kernel_signals = 64 };

extern char **environ;

struct birth {
    const char *path;
    char *const *argv;
    char **environment;
    const int *keep;
    size_t n_keep;
    uint64_t blocked;
    unsigned char reset[kernel_signals + 1]; /* signals with a handler, which must not run in the child, and others */
    volatile int error;                      /* written by the child, read when it is gone */
};

/* Runs in the child, in our memory, on a stack of its own. Allowed here: raw system calls and the fields of `birth`.
 * Not allowed: anything that takes a lock, allocates, or changes memory that outlives the call; that includes the C
 * library's wrappers where a sanitizer has put its own around them. Signals are all blocked until handlers are gone. */
__attribute__((no_sanitize("address"), no_sanitize("thread"), no_sanitize("undefined"))) static int child(
    void *argument)
{
    struct birth *birth = argument;
    static const uint64_t nothing[16]; /* in any architecture's layout: the default action, no flags, an empty mask */

    for (int s = 1; s <= kernel_signals; s++)
        if (birth->reset[s])
            (void)syscall(SYS_rt_sigaction, s, nothing, NULL, kernel_mask_bytes);
    for (size_t i = 0; i < birth->n_keep; i++) {
        long flags = syscall(SYS_fcntl, birth->keep[i], F_GETFD);
        if (flags < 0 || syscall(SYS_fcntl, birth->keep[i], F_SETFD, flags & ~(long)FD_CLOEXEC) < 0)
            goto fail;
    }
    (void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, &birth->blocked, NULL, kernel_mask_bytes);
    syscall(SYS_execve, birth->path, birth->argv, birth->environment);
fail:
    birth->error = errno;
    syscall(SYS_exit_group, 127);
    return 127;
}

static bool is_program(const char *path)
{
    struct stat about;
    return access(path, X_OK) == 0 && stat(path, &about) == 0 && S_ISREG(about.st_mode);
}

/* A name without a slash is looked for here and not in the child, which may not do much. */
static int find_program(const char *name, char *path, size_t size)
{
    size_t length = strlen(name);
    if (length == 0) {
        errno = ENOENT;
        return TERCIO_ESYSTEM;
    }
    if (strchr(name, '/')) {
        if (length >= size) {
            errno = ENAMETOOLONG;
            return TERCIO_ESYSTEM;
        }
        memcpy(path, name, length + 1);
        return 0;
    }
    const char *at = getenv("PATH");
    if (!at)
        at = "/bin:/usr/bin";
    while (at) {
        const char *end = strchr(at, ':');
        size_t folder = end ? (size_t)(end - at) : strlen(at);
        if (folder + 1 + length < size) {
            memcpy(path, at, folder);
            if (folder) /* an empty entry is the current directory */
                path[folder++] = '/';
            memcpy(path + folder, name, length + 1);
            if (is_program(path))
                return 0;
        }
        at = end ? end + 1 : NULL;
    }
    errno = ENOENT;
    return TERCIO_ESYSTEM;
}

/* A child that never became a program is already on its way out: this waits for no more than that. */
static void bury(int pid)
{
    siginfo_t info;
    while (waitid(P_PID, (id_t)pid, &info, WEXITED) < 0 && errno == EINTR)
        ;
}

int tercio__spawn(char *const *argv, const int *keep, size_t n, uint64_t blocked, bool reset, int *handle)
{
    char path[PATH_MAX];
    struct birth birth = {
        .path = path, .argv = argv, .environment = environ, .keep = keep, .n_keep = n, .blocked = blocked};
    int pidfd = -1, pid = -1, error;
    uint64_t all = UINT64_MAX, before = 0;

    *handle = -1;
    if (!argv || !argv[0])
        return TERCIO_EINVAL;
    error = find_program(argv[0], path, sizeof path);
    if (error)
        return error;
    char *stack = mmap(NULL, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED)
        return TERCIO_ENOMEM;

    /* The raw call, because the C library keeps two signals of its own from being blocked. */
    (void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, kernel_mask_bytes);
    for (int s = 1; s <= kernel_signals; s++) {
        struct sigaction action;
        if (sigaction(s, NULL, &action) == 0) /* refused for the C library's own two, which nobody sends us */
            birth.reset[s] = action.sa_handler != SIG_DFL && (reset || action.sa_handler != SIG_IGN);
    }
    pid = clone(child, stack + stack_bytes, CLONE_VM | CLONE_VFORK | clone_pidfd | SIGCHLD, &birth, &pidfd);
    if (pid < 0 && (errno == EINVAL || tercio__refused()))
        pid = clone(child, stack + stack_bytes, CLONE_VM | CLONE_VFORK | SIGCHLD, &birth);
    error = pid < 0 ? errno : birth.error;
    (void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, kernel_mask_bytes);
    munmap(stack, stack_bytes);

    if (pid < 0) {
        errno = error;
        return TERCIO_ESYSTEM;
    }
    if (!error && pidfd < 0) { /* before Linux 5.2 the flag is passed over in silence */
        pidfd = tercio__process_handle(pid);
        if (pidfd < 0) {
            error = errno;
            (void)kill(pid, SIGKILL);
        }
    }
    if (error) {
        bury(pid);
        if (pidfd >= 0)
            close(pidfd);
        errno = error;
        return TERCIO_ESYSTEM;
    }
    *handle = pidfd;
    return pid;
}
