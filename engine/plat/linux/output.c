/* SPDX-License-Identifier: MIT
 *
 * Standard output around forks.
 */
#include <stdio.h>
#include <stdio_ext.h>

#include "../plat.h"

void tercio__forget_output(void)
{
    __fpurge(stdout);
    __fpurge(stderr);
}

void tercio__write_output(void)
{
    (void)fflush(stdout);
    (void)fflush(stderr);
}
