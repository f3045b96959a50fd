/* SPDX-License-Identifier: MIT
 *
 * What the tests of the platform share.
 */
#ifndef PLAT_BED_H
#define PLAT_BED_H

#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "plat/plat.h"
#include "tercio.h"

enum { patience = 30 }; /* seconds; only ever a bound against a hang */

static inline bool is_cloexec(int fd)
{
    return (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0;
}

static inline int lowest_free_fd(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    close(fd);
    return fd;
}

static volatile sig_atomic_t handled;

static inline void count_signal(int signal)
{
    (void)signal;
    handled++;
}

#endif
