// A CUDA driver without a GPU: answers as PARO_STUB says, keeps what it was asked in stub_log. Compiled with
// PARO_STUB_LACKS it has no cuLibraryLoadData, as drivers before CUDA 12.
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kOutOfMemory = 2, kNoDevice = 100, kInvalidContext = 201, kNoBinaryForGpu = 209 };

char stub_log[1 << 16];

static int is(const char* mode) {
    const char* given = getenv("PARO_STUB");
    return given && strcmp(given, mode) == 0;
}
static void note(const char* text) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    strncat(stub_log, text, sizeof(stub_log) - strlen(stub_log) - 1);
    pthread_mutex_unlock(&lock);
}

static _Thread_local int contexts[8], depth;  // devices of the contexts that are current

int cuDriverGetVersion(int* version) {
    *version = is("old") ? 11080 : 13000;
    return 0;
}
int cuInit(unsigned flags) { return is("no device") ? kNoDevice : (int)flags; }
int cuGetErrorName(int error, const char** name) {
    *name = error == kOutOfMemory      ? "CUDA_ERROR_OUT_OF_MEMORY"
            : error == kNoDevice       ? "CUDA_ERROR_NO_DEVICE"
            : error == kNoBinaryForGpu ? "CUDA_ERROR_NO_BINARY_FOR_GPU"
                                       : NULL;
    return *name ? 0 : 1;
}
int cuGetErrorString(int error, const char** text) {
    *text = error == kOutOfMemory      ? "out of memory"
            : error == kNoDevice       ? "no CUDA-capable device is detected"
            : error == kNoBinaryForGpu ? "no kernel image is available for execution on the device"
                                       : NULL;
    return *text ? 0 : 1;
}
int cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
    (void)device;
    *value = attribute == 75 ? 9 : attribute == 76 ? 0 : attribute == 16 ? 132 : attribute == 81 ? 228 << 10 : 0;
    return 0;
}
int cuDevicePrimaryCtxRetain(void** context, int device) {
    *context = (void*)(size_t)(device + 1);
    return 0;
}
int cuCtxPushCurrent_v2(void* context) {
    contexts[depth++] = (int)(size_t)context - 1;
    return 0;
}
int cuCtxPopCurrent_v2(void** context) {
    *context = (void*)(size_t)(contexts[--depth] + 1);
    return 0;
}
int cuCtxGetDevice(int* device) {
    if (depth == 0) return kInvalidContext;
    *device = contexts[depth - 1];
    return 0;
}
#if !defined(PARO_STUB_LACKS)
int cuLibraryLoadData(void** library, const void* image, int* a, void** b, unsigned c, int* d, void** e, unsigned f) {
    (void)image, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f;
    note("load\n");
    if (is("no memory")) return kOutOfMemory;
    if (is("no binary")) return kNoBinaryForGpu;
    *library = (void*)1;
    return 0;
}
#endif
int cuLibraryGetKernel(void** kernel, void* library, const char* name) {
    (void)library;
    *kernel = strdup(name);
    return 0;
}
int cuKernelSetAttribute(int attribute, int value, void* kernel, int device) {
    char line[256];
    snprintf(line, sizeof(line), "grant %d on %d: %d to %s\n", attribute, device, value, (const char*)kernel);
    note(line);
    return 0;
}
int cuLaunchKernel(void* kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void* stream, void** arguments, void** extra) {
    char line[256];
    (void)arguments, (void)extra;
    if (gy * gz * by * bz != 1) return 1;
    snprintf(line, sizeof(line), "launch %s: %u x %u, %u bytes, stream %zu, device %d\n", (const char*)kernel, gx, bx,
             shared, (size_t)stream, depth ? contexts[depth - 1] : -1);
    note(line);
    return 0;
}
int cuMemsetD8Async(unsigned long long to, unsigned char value, size_t bytes, void* stream) {
    char line[128];
    (void)to, (void)stream;
    snprintf(line, sizeof(line), "set %zu bytes to %d\n", bytes, value);
    note(line);
    return 0;
}
int cuMemcpyDtoDAsync_v2(unsigned long long to, unsigned long long from, size_t bytes, void* stream) {
    (void)to, (void)from, (void)bytes, (void)stream;
    return 0;
}
