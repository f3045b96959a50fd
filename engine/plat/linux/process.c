/* SPDX-License-Identifier: MIT
 *
 * Processes by handle: a pidfd names the process it was made for and no later one of the same number. Where there are
 * none the handle is watch.c's, and the number is used; it is the child's own as long as we haven't collected it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../plat.h"
#include "linux.h"
#include "tercio.h"

/* The same on every architecture that the kernel floor leaves open; older headers lack them. */
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
enum { by_pidfd = 3 }; /* P_PIDFD of waitid */

/* What the kernel (6.15 and later) remembers of a process that was reaped while a pidfd of it was open. */
struct pidfd_facts {
    uint64_t mask, cgroup;
    uint32_t pid, tgid, ppid, ids[8];
    int32_t exit_status;
};
_Static_assert(sizeof(struct pidfd_facts) == 64, "the kernel tells versions apart by size");
#define PIDFD_FACTS _IOWR(0xFF, 11, struct pidfd_facts)
#define PIDFD_FACTS_EXIT (UINT64_C(1) << 3)

int tercio__process_open(int pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

int tercio__process_handle(int pid)
{
    int fd = tercio__process_open(pid);
    if (fd >= 0)
        return fd;
    return tercio__refused() ? tercio__watch_child(pid) : TERCIO_ESYSTEM;
}

/* The raw call, because the C library's waitid has no place for rusage. By number where there is no handle, and where
 * it can't be waited for: before Linux 5.4 (EINVAL), where it is no pidfd (EBADF), where that is refused. */
static int wait_for(int handle, int pid, siginfo_t *info, int flags, struct rusage *usage)
{
    int result = -1;
    for (int by_number = handle < 0; by_number < 2; by_number++) {
        do {
            memset(info, 0, sizeof *info);
            result = (int)syscall(SYS_waitid, by_number ? P_PID : by_pidfd, by_number ? pid : handle, info,
                                  WEXITED | WNOHANG | flags, usage);
        } while (result < 0 && errno == EINTR);
        if (result == 0 || !(errno == EINVAL || errno == EBADF || tercio__refused()))
            break;
    }
    return result;
}

bool tercio__process_is_dead(int handle, int pid)
{
    if (handle < 0)
        return kill(pid, 0) < 0 && errno == ESRCH;
    struct pollfd polled = {.fd = handle, .events = POLLIN};
    return poll(&polled, 1, 0) > 0 && (polled.revents & (POLLIN | POLLHUP));
}

int tercio__process_reap(int handle, int pid, tercio__exit *exit)
{
    siginfo_t info;
    struct rusage usage;
    memset(&usage, 0, sizeof usage);
    *exit = (tercio__exit){.code = -1};

    if (wait_for(handle, pid, &info, 0, &usage) == 0) {
        if (info.si_pid == 0)
            return TERCIO_EAGAIN;
        if (info.si_code == CLD_EXITED)
            exit->code = info.si_status;
        else
            exit->signal = info.si_status;
        exit->peak_rss = (uint64_t)usage.ru_maxrss * 1024;
        tercio__watch_end(pid);
        return 0;
    }
    if (errno != ECHILD)
        return TERCIO_ESYSTEM;

    /* Somebody else collected it (or the application ignores SIGCHLD, and the kernel did), or it is another's child. */
    if (!tercio__process_is_dead(handle, pid))
        return TERCIO_EAGAIN;
    struct pidfd_facts facts = {.mask = PIDFD_FACTS_EXIT};
    if (handle >= 0 && ioctl(handle, PIDFD_FACTS, &facts) == 0 && (facts.mask & PIDFD_FACTS_EXIT)) {
        if (WIFEXITED(facts.exit_status))
            exit->code = WEXITSTATUS(facts.exit_status);
        else if (WIFSIGNALED(facts.exit_status))
            exit->signal = WTERMSIG(facts.exit_status);
    }
    tercio__watch_end(pid);
    return 0;
}

void tercio__process_end(int pid)
{
    int saved_errno = errno;
    (void)kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    errno = saved_errno;
}

bool tercio__process_failed(int handle, int pid)
{
    siginfo_t info;
    if (wait_for(handle, pid, &info, WNOWAIT, NULL) || info.si_pid == 0)
        return false;
    return info.si_code != CLD_EXITED || info.si_status != 0;
}

int tercio__process_signal(int handle, int pid, int signal)
{
    if (syscall(SYS_pidfd_send_signal, handle, signal, NULL, 0) == 0)
        return 0;
    if (errno == EBADF || tercio__refused()) {
        if (tercio__process_is_dead(handle, pid))
            return TERCIO_EINVAL;
        if (kill(pid, signal) == 0)
            return 0;
    }
    return errno == ESRCH ? TERCIO_EINVAL : TERCIO_ESYSTEM;
}

void tercio__join_group_of(int pid)
{
    pid_t group = getpgid(pid);
    if (group > 0 && group != getpgrp())
        (void)setpgid(0, group);
}

void tercio__process_kill_group(int pid)
{
    int saved_errno = errno;
    /* One that never became a leader has no group of its own, and must not take ours along. */
    if (pid > 1 && getpgid(pid) == pid && pid != getpgrp())
        (void)kill(-pid, SIGKILL);
    errno = saved_errno;
}

/* ---- The parent's death ---------------------------------------------------------------------------------------- */

static volatile sig_atomic_t watched_parent;

bool tercio__parent_gone(int parent)
{
    /* 0 is a parent outside of our pid namespace: nothing can be said of it. */
    return parent != 0 && getppid() != parent;
}

static int parent_signal(void)
{
    return SIGRTMAX - 1;
}

bool tercio__is_main_thread(void)
{
    return (pid_t)syscall(SYS_gettid) == getpid();
}

/* The kernel sends this when the thread that forked us ends, be it alone or with its whole process. */
static void on_parent_signal(int signal)
{
    int saved_errno = errno;
    if (tercio__parent_gone((int)watched_parent))
        _exit(1);
    (void)prctl(PR_SET_PDEATHSIG, (unsigned long)signal, 0, 0, 0);
    errno = saved_errno;
}

int tercio__lifeline(int ends[2])
{
    return pipe2(ends, O_CLOEXEC) ? TERCIO_ESYSTEM : 0;
}

/* The kernel kills us when the last writer of the pipe is gone: a signal of our choice for news on a descriptor, and
 * SIGKILL is one that no task can block. Nobody ever writes. The receiver of the signal is a property of the open file, so
 * each worker opens one of its own; it stays open. Where the system can't do that we are left with the other means. */
static void hold_on_to(int line)
{
    char path[32];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", line);
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    close(line);
    if (fd < 0)
        return;
    if (fcntl(fd, F_SETOWN, getpid()) || fcntl(fd, F_SETSIG, SIGKILL) || fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK)) {
        close(fd);
        return;
    }
    struct pollfd broken = {.fd = fd};
    if (poll(&broken, 1, 0) > 0 && (broken.revents & POLLHUP)) /* it broke before */
        _exit(1);
}

