/* SPDX-License-Identifier: MIT
 *
 * Message sockets that carry descriptors. A descriptor that arrived is either handed to the caller or
 * closed, also on an error.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../plat.h"
#include "tercio.h"

enum { most_fds = 8 };

union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(most_fds * sizeof(int))];
};

int tercio__pair(int fds[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) ? TERCIO_ESYSTEM : 0;
}

int tercio__send(int fd, const void *data, size_t size, const int *fds, size_t n_fds)
{
    /* A message of no bytes would look like the peer's end. */
    if (size == 0 || size > INT32_MAX || n_fds > most_fds)
        return TERCIO_EINVAL;
    struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    union control control;
    if (n_fds) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(header), fds, n_fds * sizeof(int));
    }
    for (;;) {
        ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
        if (sent >= 0)
            return (int)sent;
        switch (errno) {
        case EINTR:
            continue;
        case EPIPE:
        case ECONNRESET:
        case ENOTCONN:
            return 0;
        case EAGAIN:
            return TERCIO_EAGAIN;
        case EMSGSIZE:
            return TERCIO_ETOOBIG;
        default:
            return TERCIO_ESYSTEM;
        }
    }
}

/* Hands over the descriptors of a message, as many as there is room for. Returns: how many came. */
static size_t unpack(struct msghdr *message, int *fds, size_t room)
{
    size_t came = 0;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(message); h; h = CMSG_NXTHDR(message, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++, came++) {
            int fd;
            memcpy(&fd, CMSG_DATA(h) + i * sizeof fd, sizeof fd);
            if (came < room)
                fds[came] = fd;
            else
                close(fd);
        }
    }
    return came;
}

int tercio__receive(int fd, void *data, size_t size, int *fds, size_t *n_fds, bool block)
{
    size_t room = fds && n_fds ? *n_fds : 0;
    if (room > most_fds)
        room = most_fds;
    if (n_fds)
        *n_fds = 0;
    struct iovec part = {.iov_base = data, .iov_len = size};
    union control control;
    for (;;) {
        struct msghdr message = {
            .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
        ssize_t received = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | (block ? 0 : MSG_DONTWAIT));
        if (received < 0) {
            switch (errno) {
            case EINTR:
                continue;
            case ECONNRESET:
                return 0;
            case EAGAIN:
                return TERCIO_EAGAIN;
            default:
                return TERCIO_ESYSTEM;
            }
        }
        size_t came = unpack(&message, fds, room);
        bool cut = (message.msg_flags & MSG_TRUNC) != 0 || came > room;
        bool lost = (message.msg_flags & MSG_CTRUNC) != 0; /* this process has no descriptor left to receive with */
        if (cut || lost) {
            for (size_t i = 0; i < came && i < room; i++)
                close(fds[i]);
            errno = lost ? EMFILE : EBADMSG;
            return lost ? TERCIO_ESYSTEM : TERCIO_EPROTOCOL;
        }
        if (n_fds)
            *n_fds = came;
        return (int)received;
    }
}
