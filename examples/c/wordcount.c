/* SPDX-License-Identifier: MIT
 * Counts the words of every file in a folder. The names are streamed to the workers as the folder is read, and the
 * counts come back in the order of the names.
 *
 *     wordcount [--method fork|spawn|forkserver|threading] [--workers N] FOLDER
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tercio.h>

enum { LONGEST_PATH = 4096 };

typedef struct {
    unsigned long lines, words, bytes;
    char path[]; /* with the zero at its end: so the parent needn't remember what it asked for */
} counts;

/* ---- In the workers ------------------------------------------------------------------------------------------------ */

static int count_words(tercio_call *call, tercio_bytes in, void *out)
{
    const char *path = in.data;
    FILE *file = fopen(path, "r");
    (void)out;
    if (file == NULL)
        return tercio_fail(call, errno, "%s: %s", path, strerror(errno));

    unsigned long lines = 0, words = 0, bytes = 0;
    int c, inside = 0;
    while ((c = getc(file)) != EOF) {
        bytes++;
        lines += c == '\n';
        words += !isspace(c) && !inside;
        inside = !isspace(c);
    }
    if (ferror(file)) {
        int error = errno;
        fclose(file);
        return tercio_fail(call, error, "%s: %s", path, strerror(error));
    }
    fclose(file);

    counts *reply = tercio_reply(call, sizeof *reply + in.size);
    if (reply == NULL)
        return tercio_fail(call, ENOMEM, "%s: no memory for the answer", path);
    reply->lines = lines;
    reply->words = words;
    reply->bytes = bytes;
    memcpy(reply->path, path, in.size);
    return 0;
}

static const tercio_task tasks[] = {{"count_words", count_words, 0}};
static const tercio_table table = {sizeof table, sizeof tasks[0], 1, tasks, NULL, NULL};

/* ---- In the parent ------------------------------------------------------------------------------------------------- */

typedef struct {
    DIR *folder;
    const char *name;
    char path[LONGEST_PATH];
} reader;

/* Called when a worker could take one more. */
static int next_path(void *user, tercio_bytes *input)
{
    reader *self = user;
    const struct dirent *entry;
    while ((entry = readdir(self->folder)) != NULL) {
        int length = snprintf(self->path, sizeof self->path, "%s/%s", self->name, entry->d_name);
        if (entry->d_type != DT_REG || length < 0 || (size_t)length >= sizeof self->path)
            continue;
        input->data = self->path;
        input->size = (size_t)length + 1;
        return 1;
    }
    return 0;
}

static int count_folder(tercio_pool *pool, reader *self)
{
    tercio_run *run;
    tercio_result result = {.size = sizeof result};
    unsigned long files = 0, lines = 0, words = 0, bytes = 0, failed = 0;
    int more = tercio_stream(pool, 0, next_path, self, NULL, &run);
    if (more < 0)
        return more;
    while ((more = tercio_next(run, -1, &result)) == 1) {
        if (result.status == 0) {
            const counts *found = result.out.data;
            printf("%8lu %8lu %10lu %s\n", found->lines, found->words, found->bytes, found->path);
            files++;
            lines += found->lines;
            words += found->words;
            bytes += found->bytes;
        } else {
            fprintf(stderr, "wordcount: %s\n", result.message);
            failed++;
        }
        tercio_release(run, &result);
    }
    tercio_run_close(run);
    if (more < 0)
        return more;
    printf("%8lu %8lu %10lu in %lu files\n", lines, words, bytes, files);
    return failed != 0;
}

int main(int argc, char **argv)
{
    tercio_options options = {.size = sizeof options, .table = &table};
    reader self = {0};
    tercio_pool *pool;

    tercio_worker_entry(argc, argv, &table);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--method") == 0 && i + 1 < argc) {
            if (tercio_method_parse(argv[++i], &options.method) != 0) {
                fprintf(stderr, "wordcount: no such start method: %s\n", argv[i]);
                return 2;
            }
        } else if (strcmp(argv[i], "--workers") == 0 && i + 1 < argc) {
            options.n_workers = (unsigned)strtoul(argv[++i], NULL, 10);
        } else {
            self.name = argv[i];
        }
    }
    if (self.name == NULL || (self.folder = opendir(self.name)) == NULL) {
        fprintf(stderr, "usage: wordcount [--method METHOD] [--workers N] FOLDER\n");
        return 2;
    }
    int error = tercio_open(&pool, &options);
    if (error == 0) {
        error = count_folder(pool, &self);
        tercio_close(pool);
    }
    closedir(self.folder);
    if (error < 0)
        fprintf(stderr, "wordcount: %s\n", tercio_error_text(error));
    return error != 0;
}
