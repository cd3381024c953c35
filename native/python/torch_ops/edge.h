// The library's edge. Nothing thrown leaves it: a process may hold several C++ runtimes, and an exception that crosses
// from one into another ends the process. An operator that fails returns undefined tensors (None in Python) and keeps
// a status and a text, which paroattention/kernels/operators.py fetches after each call and raises.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>

#include <cstdint>
#include <span>
#include <stdexcept>

namespace paro::torch_ops {

// The same numbers stand in paroattention/kernels/operators.py.
enum class Status : std::int32_t { ok = 0, refused = 1, out_of_memory = 2, failed = 3 };

// torch's allocator had no memory for scratch or output.
class OutOfMemory : public std::runtime_error {
   public:
    using std::runtime_error::runtime_error;
};

// A kernel as torch's stable ABI calls it: inputs on a stack, outputs in their place.
using Boxed = void (*)(StableIValue* stack, std::uint64_t inputs, std::uint64_t outputs);

// Calls `kernel`, keeps this thread's status and, where it is not ok, its text; `stack` is valid either way. All
// outputs must be tensors.
void call_guarded(Boxed kernel, StableIValue* stack, std::uint64_t inputs, std::uint64_t outputs) noexcept;

template <Boxed kernel>
void guarded(StableIValue* stack, std::uint64_t inputs, std::uint64_t outputs) noexcept {
    call_guarded(kernel, stack, inputs, outputs);
}

struct Operator {
    const char* schema;  // "name.overload(arguments) -> returns", as torch's Library.define takes it
    Boxed kernel;
};

#if defined(__MINGW32__)
// Frees what torch's own runtime has allocated: ours would take it for memory of another heap.
void free_in_torch(void* memory) noexcept;
#endif

std::span<const Operator> attention_operators();
std::span<const Operator> observing_operators();

}  // namespace paro::torch_ops

#define PARO_BOX(function) (&::paro::torch_ops::guarded<&TORCH_BOX(&function)>)
