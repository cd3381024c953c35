// OpenGL's functions of the current context, looked up at run time.
#pragma once

namespace paro::viewer::gl {

using Proc = void (*)();
using GetProc = Proc (*)(const char* name);

// Throws Error naming what is missing if the context offers less than OpenGL 3.3.
void load(GetProc get_proc);

}  // namespace paro::viewer::gl
