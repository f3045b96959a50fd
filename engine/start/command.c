/* SPDX-License-Identifier: MIT
 *
 * The command line of fresh processes, both ends of it.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "start.h"

char **tercio__command(char *const *argv, char *argument, char *own, size_t own_size)
{
    size_t n = 0;
    char *just_us[2] = {own, NULL};
    if (argv == NULL) {
        if (tercio__own_executable(own, own_size))
            return NULL;
        argv = just_us;
    }
    while (argv[n])
        n++;
    char **command = malloc((n + 2) * sizeof *command);
    if (command == NULL)
        return NULL;
    memcpy(command, argv, n * sizeof *command);
    command[n] = argument;
    command[n + 1] = NULL;
    return command;
}

/* They had to outlive our own exec. Programs that a task starts have no business with them. */
static void keep_to_ourselves(const int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++)
        (void)fcntl(fds[i], F_SETFD, FD_CLOEXEC);
}

int tercio_worker_main(const tercio_host *host, void *user, const char *argument)
{
    int file, caller, keeper, parent, socket, lasting, line;
    unsigned index;
    if (argument == NULL || tercio__host_check(host))
        return TERCIO_EINVAL;
    tercio__fork_watch();
    if (sscanf(argument, TERCIO__WORKER_ARGUMENT "%d,%d,%d,%u,%d,%d,%d", &file, &caller, &keeper, &index, &parent,
               &lasting, &line) == 7) {
        keep_to_ourselves((const int[]){file, caller, keeper}, 3);
        tercio__worker_process(file, caller, keeper, index, host, user, parent, lasting, line);
    }
    if (sscanf(argument, TERCIO__SERVER_ARGUMENT "%d,%d,%d", &socket, &parent, &lasting) == 3) {
        keep_to_ourselves(&socket, 1);
        tercio__server_live(socket, parent, lasting, host, user);
    }
    return TERCIO_EINVAL;
}
