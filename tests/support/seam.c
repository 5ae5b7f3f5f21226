/* One seam below everything a process makes durable: loaded before the C library, it sees every call that changes files
   below one directory, whoever makes it (Python, SQLite, ctypes). It numbers these steps, records them in order with
   their bytes, and makes one of them the last, or fail. Built by tests/support/seam.py. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { NONE, KILL, REFUSE, REFUSE_FROM, SHORT, TORN, DEAD };
enum { CREATE = 1, WRITE, CUT, SYNC, RENAME, LINK, UNLINK, MKDIR, RMDIR, NOTE };
static const char *NAMES[] = {"", "create", "write", "truncate", "sync", "rename", "link", "unlink", "mkdir", "rmdir"};

static pthread_mutex_t serial = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX], fired_path[PATH_MAX];
static size_t root_length;
static int armed, output = -1, fault, number, fired, torn;
static int64_t at, steps;


/* -- what the tests call ------------------------------------------------------------------------------------------ */

int seam_present(void) { return 1; }

void seam_begin(const char *below, const char *record, int64_t step, int what, int error) {
    snprintf(root, sizeof root, "%s/", below);
    root_length = strlen(root);
    output = *record ? (int)syscall(SYS_openat, AT_FDCWD, record, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600) : -1;
    at = step, fault = what, number = error, steps = 0, fired = 0, torn = 0, fired_path[0] = 0;
    armed = 1;
}

int64_t seam_end(void) {
    armed = 0;
    if (output >= 0) close(output);
    output = -1;
    return steps;
}

const char *seam_fired(void) {
    static char said[PATH_MAX + 16];
    snprintf(said, sizeof said, "%s%s%s", NAMES[fired], fired ? " " : "", fired ? fired_path + root_length : "");
    return said;
}

/* -- the record --------------------------------------------------------------------------------------------------- */

struct head { uint8_t kind; uint8_t pad[3]; uint32_t path, more; uint32_t pad2; uint64_t inode, offset; };

static void put(const void *bytes, size_t length) {
    const char *left = bytes;
    while (length) {
        long done = syscall(SYS_write, output, left, length);
        if (done <= 0) abort();
        left += done, length -= (size_t)done;
    }
}

static void record(int kind, const char *path, const void *more, size_t length, uint64_t inode, uint64_t offset) {
    if (output < 0) return;
    struct head head = {(uint8_t)kind, {0}, (uint32_t)strlen(path), (uint32_t)length, 0, inode, offset};
    put(&head, sizeof head);
    put(path, strlen(path));
    put(more, length);
}

void seam_note(const char *text) {
    pthread_mutex_lock(&serial);
    if (armed) record(NOTE, text, "", 0, 0, 0);
    pthread_mutex_unlock(&serial);
}

/* -- which calls are steps ---------------------------------------------------------------------------------------- */

static int ours(const char *path) {
    size_t length = strlen(path);
    int inside = !strncmp(path, root, root_length) || (length + 1 == root_length && !strncmp(path, root, length));
    /* The index of a log lives in shared memory, and no crash leaves it: whoever comes first makes it anew. */
    return inside && !(length > 4 && !strcmp(path + length - 4, "-shm"));
}

static int of_descriptor(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return ours(path);
}

static int of_path(int directory, const char *name, char *path) {
    if (*name == '/') {
        snprintf(path, PATH_MAX, "%s", name);
        return ours(path);
    }
    char place[PATH_MAX];
    if (directory == AT_FDCWD ? !getcwd(place, sizeof place) : !of_descriptor(directory, place)) return 0;
    size_t used = (size_t)snprintf(path, PATH_MAX, "%s", place);
    snprintf(path + used, PATH_MAX - used, "/%s", name);
    return ours(path);
}

static uint64_t inode_of(const char *path) {
    struct stat found;
    return fstatat(AT_FDCWD, path, &found, AT_SYMLINK_NOFOLLOW) ? 0 : found.st_ino;
}

