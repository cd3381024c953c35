#include "edge.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <new>
#include <string>

#include "paro/cuda/launch.h"
#include "paro/error.h"

#if defined(__MINGW32__)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#endif

// Also in the version script of the library (CMakeLists.txt): nothing else is exported.
#if defined(_WIN32)
#define PARO_ENTRY extern "C" __declspec(dllexport)
#else
#define PARO_ENTRY extern "C" __attribute__((visibility("default")))
#endif

namespace paro::torch_ops {
namespace {

// Plain memory: a string's destructor would have to be registered with one runtime or another for every thread.
thread_local Status last_status = Status::ok;
thread_local char last_text[1024] = "";

void keep(Status status, const char* text) noexcept {
    last_status = status;
    const std::size_t count = std::min(std::strlen(text), sizeof(last_text) - 1);
    std::memcpy(last_text, text, count);
    last_text[count] = '\0';
}

// Runs `call` and keeps what came of it. Whether it ran to its end.
template <class Call>
bool guard(Call call) noexcept {
    try {
        call();
        last_status = Status::ok;
        return true;
    } catch (const OutOfMemory& error) {
        keep(Status::out_of_memory, error.what());
    } catch (const std::bad_alloc&) {
        keep(Status::out_of_memory, "no memory on the host");
    } catch (const cuda::LaunchError& error) {
        // Loading a kernel takes memory too.
        keep(error.out_of_memory() ? Status::out_of_memory : Status::failed, error.what());
    } catch (const paro::Error& error) {
        keep(Status::refused, error.what());
    } catch (const std::exception& error) {
        keep(Status::failed, error.what());
    } catch (...) {
        keep(Status::failed, "an exception of an unknown type");
    }
    return false;
}

// The namespace of the operators as they stand here; operators.py defines those of `paro` over them.
constexpr const char* kNamespace = "paro_native";

void require_registered(AOTITorchError code, const char* what) {
    if (code != AOTI_TORCH_SUCCESS) fail("torch", "must take the operators: its answer is in its log", what);
}

// Kernels stand under CPU too, where they refuse their tensors by name.
void register_operators() {
    TorchLibraryHandle defined = nullptr;
    require_registered(aoti_torch_library_init_fragment(kNamespace, __FILE__, __LINE__, &defined), kNamespace);
    const std::span<const Operator> groups[] = {attention_operators(), observing_operators()};
    for (const auto& group : groups) {
        for (const Operator& one : group) require_registered(aoti_torch_library_def(defined, one.schema), one.schema);
    }
    for (const char* key : {"CPU", "CUDA"}) {
        TorchLibraryHandle implemented = nullptr;
        require_registered(aoti_torch_library_init_impl(kNamespace, key, __FILE__, __LINE__, &implemented), key);
        for (const auto& group : groups) {
            for (const Operator& one : group) {
                const std::string name(one.schema, std::strcspn(one.schema, "("));
                require_registered(aoti_torch_library_impl(implemented, name.c_str(), one.kernel), one.schema);
            }
        }
    }
    // The handles are never deleted: operators stay until the process ends.
}

}  // namespace

#if defined(__MINGW32__)
// Torch is linked with ucrtbase.dll and this library with msvcrt.dll. Without the former it is let go rather than freed
// in the wrong heap.
void free_in_torch(void* memory) noexcept {
    using Free = void (*)(void*);
    static const Free release = [] {
        const HMODULE runtime = GetModuleHandleA("ucrtbase.dll");
        return runtime ? reinterpret_cast<Free>(reinterpret_cast<void*>(GetProcAddress(runtime, "free"))) : nullptr;
    }();
    if (release) release(memory);
}
#endif

void call_guarded(Boxed kernel, StableIValue* stack, std::uint64_t inputs, std::uint64_t outputs) noexcept {
    if (guard([&] { kernel(stack, inputs, outputs); })) return;
    // The inputs are gone; what lies on the stack now is taken for tensors.
    for (std::uint64_t i = 0; i < outputs; ++i) {
        AtenTensorHandle undefined = nullptr;
        aoti_torch_new_uninitialized_tensor(&undefined);
        stack[i] = torch::stable::detail::from(undefined);
    }
}

}  // namespace paro::torch_ops

// Defines torch.ops.paro_native.*, once a process. A Status.
PARO_ENTRY std::int32_t paro_register_operators() noexcept {
    paro::torch_ops::guard(paro::torch_ops::register_operators);
    return static_cast<std::int32_t>(paro::torch_ops::last_status);
}

// What came of this thread's last call of an operator. A Status.
PARO_ENTRY std::int32_t paro_last_status() noexcept { return static_cast<std::int32_t>(paro::torch_ops::last_status); }

// Why it failed: UTF-8, good until the thread's next call; of no meaning where the status is ok.
PARO_ENTRY const char* paro_last_error() noexcept { return paro::torch_ops::last_text; }
