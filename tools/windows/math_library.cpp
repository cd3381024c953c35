// The complex functions of C that numpy imports. Windows' runtime has them; wine's has stubs that end the program.
#include <complex>

namespace {

// As _Fcomplex and _Dcomplex: a class of C++ would be passed in other registers. long double is double on Windows.
template <typename T>
struct Pair {
    T real, imag;
};
using Single = Pair<float>;
using Double = Pair<double>;

template <typename T>
std::complex<T> number(Pair<T> x) {
    return {x.real, x.imag};
}

template <typename T>
Pair<T> pair(std::complex<T> z) {
    return {z.real(), z.imag()};
}

}  // namespace

#define PARO_REAL(name)                                                                  \
    float paro_c##name##f(Single x) { return std::name(number(x)); }                     \
    double paro_c##name(Double x) { return std::name(number(x)); }                       \
    double paro_c##name##l(Double x) { return std::name(number(x)); }
#define PARO_COMPLEX(name)                                                               \
    Single paro_c##name##f(Single x) { return pair(std::name(number(x))); }              \
    Double paro_c##name(Double x) { return pair(std::name(number(x))); }                 \
    Double paro_c##name##l(Double x) { return pair(std::name(number(x))); }

extern "C" {

PARO_REAL(abs)
PARO_REAL(arg)
PARO_REAL(real)
PARO_REAL(imag)
PARO_COMPLEX(exp)
PARO_COMPLEX(log)
PARO_COMPLEX(sqrt)
PARO_COMPLEX(sin)
PARO_COMPLEX(cos)
PARO_COMPLEX(tan)
PARO_COMPLEX(sinh)
PARO_COMPLEX(cosh)
PARO_COMPLEX(tanh)

Single paro_cpowf(Single x, Single y) { return pair(std::pow(number(x), number(y))); }
Double paro_cpow(Double x, Double y) { return pair(std::pow(number(x), number(y))); }
Double paro_cpowl(Double x, Double y) { return pair(std::pow(number(x), number(y))); }

}
