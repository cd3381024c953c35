// The host's side of launches, on a CPU: what native/cuda/src/driver does on a GPU.
#include <cstring>

#include "emulated_kernel.h"
#include "launch_kernel.h"
#include "paro/cuda/launch.h"

namespace paro::cuda {

// Few, so that persistent kernels take several turns.
int multiprocessors() { return 2; }
int shared_memory_limit() { return emulator::kSharedBytes; }

void fill_zeros(void* to, std::size_t bytes, Stream) { std::memset(to, 0, bytes); }
void copy_on_device(void* to, const void* from, std::size_t bytes, Stream) { std::memcpy(to, from, bytes); }

void Kernel::launch(unsigned grid, unsigned threads, unsigned shared_bytes, Stream, void** arguments) {
    require(shared_bytes <= emulator::kSharedBytes, name_, "must fit the shared memory", shared_bytes);
    // What a kernel reads without having written it must show.
    std::memset(emulator::dynamic_shared, 0xff, emulator::kSharedBytes);
    emulator::run(grid, threads, [&] { run_(arguments); });
}

}  // namespace paro::cuda
