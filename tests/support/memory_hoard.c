// Frees nothing and uses nothing again: what was given back without being overwritten stays to be found. For LD_PRELOAD,
// with PYTHONMALLOC=malloc.

#define _GNU_SOURCE
#include <malloc.h>
#include <stddef.h>
#include <string.h>

extern void *__libc_malloc(size_t);

void free(void *block) { (void)block; }

void *realloc(void *block, size_t size) {
    if (block == NULL) return __libc_malloc(size);
    size_t had = malloc_usable_size(block);
    void *moved = __libc_malloc(size ? size : 1);
    if (moved != NULL) memcpy(moved, block, had < size ? had : size);
    return moved;
}

__attribute__((constructor)) static void keep_all_in_the_heap(void) {
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_ARENA_MAX, 1);
}
