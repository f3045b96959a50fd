/* SPDX-License-Identifier: MIT */
#ifndef TERCIO_START_COMMAND_H
#define TERCIO_START_COMMAND_H

#include <limits.h>
#include <stdint.h>

#include "tercio.h"

/* How workers and servers are told what they are: the argument added to their command. */
#define TERCIO__WORKER_ARGUMENT "--tercio-worker="

#define TERCIO__SERVER_ARGUMENT "--tercio-server="

/* A fresh process's command, and the pipe in which it finds its argument. */
typedef struct {
    char *argument; /* the caller's, set first */
    char **argv;
    char *last;          /* of argv, with the pipe's number; NULL: no pipe */
    int pipe;            /* to be inherited; -1: none */
    uint32_t generation; /* of the fork that the pipe belongs to */
    char own[PATH_MAX];
} tercio__command;

/* argv as in options.worker_argv (NULL: this program's own), pipe as in options.worker_pipe (NULL: none). On error
 * nothing is left. Returns: 0; TERCIO_ENOMEM, _ESYSTEM; TERCIO_EINVAL: too much for a pipe. */
int tercio__command_make(tercio__command *, char *const *argv, const tercio_bytes *pipe);
void tercio__command_clear(tercio__command *); /* errno stays */

#endif
