// Threads of the core: one lazily started process-wide pool, shared by attention and plan building.
#pragma once

#include <cstdint>
#include <functional>

namespace paro {

// What `threads` means everywhere: itself if positive, else hardware concurrency; at most 1024. Scratch per worker is
// sized by this.
int resolve_threads(int threads);

// Calls body(index, worker) once for every index in [0, count), indices handed out in increasing order; worker in
// [0, threads). threads <= 0 means hardware concurrency. The caller works too. The first exception is rethrown after
// all workers have stopped, and no further index is handed out after it. A call from inside a body runs on its own
// thread, as worker 0. Safe to call from several threads at once (calls then queue) and after fork.
void parallel_for(std::int64_t count, int threads, const std::function<void(std::int64_t index, int worker)>& body);

}  // namespace paro