/* What becomes of the step: 0 it is made; 1 a half of it is; -1 it is refused, and errno says why. */
static int step(int kind, const char *path) {
    /* Which folders are there already is chance (they are named by hashes), and so is the number of what comes before. */
    if ((fault == SHORT || fault == TORN) && kind != WRITE && !fired) return 0;
    int64_t this = steps++;
    if (fault == NONE || this < at) return 0;
    if (this == at) {
        fired = kind;
        snprintf(fired_path, sizeof fired_path, "%s", path);
        if (fault == KILL) {
            record(NOTE, path, NAMES[kind], strlen(NAMES[kind]), 0, (uint64_t)this); /* nobody can be asked later */
            syscall(SYS_kill, getpid(), SIGKILL);
        }
        if ((fault == SHORT || fault == TORN) && kind == WRITE) return 1;
    }
    int refuses = (fault == REFUSE && this == at) || fault == DEAD || (fault == TORN && this > at && !torn++);
    /* A full disk stays full, and still removes, renames and syncs. */
    if (fault == REFUSE_FROM) refuses = this == at || kind == WRITE || kind == CREATE || kind == MKDIR || kind == LINK;
    errno = number;
    return refuses ? -1 : 0;
}

#define BEGIN(kind, path)                                                                                              \
    pthread_mutex_lock(&serial);                                                                                       \
    int verdict = armed ? step(kind, path) : 0;                                                                        \
    if (verdict < 0) {                                                                                                 \
        int why = errno;                                                                                               \
        pthread_mutex_unlock(&serial);                                                                                 \
        errno = why;                                                                                                   \
        return -1;                                                                                                     \
    }
#define END(result)                                                                                                    \
    int why = errno;                                                                                                   \
    pthread_mutex_unlock(&serial);                                                                                     \
    errno = why;                                                                                                       \
    return result;

/* -- the calls ---------------------------------------------------------------------------------------------------- */

static int opened(int directory, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    int writes = (flags & (O_CREAT | O_TRUNC)) && (flags & O_TMPFILE) != O_TMPFILE;
    if (!armed || !writes || !of_path(directory, name, path))
        return (int)syscall(SYS_openat, directory, name, flags | O_LARGEFILE, mode);
    struct stat before;
    int is_new = fstatat(directory, name, &before, AT_SYMLINK_NOFOLLOW) != 0;
    if (!is_new && (!(flags & O_TRUNC) || before.st_size == 0))
        return (int)syscall(SYS_openat, directory, name, flags | O_LARGEFILE, mode);
    BEGIN(is_new ? CREATE : CUT, path)
    (void)verdict;
    int descriptor = (int)syscall(SYS_openat, directory, name, flags | O_LARGEFILE, mode);
    struct stat found;
    if (descriptor >= 0 && !fstat(descriptor, &found)) record(is_new ? CREATE : CUT, path, "", 0, found.st_ino, 0);
    END(descriptor)
}

#define OPEN(name, first, directory)                                                                                   \
    int name(first const char *path, int flags, ...) {                                                                 \
        mode_t mode = 0;                                                                                               \
        if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) {                                                     \
            va_list rest;                                                                                              \
            va_start(rest, flags);                                                                                     \
            mode = (mode_t)va_arg(rest, int);                                                                          \
            va_end(rest);                                                                                              \
        }                                                                                                              \
        return opened(directory, path, flags, mode);                                                                   \
    }
#define COMMA ,
OPEN(open, , AT_FDCWD)
OPEN(open64, , AT_FDCWD)
OPEN(openat, int at_directory COMMA, at_directory)
OPEN(openat64, int at_directory COMMA, at_directory)

static ssize_t written(int descriptor, const void *bytes, size_t length, off64_t offset, int moves) {
    char path[PATH_MAX];
    struct stat found;
    if (!armed || fstat(descriptor, &found) || !S_ISREG(found.st_mode) || !of_descriptor(descriptor, path))
        return moves ? syscall(SYS_write, descriptor, bytes, length) : syscall(SYS_pwrite64, descriptor, bytes, length, offset);
    BEGIN(WRITE, path)
    if (verdict && length > 1) length /= 2;
    if (moves) offset = lseek(descriptor, 0, SEEK_CUR);
    ssize_t done = moves ? syscall(SYS_write, descriptor, bytes, length) : syscall(SYS_pwrite64, descriptor, bytes, length, offset);
    if (done > 0) record(WRITE, path, bytes, (size_t)done, found.st_ino, (uint64_t)offset);
    END(done)
}

