/* SPDX-License-Identifier: MIT
 *
 * What a process gets from its parent beside memory and descriptors. A worker that a server forks inherits the server's;
 * it is given what its pool's process has at that moment, as a child of that process would have it.
 */
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../plat.h"
#include "linux.h"
#include "tercio.h"

enum { ioprio_who_process = 1, unknown = INT32_MIN };

/* Reads a small file of /proc as text. Returns: false when it can't be read. */
static bool read_text(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n;
    do
        n = read(fd, text, size - 1);
    while (n < 0 && errno == EINTR);
    close(fd);
    if (n < 0)
        return false;
    text[n] = 0;
    return true;
}

/* ---- State that is copied --------------------------------------------------------------------------------------- */

/* No call reads the mask without setting it, and what another thread creates meanwhile would get a wrong mode. Without
 * /proc it gets too strict a mode at worst. */
static int32_t read_umask(void)
{
    char text[1024];
    const char *at = read_text("/proc/self/status", text, sizeof text) ? strstr(text, "\nUmask:") : NULL;
    if (at)
        return (int32_t)strtol(at + 7, NULL, 8);
    mode_t mask = umask(0777);
    umask(mask);
    return (int32_t)mask;
}

static int32_t read_oom_score(void)
{
    char text[32];
    return read_text("/proc/self/oom_score_adj", text, sizeof text) ? (int32_t)strtol(text, NULL, 10) : unknown;
}

static void write_oom_score(int32_t score)
{
    char text[32];
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t written = write(fd, text, (size_t)snprintf(text, sizeof text, "%d", (int)score));
    (void)written; /* a refusal leaves the server's */
    close(fd);
}

void tercio__inherited_read(tercio__inherited *now)
{
    struct sched_param parameter = {0};
    memset(now, 0, sizeof *now);
    now->umask = read_umask();
    now->oom_score = read_oom_score();
    errno = 0;
    now->nice = getpriority(PRIO_PROCESS, 0);
    if (now->nice == -1 && errno)
        now->nice = unknown;
    now->policy = sched_getscheduler(0);
    if (now->policy >= 0 && sched_getparam(0, &parameter) == 0)
        now->priority = parameter.sched_priority;
    now->io_priority = (int32_t)syscall(SYS_ioprio_get, ioprio_who_process, 0);
    now->personality = (int32_t)personality(UINT32_MAX);
    now->timer_slack = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
    for (unsigned i = 0; i < TERCIO__LIMITS; i++) {
        struct rlimit limit;
        now->limit_known[i] = getrlimit((__rlimit_resource_t)i, &limit) == 0;
        if (now->limit_known[i]) {
            now->limits[i][0] = (uint64_t)limit.rlim_cur;
            now->limits[i][1] = (uint64_t)limit.rlim_max;
        }
    }
    long bytes = syscall(SYS_sched_getaffinity, 0, sizeof now->cpus, now->cpus);
    now->cpu_bytes = bytes > 0 ? (uint32_t)bytes : 0;
}

