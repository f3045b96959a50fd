/* SPDX-License-Identifier: MIT
 *
 * A worker and all that it has started: its family. A family is known by a mark that processes inherit through fork and
 * exec, that needs no rights, and that does nothing else: the soft limit of RLIMIT_LOCKS, which the kernel has not looked
 * at since 2.4. (A process group would be the usual mark. But a terminal lets one group read and be stopped at a time, and
 * workers belong to their parent's.)
 *
 *     63      48 47          26 25              0
 *     +---------+--------------+----------------+
 *     |  magic  |  founder's   |    number of    |   the founder is the process that has the pool
 *     |         |      id      |   the family    |
 *     +---------+--------------+----------------+
 *
 * Families within a family, those of pools that a worker or what it started has, are known by their founders.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../plat.h"
#include "linux.h"

#define MAGIC UINT64_C(0x7e4c)
enum { magic_at = 48, founder_at = 26 };
#define FOUNDERS ((UINT64_C(1) << (magic_at - founder_at)) - 1)
#define NUMBERS ((UINT64_C(1) << founder_at) - 1)

_Static_assert(sizeof(rlim_t) == sizeof(uint64_t), "a mark is a limit");

static uint64_t mark_of(int pid)
{
    struct rlimit limit;
    if (prlimit(pid, RLIMIT_LOCKS, NULL, &limit) || limit.rlim_cur >> magic_at != MAGIC)
        return 0;
    return limit.rlim_cur;
}

uint64_t tercio__family_new(void)
{
    static _Atomic uint64_t last;
    uint64_t number = (atomic_fetch_add(&last, 1) + 1) & NUMBERS;
    return MAGIC << magic_at | ((uint64_t)getpid() & FOUNDERS) << founder_at | number;
}

bool tercio__family_join(uint64_t family)
{
    struct rlimit limit;
    /* Without /proc nobody would find them. */
    if (access("/proc/self/stat", R_OK) || getrlimit(RLIMIT_LOCKS, &limit))
        return false;
    limit.rlim_cur = family;
    return setrlimit(RLIMIT_LOCKS, &limit) == 0 && mark_of(0) == family;
}

typedef struct {
    uint64_t family;
    int groups[2]; /* who has left these is not the worker's any more */
    int *pids;     /* the worker, and those that were killed */
    size_t n, size;
} hunt;

static bool is_among(const hunt *h, uint64_t pid)
{
    for (size_t i = 0; i < h->n; i++)
        if ((uint64_t)h->pids[i] == pid)
            return true;
    return false;
}

static bool add(hunt *h, int pid)
{
    if (h->n == h->size) {
        int *more = realloc(h->pids, (2 * h->size + 16) * sizeof *more);
        if (more == NULL)
            return false;
        h->pids = more;
        h->size = 2 * h->size + 16;
    }
    h->pids[h->n++] = pid;
    return true;
}

static bool belongs(const hunt *h, int pid)
{
    pid_t group = getpgid(pid);
    if (group < 0 || (group != h->groups[0] && group != h->groups[1]))
        return false;
    uint64_t mark = mark_of(pid);
    return mark && (mark == h->family || is_among(h, mark >> founder_at & FOUNDERS));
}

/* By a handle that was taken before the last look: what it leads to is what was looked at. Returns: whether one was killed
 * that had not been. */
static bool kill_if_it_belongs(hunt *h, int pid)
{
    if (pid <= 1 || pid == getpid() || is_among(h, (uint64_t)pid) || !belongs(h, pid))
        return false;
    int handle = tercio__process_open(pid);
    if (handle < 0 && errno == ESRCH)
        return false;
    bool alive = belongs(h, pid) && !tercio__process_is_dead(handle, pid);
    bool killed =
        alive && add(h, pid) && (handle >= 0 ? tercio__process_signal(handle, pid, SIGKILL) : kill(pid, SIGKILL)) == 0;
    if (handle >= 0)
        close(handle);
    return killed;
}

/* A process that is being killed starts no other, so when a look at all finds none that is new, there is none left. */
void tercio__family_kill(uint64_t family, int pid)
{
    hunt h = {.family = family, .groups = {getpgid(pid), getpgrp()}};
    int saved_errno = errno;
    DIR *all = add(&h, pid) ? opendir("/proc") : NULL;
    for (bool found = all != NULL; found;) {
        found = false;
        rewinddir(all);
        for (struct dirent *entry; (entry = readdir(all)) != NULL;)
            found |= kill_if_it_belongs(&h, (int)strtol(entry->d_name, NULL, 10));
    }
    if (all)
        closedir(all);
    free(h.pids);
    errno = saved_errno;
}