ssize_t write(int descriptor, const void *bytes, size_t length) { return written(descriptor, bytes, length, 0, 1); }
ssize_t pwrite(int descriptor, const void *bytes, size_t length, off_t offset) { return written(descriptor, bytes, length, offset, 0); }
ssize_t pwrite64(int descriptor, const void *bytes, size_t length, off64_t offset) { return written(descriptor, bytes, length, offset, 0); }

static int cut(int descriptor, off64_t length) {
    char path[PATH_MAX];
    struct stat found;
    if (!armed || fstat(descriptor, &found) || !of_descriptor(descriptor, path)) return (int)syscall(SYS_ftruncate, descriptor, length);
    BEGIN(CUT, path)
    (void)verdict;
    int done = (int)syscall(SYS_ftruncate, descriptor, length);
    if (!done) record(CUT, path, "", 0, found.st_ino, (uint64_t)length);
    END(done)
}
int ftruncate(int descriptor, off_t length) { return cut(descriptor, length); }
int ftruncate64(int descriptor, off64_t length) { return cut(descriptor, length); }

/* A record of a sync is all that is wanted of it: no machine is cut off here, and the tests make thousands. */
static int synced(int descriptor) {
    char path[PATH_MAX];
    struct stat found;
    if (fstat(descriptor, &found)) return -1;
    if (!armed || !of_descriptor(descriptor, path)) return 0;
    BEGIN(SYNC, path)
    (void)verdict;
    record(SYNC, path, "", 0, found.st_ino, 0);
    END(0)
}
int fsync(int descriptor) { return synced(descriptor); }
int fdatasync(int descriptor) { return synced(descriptor); }

static int named(int kind, int from, const char *old, int to, const char *new, unsigned flags) {
    char path[PATH_MAX], target[PATH_MAX];
    int watched = of_path(from, old, path);
    watched |= of_path(to, new, target);
    long call = kind == LINK ? SYS_linkat : SYS_renameat2;
    if (!armed || !watched) return (int)syscall(call, from, old, to, new, flags);
    BEGIN(kind, target)
    (void)verdict;
    int done = (int)syscall(call, from, old, to, new, flags);
    if (!done) record(kind, path, target, strlen(target), inode_of(target), 0);
    END(done)
}
int rename(const char *old, const char *new) { return named(RENAME, AT_FDCWD, old, AT_FDCWD, new, 0); }
int renameat(int from, const char *old, int to, const char *new) { return named(RENAME, from, old, to, new, 0); }
int renameat2(int from, const char *old, int to, const char *new, unsigned flags) { return named(RENAME, from, old, to, new, flags); }
int link(const char *old, const char *new) { return named(LINK, AT_FDCWD, old, AT_FDCWD, new, 0); }
int linkat(int from, const char *old, int to, const char *new, int flags) { return named(LINK, from, old, to, new, (unsigned)flags); }

static int removed(int directory, const char *name, int flags) {
    char path[PATH_MAX];
    int kind = flags & AT_REMOVEDIR ? RMDIR : UNLINK;
    if (!armed || !of_path(directory, name, path) || !inode_of(path)) return (int)syscall(SYS_unlinkat, directory, name, flags);
    BEGIN(kind, path)
    (void)verdict;
    int done = (int)syscall(SYS_unlinkat, directory, name, flags);
    if (!done) record(kind, path, "", 0, 0, 0);
    END(done)
}
int unlink(const char *name) { return removed(AT_FDCWD, name, 0); }
int unlinkat(int directory, const char *name, int flags) { return removed(directory, name, flags); }
int rmdir(const char *name) { return removed(AT_FDCWD, name, AT_REMOVEDIR); }

static int made(int directory, const char *name, mode_t mode) {
    char path[PATH_MAX];
    if (!armed || !of_path(directory, name, path) || inode_of(path)) return (int)syscall(SYS_mkdirat, directory, name, mode);
    BEGIN(MKDIR, path)
    (void)verdict;
    int done = (int)syscall(SYS_mkdirat, directory, name, mode);
    if (!done) record(MKDIR, path, "", 0, inode_of(path), 0);
    END(done)
}
int mkdir(const char *name, mode_t mode) { return made(AT_FDCWD, name, mode); }
int mkdirat(int directory, const char *name, mode_t mode) { return made(directory, name, mode); }
