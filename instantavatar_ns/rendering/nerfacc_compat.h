// Force-included when nerfacc's CUDA sources are compiled, so that nerfacc 0.5.2 builds with today's compilers.
#ifdef __CUDACC__
#include <torch/extension.h>
// C++20's <cmath>, which PyTorch 2.13 and newer ask for, has a std::lerp that collides with nerfacc's own.
#define lerp nerfacc_lerp
#include <cub/version.cuh>
#if CUB_VERSION >= 300000
// CUDA 13 removed cub::Equality; nerfacc compares keys with it.
namespace cub {
struct Equality {
    template <typename T, typename U>
    __host__ __device__ __forceinline__ constexpr bool operator()(T&& t, U&& u) const {
        return t == u;
    }
};
}  // namespace cub
#endif
#endif
