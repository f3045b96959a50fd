/* SPDX-License-Identifier: MIT
 *
 * Packed blocks (contexts, what workers are prepared with) that hold anything: what is found in one lies in it.
 */
#include <sys/mman.h>

#include "memory/views.h"
#include "worker/worker.c"

enum { PAGES = 4, PAGE = 4096 };

static tercio__file *file;
static unsigned char *bytes;

static int open_file(void)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, PAGES * PAGE))
        return -1;
    bytes = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    file = tercio__file_new(fd);
    return bytes == MAP_FAILED || file == NULL ? -1 : 0;
}

static void touch(const void *data, size_t size)
{
    static volatile unsigned sum; /* so that the bytes are read */
    for (size_t i = 0; i < size; i++)
        sum += ((const unsigned char *)data)[i];
    (void)sum;
}

/* One byte: whether the magic is true; the rest is the block. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { ROOM = PAGES * PAGE - sizeof(tercio__block_head) };
    if (file == NULL && open_file())
        abort();
    if (size < 1)
        return 0;
    bool known = data[0] & 1;
    size = size - 1 < ROOM ? size - 1 : ROOM;
    tercio__block_head *head = (tercio__block_head *)(void *)bytes;
    memset(bytes, 0, PAGES * PAGE);
    memcpy(bytes + sizeof *head, data + 1, size);
    head->magic = TERCIO__BLOCK_MAGIC;
    head->size = size;
    atomic_store(&head->state, TERCIO__BLOCK_PINNED);
    if (known && size >= sizeof(tercio__packed))
        ((tercio__packed *)(void *)(bytes + sizeof *head))->magic = TERCIO__MAGIC;

    tercio_call call = {.file = file};
    tercio_block block = {0, size};
    tercio_view view;
    tercio_bytes first = {0};
    const tercio_block *blocks = NULL;
    size_t n_blocks = 0;
    if (unpack(&call, &block, &view, &first, &blocks, &n_blocks) == 0) {
        const char *begin = view.data, *end = begin + view.size;
        if ((const char *)blocks < begin || n_blocks > (size_t)(end - (const char *)blocks) / sizeof *blocks ||
            (const char *)first.data < begin || first.size > (size_t)(end - (const char *)first.data))
            abort();
        touch(blocks, n_blocks * sizeof *blocks);
        touch(first.data, first.size);
        tercio__view_close(&view);
    }
    return 0;
}
