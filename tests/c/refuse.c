/* SPDX-License-Identifier: MIT
 *
 * Runs a program on a machine that refuses: system calls that newer kernels have, as an older one (ENOSYS) or a
 * sandbox (EPERM) answers them. For it and all that it starts; but a test that needs such a call for itself says so by
 * a sixth argument (ALLOWED), which the kernel doesn't look at.
 *
 *     refuse EPERM|ENOSYS|EINVAL NAME[,NAME...]|all PROGRAM [ARGUMENT...]
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

enum { NO_ARGUMENT = -1, ALLOWED = 0x7e57 };

/* A call as a whole, or where one of its arguments has any of some bits, or a value. */
static const struct {
    const char *name;
    int number, argument;
    uint32_t bits, value;
} calls[] = {
    {"memfd_create", SYS_memfd_create, NO_ARGUMENT, 0, 0},
    {"memfd_noexec", SYS_memfd_create, 1, 0x8, 0},
    {"seals", SYS_fcntl, 1, 0, 1033},
    {"fallocate", SYS_fallocate, NO_ARGUMENT, 0, 0},
    {"pidfd_open", SYS_pidfd_open, NO_ARGUMENT, 0, 0},
    {"pidfd_send_signal", SYS_pidfd_send_signal, NO_ARGUMENT, 0, 0},
    {"wait_pidfd", SYS_waitid, 0, 0, 3},
    {"clone_pidfd", SYS_clone, 0, 0x1000, 0},
    {"close_range", SYS_close_range, NO_ARGUMENT, 0, 0},
    {"dontdump", SYS_madvise, 2, 0, 16},
    {"setrlimit", SYS_prlimit64, 2, UINT32_MAX, 0},
};
enum { N_CALLS = sizeof calls / sizeof *calls };

static int is_named(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, name, length) == 0 && (at[length] == ',' || at[length] == 0))
            return 1;
    /* What an older kernel says to a flag that it doesn't know is EINVAL, so that it is asked for by name alone. */
    return strcmp(list, "all") == 0 && strcmp(name, "memfd_noexec") != 0 && strcmp(name, "setrlimit") != 0;
}

int main(int argc, char **argv)
{
    static struct sock_filter program[N_CALLS * 5 + 4];
    unsigned short n = 0;
    if (argc < 4)
        return 2;
    unsigned error = strcmp(argv[1], "EPERM") == 0    ? EPERM
                     : strcmp(argv[1], "ENOSYS") == 0 ? ENOSYS
                     : strcmp(argv[1], "EINVAL") == 0 ? EINVAL
                                                      : 0;
    if (error == 0)
        return 2;
    program[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                                (uint32_t)(offsetof(struct seccomp_data, args) + 8u * 5u));
    program[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ALLOWED, 0, 1);
    program[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    unsigned short before = n;
    for (int i = 0; i < N_CALLS; i++) {
        if (!is_named(argv[2], calls[i].name))
            continue;
        unsigned char rest = calls[i].argument == NO_ARGUMENT ? 1 : 3;
        program[n++] =
            (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, nr));
        program[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)calls[i].number, 0, rest);
        if (rest == 3) {
            uint32_t low = (uint32_t)(offsetof(struct seccomp_data, args) + 8u * (unsigned)calls[i].argument);
            uint32_t what = calls[i].bits ? calls[i].bits : calls[i].value;
            program[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, low);
            program[n++] =
                (struct sock_filter)BPF_JUMP(BPF_JMP | (calls[i].bits ? BPF_JSET : BPF_JEQ) | BPF_K, what, 0, 1);
        }
        program[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error);
    }
    if (n == before)
        return 2; /* a name that is none */
    program[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog filter = {.len = n, .filter = program};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) {
        perror("refuse: no filter");
        return 77; /* a test that can't be made here */
    }
    execvp(argv[3], argv + 3);
    perror(argv[3]);
    return 2;
}