/* Each is set where it differs alone: a sandbox may forbid a call that would change nothing. */
void tercio__inherited_apply(const tercio__inherited *wanted)
{
    tercio__inherited now;
    tercio__inherited_read(&now);
    umask((mode_t)wanted->umask);
    for (unsigned i = 0; i < TERCIO__LIMITS; i++) {
        const uint64_t *limit = wanted->limits[i];
        struct rlimit set = {.rlim_cur = (rlim_t)limit[0], .rlim_max = (rlim_t)limit[1]};
        if (!wanted->limit_known[i] || memcmp(limit, now.limits[i], sizeof now.limits[i]) == 0)
            continue;
        if (setrlimit((__rlimit_resource_t)i, &set)) { /* only the system's own may raise what its parent has raised */
            set.rlim_max = (rlim_t)now.limits[i][1];
            set.rlim_cur = set.rlim_cur < set.rlim_max ? set.rlim_cur : set.rlim_max;
            (void)setrlimit((__rlimit_resource_t)i, &set);
        }
    }
    if (wanted->policy >= 0 && (wanted->policy != now.policy || wanted->priority != now.priority)) {
        struct sched_param parameter = {.sched_priority = wanted->priority};
        (void)sched_setscheduler(0, wanted->policy, &parameter);
    }
    if (wanted->nice != unknown && wanted->nice != now.nice)
        (void)setpriority(PRIO_PROCESS, 0, wanted->nice);
    if (wanted->io_priority >= 0 && wanted->io_priority != now.io_priority)
        (void)syscall(SYS_ioprio_set, ioprio_who_process, 0, wanted->io_priority);
    if (wanted->personality >= 0 && wanted->personality != now.personality)
        (void)personality((unsigned long)wanted->personality);
    if (wanted->timer_slack > 0 && wanted->timer_slack != now.timer_slack)
        (void)prctl(PR_SET_TIMERSLACK, (unsigned long)wanted->timer_slack, 0, 0, 0);
    if (wanted->oom_score != unknown && wanted->oom_score != now.oom_score)
        write_oom_score(wanted->oom_score);
    if (wanted->cpu_bytes && wanted->cpu_bytes <= sizeof wanted->cpus &&
        (wanted->cpu_bytes != now.cpu_bytes || memcmp(wanted->cpus, now.cpus, wanted->cpu_bytes) != 0))
        (void)syscall(SYS_sched_setaffinity, 0, wanted->cpu_bytes, wanted->cpus);
}

/* ---- Rights and places, which are not ----------------------------------------------------------------------------- */

static uint64_t mixed(uint64_t hash, uint64_t value)
{
    return (hash ^ value) * UINT64_C(0x100000001B3); /* FNV-1a, a word at a time */
}

static uint64_t mixed_place(uint64_t hash, const char *path)
{
    struct stat about = {0};
    if (stat(path, &about))
        about.st_dev = about.st_ino = 0;
    return mixed(mixed(hash, (uint64_t)about.st_dev), (uint64_t)about.st_ino);
}

static uint64_t mixed_groups(uint64_t hash)
{
    int n = getgroups(0, NULL);
    gid_t *groups = n > 0 ? calloc((size_t)n, sizeof *groups) : NULL;
    n = groups ? getgroups(n, groups) : 0;
    for (int i = 0; i < n; i++)
        hash = mixed(hash, groups[i]);
    free(groups);
    return mixed(hash, (uint64_t)n);
}

static uint64_t mixed_capabilities(uint64_t hash)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2];
    memset(sets, 0, sizeof sets);
    (void)syscall(SYS_capget, &head, sets);
    for (size_t i = 0; i < 2; i++)
        hash = mixed(mixed(mixed(hash, sets[i].effective), sets[i].permitted), sets[i].inheritable);
    for (unsigned long capability = 0; capability < 64; capability++)
        hash = mixed(hash, (uint64_t)(prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1));
    return hash;
}

uint64_t tercio__rights(void)
{
    static const char *const places[] = {"/",
                                         "/proc/self/ns/user",
                                         "/proc/self/ns/mnt",
                                         "/proc/self/ns/net",
                                         "/proc/self/ns/ipc",
                                         "/proc/self/ns/uts",
                                         "/proc/self/ns/cgroup",
                                         "/proc/self/ns/pid_for_children",
                                         "/proc/self/ns/time_for_children"};
    int saved_errno = errno;
    uid_t users[3] = {0};
    gid_t groups[3] = {0};
    uint64_t hash = UINT64_C(0xCBF29CE484222325);
    (void)getresuid(&users[0], &users[1], &users[2]);
    (void)getresgid(&groups[0], &groups[1], &groups[2]);
    for (size_t i = 0; i < 3; i++)
        hash = mixed(mixed(hash, users[i]), groups[i]);
    hash = mixed_capabilities(mixed_groups(hash));
    hash = mixed(hash, (uint64_t)prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    hash = mixed(hash, (uint64_t)prctl(PR_GET_SECUREBITS, 0, 0, 0, 0));
    hash = mixed(hash, (uint64_t)prctl(PR_GET_SECCOMP, 0, 0, 0, 0));
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        hash = mixed_place(hash, places[i]);
    errno = saved_errno;
    return hash;
}
