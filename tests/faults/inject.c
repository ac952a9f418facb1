/* Preloaded into a process: counts its system calls that change files, and has the Nth of them fail, write less
   than it was asked to, or kill the process. What goes to pipes and terminals is neither counted nor touched. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST 100000
enum { OFF = 0, KILL_BEFORE = -1, KILL_AFTER = -2, SHORT = -3 }; /* a positive mode is an errno */

static long calls, target = -1;
static int mode = OFF;
static const char *names[MOST];

void inject_arm(long call, int what) { calls = 0; target = call; mode = what; }
long inject_calls(void) { return calls; }
const char *inject_name(long call) { return call > 0 && call <= calls && call < MOST ? names[call] : ""; }

static int hit(const char *name) {
    if (mode == OFF) return 0;
    if (++calls < MOST) names[calls] = name;
    if (calls != target) return 0;
    if (mode == KILL_BEFORE) kill(getpid(), SIGKILL);
    return 1;
}

static int regular(int descriptor) {
    struct stat status;
    int before = errno, found = fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
    errno = before;
    return found;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define INJECTED(name, call) \
    do { \
        int struck = hit(name); \
        if (struck && mode > 0) { errno = mode; return -1; } \
        __typeof__(call) result = call; \
        if (struck && mode == KILL_AFTER) kill(getpid(), SIGKILL); \
        return result; \
    } while (0)

#define SHORTENED(name, size, call) \
    do { \
        if (mode == SHORT && calls + 1 == target && (size) > 1) (size) /= 2; \
        INJECTED(name, call); \
    } while (0)

ssize_t write(int fd, const void *data, size_t size) {
    if (!regular(fd)) return REAL(write)(fd, data, size);
    SHORTENED("write", size, REAL(write)(fd, data, size));
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { SHORTENED("pwrite", size, REAL(pwrite)(fd, data, size, at)); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { SHORTENED("pwrite", size, REAL(pwrite64)(fd, data, size, at)); }
ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (!regular(fd)) return REAL(writev)(fd, parts, count);
    INJECTED("writev", REAL(writev)(fd, parts, count));
}
int fsync(int fd) { INJECTED("fsync", REAL(fsync)(fd)); }
int fdatasync(int fd) { INJECTED("fdatasync", REAL(fdatasync)(fd)); }
int syncfs(int fd) { INJECTED("syncfs", REAL(syncfs)(fd)); }
int ftruncate(int fd, off_t size) { INJECTED("ftruncate", REAL(ftruncate)(fd, size)); }
int ftruncate64(int fd, off64_t size) { INJECTED("ftruncate", REAL(ftruncate64)(fd, size)); }
int rename(const char *from, const char *to) { INJECTED("rename", REAL(rename)(from, to)); }
int renameat(int a, const char *from, int b, const char *to) { INJECTED("renameat", REAL(renameat)(a, from, b, to)); }
int link(const char *from, const char *to) { INJECTED("link", REAL(link)(from, to)); }
int symlink(const char *from, const char *to) { INJECTED("symlink", REAL(symlink)(from, to)); }
int mkdir(const char *path, mode_t rights) { INJECTED("mkdir", REAL(mkdir)(path, rights)); }
int mkdirat(int at, const char *path, mode_t rights) { INJECTED("mkdirat", REAL(mkdirat)(at, path, rights)); }
int unlink(const char *path) { INJECTED("unlink", REAL(unlink)(path)); }
int unlinkat(int at, const char *path, int flags) { INJECTED("unlinkat", REAL(unlinkat)(at, path, flags)); }
int rmdir(const char *path) { INJECTED("rmdir", REAL(rmdir)(path)); }

#define RIGHTS(flags) \
    mode_t rights = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); rights = va_arg(rest, mode_t); va_end(rest); }

int open(const char *path, int flags, ...) {
    RIGHTS(flags)
    if (!(flags & O_CREAT)) return REAL(open)(path, flags, rights);
    INJECTED("open", REAL(open)(path, flags, rights));
}
int open64(const char *path, int flags, ...) {
    RIGHTS(flags)
    if (!(flags & O_CREAT)) return REAL(open64)(path, flags, rights);
    INJECTED("open", REAL(open64)(path, flags, rights));
}
int openat(int at, const char *path, int flags, ...) {
    RIGHTS(flags)
    if (!(flags & O_CREAT)) return REAL(openat)(at, path, flags, rights);
    INJECTED("openat", REAL(openat)(at, path, flags, rights));
}
int openat64(int at, const char *path, int flags, ...) {
    RIGHTS(flags)
    if (!(flags & O_CREAT)) return REAL(openat64)(at, path, flags, rights);
    INJECTED("openat", REAL(openat64)(at, path, flags, rights));
}
