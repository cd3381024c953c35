// Kernels on a CPU: what driver/kernel.h and kernel.cuh are on a GPU.
#pragma once

#include <cstddef>
#include <functional>
#include <utility>

#include "cta_shapes.h"
#include "emulated_launch.h"
#include "paro/cuda/params.h"

namespace paro::cuda {

class Kernel {
   public:
    template <class... P>
    Kernel(const char* name, void (*body)(P...))
        : name_(name),
          parameter_bytes_(cuda::parameter_bytes<P...>()),
          run_([body](void** arguments) { call(body, arguments, std::index_sequence_for<P...>()); }) {}

    const char* name() const { return name_; }
    int parameter_bytes() const { return parameter_bytes_; }
    // Returns when all threads have ended.
    void launch(unsigned grid, unsigned threads, unsigned shared_bytes, Stream stream, void** arguments);

   private:
    template <class... P, std::size_t... I>
    static void call(void (*body)(P...), void** arguments, std::index_sequence<I...>) {
        body(*static_cast<const P*>(arguments[I])...);
    }
    const char* name_;
    int parameter_bytes_;
    std::function<void(void**)> run_;
};

}  // namespace paro::cuda

#define PARO_KERNEL(name, bounds, parameters, ...)      \
    static void name##_body parameters { __VA_ARGS__; } \
    namespace kernels {                                 \
    extern Kernel name;                                 \
    Kernel name(#name, name##_body);                    \
    }
