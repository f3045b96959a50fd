/* SPDX-License-Identifier: MIT
 *
 * What the system says of this process by the entries of a folder: its descriptors, its threads.
 */
#ifndef ENTRIES_H
#define ENTRIES_H

#include <dirent.h>
#include <stddef.h>

/* With "." and "..", so this is for comparing. */
static inline size_t count_entries(const char *path)
{
    DIR *folder = opendir(path);
    size_t n = 0;
    while (folder && readdir(folder))
        n++;
    if (folder)
        closedir(folder);
    return n;
}

static inline size_t count_descriptors(void)
{
    return count_entries("/proc/self/fd");
}

/* Those included that were joined, and are not gone yet. */
static inline size_t count_listed_threads(void)
{
    return count_entries("/proc/self/task");
}

#endif
