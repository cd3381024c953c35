// Faults at system calls, for tests: loaded by LD_PRELOAD, steered by a file that the test maps too (syscalls.py).
//
// It counts the calls that a process makes on files below one folder. The n-th one ends the process by SIGKILL, before it
// is made or in the middle of what it writes; or it fails, and after it whatever needs space on the disk. It also moves
// the clock of the day.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { kKill = 1, kFail = 2, kNames = 256, kName = 24 };

// As syscalls.py has it. at: the call that breaks, from 1; 0 for none. error: what a call that fails says.
struct Control {
    int64_t at, action, error, count, clock;
    char folder[PATH_MAX];
    char names[kNames][kName];
};

static struct Control* control;

__attribute__((constructor)) static void begin(void) {
    const char* path = getenv("PARO_FAULTS_CONTROL");
    const int handle = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (handle < 0) return;
    void* found = mmap(NULL, sizeof(struct Control), PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
    close(handle);
    if (found != MAP_FAILED) control = found;
}

static void* next(const char* name) { return dlsym(RTLD_NEXT, name); }

static int inside(const char* path) {
    if (!control || !control->folder[0] || !path) return 0;
    const size_t length = strlen(control->folder);
    return strncmp(path, control->folder, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static int inside_handle(int handle) {
    char link[64], path[PATH_MAX];
    if (!control || !control->folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    const ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return inside(path);
}

// Counts a call; returns whether it breaks. space: a disk that is full stays so.
static int counted(const char* name, int space) {
    const int64_t count = __atomic_add_fetch(&control->count, 1, __ATOMIC_SEQ_CST), at = control->at;
    if (count <= kNames) snprintf(control->names[count - 1], kName, "%s", name);
    return count == at || (space && control->action == kFail && at > 0 && count > at);
}

// For calls that either happen or not. Returns whether this one must not.
static int broken(const char* name, int space) {
    if (!counted(name, space)) return 0;
    if (control->action == kKill) kill(getpid(), SIGKILL);
    errno = (int)control->error;
    return 1;
}

#define OPEN(NAME)                                                        \
    int NAME(const char* path, int flags, ...) {                          \
        mode_t mode = 0;                                                  \
        if (flags & (O_CREAT | O_TMPFILE)) {                              \
            va_list rest;                                                 \
            va_start(rest, flags);                                        \
            mode = va_arg(rest, mode_t);                                  \
            va_end(rest);                                                 \
        }                                                                 \
        const int writes = (flags & O_ACCMODE) != O_RDONLY;               \
        if (writes && inside(path) && broken("open", flags & O_CREAT)) return -1;          \
        return ((int (*)(const char*, int, ...))next(#NAME))(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

ssize_t write(int handle, const void* bytes, size_t size) {
    ssize_t (*real)(int, const void*, size_t) = next("write");
    if (!inside_handle(handle) || !counted("write", 1)) return real(handle, bytes, size);
    if (control->count > control->at) {
        errno = (int)control->error;
        return -1;
    }
    // The first one finds room for a part.
    const ssize_t written = real(handle, bytes, size / 2);
    if (control->action == kKill) kill(getpid(), SIGKILL);
    return written;
}

#define HANDLE(NAME)                                              \
    int NAME(int handle) {                                        \
        if (inside_handle(handle) && broken(#NAME, 0)) return -1;    \
        return ((int (*)(int))next(#NAME))(handle);               \
    }
HANDLE(fsync)

int close(int handle) {
    int (*real)(int) = next("close");
    if (!inside_handle(handle) || !broken("close", 0)) return real(handle);
    real(handle);
    errno = (int)control->error;
    return -1;
}

int rename(const char* from, const char* to) {
    if (inside(to) && broken("rename", 0)) return -1;
    return ((int (*)(const char*, const char*))next("rename"))(from, to);
}

int mkdir(const char* path, mode_t mode) {
    if (inside(path) && broken("mkdir", 1)) return -1;
    return ((int (*)(const char*, mode_t))next("mkdir"))(path, mode);
}

// -- the clock of the day ---------------------------------------------------------------------------------------------

int clock_gettime(clockid_t clock, struct timespec* out) {
    const int result = ((int (*)(clockid_t, struct timespec*))next("clock_gettime"))(clock, out);
    if (result == 0 && control && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        out->tv_sec += control->clock;
    }
    return result;
}

int gettimeofday(struct timeval* restrict out, void* restrict zone) {
    const int result = ((int (*)(struct timeval*, void*))next("gettimeofday"))(out, zone);
    if (result == 0 && control) out->tv_sec += control->clock;
    return result;
}

time_t time(time_t* out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
