/* SPDX-License-Identifier: MIT
 *
 * Shared memory by descriptor. Everything that can run out runs out in a system call and not at a store: a store to
 * a page that the kernel can't find raises SIGBUS, and a limit on file sizes raises SIGXFSZ, in the user's program.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../plat.h"
#include "linux.h"
#include "tercio.h"

/* Numbers that headers as old as glibc 2.28's may lack. */
enum { memfd_cloexec = 0x1, memfd_allow_sealing = 0x2, memfd_noexec_seal = 0x8 };
enum { add_seals = 1033, seal_shrink = 0x2 };
enum { fallocate_keep_size = 0x1, fallocate_punch_hole = 0x2 };

/* fallocate undoes all of its work when a signal comes; in pieces, a program with a fast timer still gets ahead. */
#define RESERVE_STEP (UINT64_C(8) << 20)

static int failed(void)
{
    return errno == ENOMEM || errno == ENOSPC ? TERCIO_ENOMEM : TERCIO_ESYSTEM;
}

static int nameless_file_in(const char *folder)
{
#ifdef O_TMPFILE
    int direct = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);
    if (direct >= 0)
        return direct;
#endif
    char path[64];
    size_t length = 0;
    for (const char *p = folder; *p; p++)
        path[length++] = *p;
    for (const char *p = "/tercio-XXXXXX"; *p; p++)
        path[length++] = *p;
    path[length] = 0;
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        unlink(path);
    return fd;
}

int tercio__shm_create(void)
{
    int fd = (int)syscall(SYS_memfd_create, "tercio", memfd_cloexec | memfd_allow_sealing | memfd_noexec_seal);
    if (fd < 0 && errno == EINVAL)
        fd = (int)syscall(SYS_memfd_create, "tercio", memfd_cloexec | memfd_allow_sealing);
    if (fd >= 0) {
        /* A peer that shrank the file would make our loads of it fatal. A refusal leaves us as well off as without
         * memfd. */
        (void)fcntl(fd, add_seals, seal_shrink);
        (void)fchmod(fd, 0600); /* the kernel makes them open to all who could reach them */
        return fd;
    }
    if (!tercio__refused())
        return failed();
    fd = nameless_file_in("/dev/shm");
    if (fd < 0)
        fd = nameless_file_in("/tmp");
    return fd < 0 ? failed() : fd;
}

/* Exceeding RLIMIT_FSIZE is a signal whose default kills, so the limit is asked first. */
static int within_file_limit(uint64_t offset, uint64_t size)
{
    uint64_t end = offset + size;
    if (end < offset || end > (uint64_t)INT64_MAX) {
        errno = EFBIG;
        return TERCIO_ESYSTEM;
    }
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && end > limit.rlim_cur) {
        errno = EFBIG;
        return TERCIO_ESYSTEM;
    }
    return 0;
}

/* Where the file's system has no fallocate, or it is refused: zeros get memory too. */
static int write_zeros(int fd, uint64_t offset, uint64_t size)
{
    static const unsigned char zeros[64 << 10];
    int error = 0;
    while (size && !error) {
        size_t step = size < sizeof zeros ? (size_t)size : sizeof zeros;
        error = tercio__shm_write(fd, offset, zeros, step);
        offset += step;
        size -= step;
    }
    return error;
}

int tercio__shm_reserve(int fd, uint64_t offset, uint64_t size)
{
    int error = within_file_limit(offset, size);
    if (error)
        return error;
    while (size) {
        uint64_t step = size < RESERVE_STEP ? size : RESERVE_STEP;
        if (fallocate(fd, 0, (off_t)offset, (off_t)step)) {
            if (errno == EINTR)
                continue;
            return tercio__refused() ? write_zeros(fd, offset, size) : failed();
        }
        offset += step;
        size -= step;
    }
    return 0;
}

int tercio__shm_write(int fd, uint64_t offset, const void *data, size_t size)
{
    int error = within_file_limit(offset, size);
    if (error)
        return error;
    const char *from = data;
    while (size) {
        ssize_t n = pwrite(fd, from, size, (off_t)offset);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return failed();
        }
        if (n == 0) {
            errno = ENOSPC;
            return TERCIO_ENOMEM;
        }
        from += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}

void tercio__shm_punch(int fd, uint64_t offset, uint64_t size)
{
    int saved_errno = errno;
    while (size && fallocate(fd, fallocate_punch_hole | fallocate_keep_size, (off_t)offset, (off_t)size) &&
           errno == EINTR)
        ;
    errno = saved_errno;
}

int tercio__shm_map(int fd, uint64_t offset, size_t size, int how, void **address)
{
    if (size == 0 || offset % tercio__page_size() || offset > (uint64_t)INT64_MAX - size)
        return TERCIO_EINVAL;
    /* A private view of much data is mostly read; without NORESERVE the kernel may refuse it for what it could
     * cost if all of it were written. */
    int flags = how == TERCIO__MAP_SHARED ? MAP_SHARED : MAP_PRIVATE | MAP_NORESERVE;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, (off_t)offset);
    if (memory == MAP_FAILED)
        return failed();
    if (how == TERCIO__MAP_SHARED) {
        if (madvise(memory, size, MADV_DONTFORK)) {
            int saved_errno = errno;
            munmap(memory, size);
            errno = saved_errno;
            return failed();
        }
        (void)madvise(memory, size, MADV_DONTDUMP); /* a refusal costs disk after a crash, nothing else */
    }
    *address = memory;
    return 0;
}

void tercio__shm_unmap(void *address, size_t size)
{
    int saved_errno = errno;
    if (address && size)
        munmap(address, size);
    errno = saved_errno;
}

size_t tercio__page_size(void)
{
    static _Atomic size_t known; /* relaxed: every thread computes the same */
    size_t size = atomic_load_explicit(&known, memory_order_relaxed);
    if (size == 0) {
        long asked = sysconf(_SC_PAGESIZE);
        size = asked > 0 ? (size_t)asked : 4096;
        atomic_store_explicit(&known, size, memory_order_relaxed);
    }
    return size;
}