/* By a signal when the thread that started us ends: where that is the end of the process too, the signal is SIGKILL.
 * Else a task could block it, or take its handler, so there is a lifeline beside it. */
int tercio__die_with_parent(int parent, bool lasting, int line)
{
    watched_parent = (sig_atomic_t)parent;
    if (lasting) {
        if (prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL, 0, 0, 0))
            return TERCIO_ESYSTEM;
        if (tercio__parent_gone(parent))
            _exit(1);
        return 0;
    }
    tercio__signal_take(parent_signal(), on_parent_signal, SA_RESTART | SA_ONSTACK);
    if (prctl(PR_SET_PDEATHSIG, (unsigned long)parent_signal(), 0, 0, 0))
        return TERCIO_ESYSTEM;
    sigset_t only;
    sigemptyset(&only);
    sigaddset(&only, parent_signal());
    int error = pthread_sigmask(SIG_UNBLOCK, &only, NULL);
    if (error) {
        errno = error;
        return TERCIO_ESYSTEM;
    }
    if (line >= 0)
        hold_on_to(line);
    if (tercio__parent_gone(parent)) /* it died before the kernel knew that we care */
        _exit(1);
    return 0;
}

/* ---- This process ---------------------------------------------------------------------------------------------- */

/* Field number `field` of a stat file, from 3 on. Returns: -1 where it can't be read. */
static long field_of_stat(const char *path, int field)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    char text[1024];
    ssize_t n;
    do
        n = read(fd, text, sizeof text - 1);
    while (n < 0 && errno == EINTR);
    close(fd);
    if (n <= 0)
        return -1;
    text[n] = 0;
    /* The second field is the program's name in parentheses, and may hold anything, parentheses too. */
    char *at = strrchr(text, ')');
    for (int i = 2; at && i < field; i++)
        at = strchr(at + 1, ' ');
    return at ? strtol(at, NULL, 10) : -1;
}

/* Not those that have but their last instructions in the kernel before them: one that was joined is listed for a moment
 * yet. Returns: 0 where that can't be told. */
static int count_living_threads(void)
{
    enum { FLAGS = 9, EXITING = 4 /* PF_EXITING, set before pthread_join returns */ };
    DIR *folder = opendir("/proc/self/task");
    int n = 0;
    for (const struct dirent *task; folder && (task = readdir(folder)) != NULL;) {
        char path[sizeof "/proc/self/task//stat" + sizeof task->d_name];
        (void)snprintf(path, sizeof path, "/proc/self/task/%s/stat", task->d_name);
        long flags = task->d_name[0] == '.' ? -1 : field_of_stat(path, FLAGS);
        n += flags >= 0 && !(flags & EXITING);
    }
    if (folder)
        closedir(folder);
    return n;
}

int tercio__count_threads(void)
{
    enum { THREADS = 20 };
    int watchers = tercio__watchers();
    long threads = field_of_stat("/proc/self/stat", THREADS);
    if (threads <= 0 || threads > INT32_MAX)
        return 0;
    int living = threads - watchers > 1 ? count_living_threads() : 0;
    if (living > 0)
        threads = living;
    return threads > watchers ? (int)threads - watchers : 1;
}

int tercio__own_executable(char *path, size_t size)
{
    /* The link itself and not what it says: it leads to the file that runs, also when another has its name by now. */
    static const char link[] = "/proc/self/exe";
    if (size < sizeof link)
        return TERCIO_EINVAL;
    if (access(link, X_OK))
        return TERCIO_ESYSTEM;
    memcpy(path, link, sizeof link);
    return 0;
}
