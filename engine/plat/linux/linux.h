/* SPDX-License-Identifier: MIT
 *
 * What the rooms of this folder ask of each other.
 */
#ifndef TERCIO_LINUX_H
#define TERCIO_LINUX_H

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

/* True when a system call failed since the kernel is too old for it, or a sandbox forbids it (those answer with one
 * number or the other): there is another way then. */
static inline bool tercio__refused(void)
{
    return errno == ENOSYS || errno == EPERM || errno == EACCES || errno == EOPNOTSUPP;
}

/* watch.c: what process_handle gives where there are no pidfds. Returns: descriptor or TERCIO_E.... */
int tercio__watch_child(int pid);
/* The child was collected: waits for the last instructions of its thread, if it had one. */
void tercio__watch_end(int pid);
/* Threads that do so in this process. */
int tercio__watchers(void);

/* cgroup.c. Reads one line. Returns: false when there is none. */
bool tercio__read_line(const char *path, char *text, int size);
/* The folder of this process's group in the hierarchy of the controller (v2: in the unified one); of it the first *top
 * characters are where the hierarchy is mounted. Returns: false when there is none. */
bool tercio__cgroup_folder(const char *controller, bool v2, char folder[PATH_MAX], size_t *top);

/* process.c: a pidfd, or -1 and errno. */
int tercio__process_open(int pid);
/* By number where there is no handle. */
bool tercio__process_is_dead(int handle, int pid);

#endif
