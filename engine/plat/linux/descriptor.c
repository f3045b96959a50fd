/* SPDX-License-Identifier: MIT
 *
 * Descriptors that can be told from a stranger's of the same number.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include "../plat.h"

/* The signal that the kernel sends for news on an open file. None is sent without O_ASYNC, which is never set here, and
 * nobody has a reason to ask for this one: it was for a coprocessor. */
enum { mark = SIGSTKFLT };

bool tercio__descriptor_mark(int fd)
{
    int saved_errno = errno;
    bool is_marked = fcntl(fd, F_SETSIG, mark) == 0;
    errno = saved_errno;
    return is_marked;
}

bool tercio__descriptor_is_marked(int fd)
{
    int saved_errno = errno;
    bool is_marked = fcntl(fd, F_GETSIG) == mark;
    errno = saved_errno;
    return is_marked;
}

bool tercio__descriptor_identity(int fd, uint64_t identity[2])
{
    int saved_errno = errno;
    struct stat about;
    bool is_open = fstat(fd, &about) == 0;
    errno = saved_errno;
    if (is_open && !S_ISFIFO(about.st_mode) && !S_ISSOCK(about.st_mode))
        is_open = false; /* event descriptors share one number, and a file that is opened again has the same */
    if (is_open) {
        identity[0] = (uint64_t)about.st_dev;
        identity[1] = (uint64_t)about.st_ino;
    }
    return is_open;
}
