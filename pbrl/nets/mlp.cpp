// Multilayer perceptrons of a stack, forward and backward, on a CPU in float32: see pbrl/nets/kernels.py.
//
// A panel is R rows of the batch as columns, [features][R]. It goes through all layers of its network while it lies in a
// core's first cache; weights are read as they are. Threads share out panels and, in the backward pass, blocks of R
// columns of the weights' gradients. Every number is summed by one thread in a fixed order, so results depend neither on
// the number of threads nor on the other networks.
//
// Where products are rounded, the operands of wide layers are bfloat16 numbers, two to a word, sums are float32. The two
// of a word follow each other in the direction of the sum; so an operand exists in two forms: "pairs", of two features
// of a row of the batch, and "rows", of two rows of the batch.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <omp.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace {

using at::Tensor;
using at::TensorList;

#ifdef __AVX512F__
constexpr int V = 16, M = 8;  // numbers in a vector, and how many rows of a product are summed at once
#else
constexpr int V = 8, M = 4;
#endif
constexpr int R = 2 * V;
constexpr int64_t ROWS = 32;                // a batch is padded to a multiple of this, whatever R
constexpr int64_t NARROW = 8;               // weights with so few outputs have a gradient of dot products
constexpr int64_t WIDE = 64, MULTIPLE = 32;  // layers that are rounded: at least so wide, and a multiple of this

typedef float vec __attribute__((vector_size(4 * V)));
typedef float loose __attribute__((vector_size(4 * V), aligned(4), may_alias));
typedef int32_t order __attribute__((vector_size(4 * V)));

inline vec load(const float* from) { return *reinterpret_cast<const loose*>(from); }
inline void store(float* to, vec x) { *reinterpret_cast<loose*>(to) = x; }

#ifdef __AVX512BF16__
constexpr bool ROUNDS = true;
inline vec halves(vec low, vec high) { return (vec)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low); }
inline vec pairs(vec first, vec second) {  // words of first[j] and second[j]
  alignas(64) static constexpr auto zipped = [] {
    std::array<int16_t, 32> at{};
    for (int16_t j = 0; j < 32; j++) at[j] = j / 2 + j % 2 * 16;
    return at;
  }();
  return (vec)_mm512_permutexvar_epi16(_mm512_load_si512(zipped.data()), (__m512i)halves(first, second));
}
inline vec plus_product(vec sum, vec a, vec b) { return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b); }
#else
constexpr bool ROUNDS = false;
inline vec halves(vec low, vec) { return low; }
inline vec pairs(vec first, vec) { return first; }
inline vec plus_product(vec sum, vec, vec) { return sum; }
#endif

// acc[i] += sum_k a[i * row + k * step] b[k][0..R), of rounded pairs where ``rounded``. What the next rows will need of
// ``a`` is fetched meanwhile: it may lie in the last cache, and the processor itself does not foresee such strides.
template <bool rounded, int m>
__attribute__((always_inline)) inline void product(
    vec (&acc)[m][2], const float* a, int64_t row, int64_t step, const float* b, int64_t k_end) {
  const float* const next = row == 1 ? a + 16 : a + m * row;
  const int64_t next_step = row == 1 ? step : m;
  for (int64_t k = 0; k < k_end; k++) {
    __builtin_prefetch(next + k * next_step);
    const vec left = load(b + k * R), right = load(b + k * R + V);
#pragma GCC unroll 8
    for (int i = 0; i < m; i++) {
      const float factor = a[i * row + k * step];
      if constexpr (rounded) {
        int32_t word;
        __builtin_memcpy(&word, &factor, sizeof word);
        const vec both = (vec)(order{} + word);
        acc[i][0] = plus_product(acc[i][0], both, left);
        acc[i][1] = plus_product(acc[i][1], both, right);
      } else {
        acc[i][0] += factor * left;
        acc[i][1] += factor * right;
      }
    }
  }
}

// body(std::integral_constant<int, m>, i) for rows i..i+m of 0..rows
template <typename Body>
__attribute__((always_inline)) inline void in_tiles(int64_t rows, const Body& body) {
  int64_t i = 0;
  for (; i + M <= rows; i += M) body(std::integral_constant<int, M>(), i);
  if (M > 4 && i + 4 <= rows) body(std::integral_constant<int, 4>(), i), i += 4;
  if (i + 2 <= rows) body(std::integral_constant<int, 2>(), i), i += 2;
  if (i < rows) body(std::integral_constant<int, 1>(), i);
}

// One of log2(V) rounds that transpose V vectors: the two's numbers in turn.
template <int... j>
inline void interleave(vec a, vec b, vec& low, vec& high, std::integer_sequence<int, j...>) {
#if __has_builtin(__builtin_shufflevector)
  low = __builtin_shufflevector(a, b, (j / 2 + j % 2 * V)...);
  high = __builtin_shufflevector(a, b, (j / 2 + j % 2 * V + V / 2)...);
#else
  low = __builtin_shuffle(a, b, order{(j / 2 + j % 2 * V)...});
  high = __builtin_shuffle(a, b, order{(j / 2 + j % 2 * V + V / 2)...});
#endif
}

inline void transpose_square(const float* from, int64_t from_row, float* to, int64_t to_row) {
  vec x[V], y[V];
#pragma GCC unroll 16
  for (int i = 0; i < V; i++) x[i] = load(from + i * from_row);
#pragma GCC unroll 4
  for (int round = 1; round < V; round *= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < V / 2; i++)
      interleave(x[i], x[i + V / 2], y[2 * i], y[2 * i + 1], std::make_integer_sequence<int, V>());
#pragma GCC unroll 16
    for (int i = 0; i < V; i++) x[i] = y[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < V; i++) store(to + i * to_row, x[i]);
}

// to[j][i] = from[i][j]
void transpose(const float* from, int64_t from_row, int64_t rows, int64_t columns, float* to, int64_t to_row) {
  for (int64_t i = 0; i < rows; i += V)
    for (int64_t j = 0; j < columns; j += V)
      if (i + V <= rows && j + V <= columns) {
        transpose_square(from + i * from_row + j, from_row, to + j * to_row + i, to_row);
      } else {
        for (int64_t s = i; s < std::min(i + V, rows); s++)
          for (int64_t t = j; t < std::min(j + V, columns); t++) to[t * to_row + s] = from[s * from_row + t];
      }
}

// A batch's rows as a panel [features][R], with zeros for rows that it lacks.
void to_panel(const float* from, int64_t rows, int64_t features, float* panel) {
  if (rows < R) std::fill_n(panel, features * R, 0.f);
  if (rows > 0) transpose(from, features, rows, features, panel, R);
}

// An operand of one panel. Rounded: ``pairs`` [features / 2][R] and ``rows`` [features][R / 2], either may be missing.
// Otherwise [features][R] at ``pairs``.
struct Operand {
  bool rounded;
  float *pairs, *rows;
};

template <int m>
__attribute__((always_inline)) inline void put(const Operand& to, int64_t i, const vec (&z)[m][2]) {
  if (!to.rounded) {
    for (int j = 0; j < m; j++) store(to.pairs + (i + j) * R, z[j][0]), store(to.pairs + (i + j) * R + V, z[j][1]);
  } else if constexpr (m % 2 == 0) {  // rounded layers have whole tiles
    for (int j = 0; to.rows && j < m; j++) store(to.rows + (i + j) * V, halves(z[j][0], z[j][1]));
    for (int j = 0; to.pairs && j < m; j += 2)
      for (int half = 0; half < 2; half++)
        store(to.pairs + (i + j) / 2 * R + half * V, pairs(z[j][half], z[j + 1][half]));
  }
}

// What ``put`` makes of a panel [features][R].
void put_panel(const Operand& to, int64_t features, const float* panel) {
  in_tiles(features, [&](auto size, int64_t i) {
    constexpr int m = decltype(size)::value;
    vec z[m][2];
    for (int j = 0; j < m; j++) z[j][0] = load(panel + (i + j) * R), z[j][1] = load(panel + (i + j) * R + V);
    put<m>(to, i, z);
  });
}

inline vec below_zero(vec sign, vec x, float slope) { return sign <= 0.f ? (slope == 0.f ? vec{} : slope * x) : x; }

struct Activation {
  bool on;
  float slope;
};

// y = activation(w^T x + b); w [in, out], rounded: [in / 2, out]
template <bool rounded>
void forward_layer(
    const float* w, const float* bias, int64_t in, int64_t out, const float* x, const Operand& y, Activation activation) {
  in_tiles(out, [&](auto size, int64_t i) {
    constexpr int m = decltype(size)::value;
    vec acc[m][2];
    for (int j = 0; j < m; j++) acc[j][0] = acc[j][1] = vec{} + bias[i + j];
    product<rounded, m>(acc, w + i, 1, out, x, rounded ? in / 2 : in);
    for (int j = 0; activation.on && j < m; j++)
      for (vec& z : acc[j]) z = below_zero(z, z, activation.slope);
    put<m>(y, i, acc);
  });
}

// dx = w dz, times the activation's slope at its output h, the input of this layer, where there is one; rounded: w
// [in, out / 2]
template <bool rounded>
void backward_layer(
    const float* w, int64_t in, int64_t out, const float* dz, const float* h, const Operand& dx, float slope) {
  const int64_t row = rounded ? out / 2 : out;
  in_tiles(in, [&](auto size, int64_t i) {
    constexpr int m = decltype(size)::value;
    vec acc[m][2] = {};
    product<rounded, m>(acc, w + i * row, row, 1, dz, row);
    for (int j = 0; h && j < m; j++) {
      vec signs[2];
      if (rounded) {  // a word's second number is its upper half
        const order words = (order)load(h + (i + j) * V);
        vec even = (vec)(words << 16), odd = (vec)(words & ~0xFFFF);
        interleave(even, odd, signs[0], signs[1], std::make_integer_sequence<int, V>());
      } else {
        signs[0] = load(h + (i + j) * R), signs[1] = load(h + (i + j) * R + V);
      }
      for (int half = 0; half < 2; half++) acc[j][half] = below_zero(signs[half], acc[j][half], slope);
    }
    put<m>(dx, i, acc);
  });
}

// R columns of dw[in, out] = x dz and of db; x [panels][record], dz [panels][depth][R], depth being R, rounded: R / 2
template <bool rounded>
void weight_block(
    const float* x, int64_t record, int64_t panels, int64_t in, const float* dz, int64_t out, int64_t columns, float* dw,
    float* db) {
  constexpr int64_t depth = rounded ? R / 2 : R;
  auto save = [&](float* to, const vec (&sum)[2]) {
    if (columns == R) {
      store(to, sum[0]), store(to + V, sum[1]);
    } else {
      for (int64_t c = 0; c < columns; c++) to[c] = sum[c / V][c % V];
    }
  };
  in_tiles(in, [&](auto size, int64_t i) {
    constexpr int m = decltype(size)::value;
    vec acc[m][2] = {};
    for (int64_t p = 0; p < panels; p++)
      product<rounded, m>(acc, x + p * record + i * depth, depth, 1, dz + p * depth * R, depth);
    for (int j = 0; j < m; j++) save(dw + (i + j) * out, acc[j]);
  });
  const float ones[1] = {rounded ? 0x1.007fp0f : 1.f};  // rounded: two ones to a word
  vec sum[1][2] = {};
  for (int64_t k = 0; k < panels * depth; k++) product<rounded, 1>(sum, ones, 0, 0, dz + k * R, 1);
  save(db, sum[0]);
}

inline float total(vec x) {
  float sum = 0.f;
  for (int i = 0; i < V; i++) sum += x[i];
  return sum;
}

// The same for few outputs; dz [panels][out][R]
void narrow_weight(
    const float* x, int64_t record, int64_t panels, int64_t in, const float* dz, int64_t out, float* dw, float* db) {
  for (int64_t o = 0; o < out; o++) {
    for (int64_t i = 0; i < in; i++) {
      vec sum[2] = {};
      for (int64_t p = 0; p < panels; p++)
        for (int half = 0; half < 2; half++)
          sum[half] += load(x + p * record + i * R + half * V) * load(dz + (p * out + o) * R + half * V);
      dw[i * out + o] = total(sum[0] + sum[1]);
    }
    vec sum = {};
    for (int64_t p = 0; p < panels; p++) sum += load(dz + (p * out + o) * R) + load(dz + (p * out + o) * R + V);
    db[o] = total(sum);
  }
}

struct Layer {
  int64_t in, out;
  bool rounded;
  int64_t start;  // of its input in a panel's record, in words
  int64_t input() const { return in * (rounded ? R / 2 : R); }
  int64_t weight() const { return rounded ? in * out / 2 : in * out; }
};

struct Stack {
  int64_t networks, batch, panels, shared;  // ``shared``: how many networks in a row have the same input
  std::vector<Layer> layers;
  std::vector<Tensor> weights;
  int64_t record = 0, widest = 0;  // words of a panel's record, and features of the widest layer

  Stack(const Tensor& x, TensorList of_layers, bool rounded) : networks(of_layers[0].size(0)), batch(x.size(1)) {
    shared = networks / x.size(0);
    panels = (batch + ROWS - 1) / ROWS * ROWS / R;
    for (const Tensor& weight : of_layers) {
      const int64_t in = weight.size(1), out = weight.size(2);
      const bool fits = std::min(in, out) >= WIDE && in % MULTIPLE == 0 && out % MULTIPLE == 0;
      layers.push_back({in, out, ROUNDS && rounded && fits, record});
      weights.push_back(weight.contiguous());
      record += layers.back().input();
      widest = std::max({widest, in, out});
    }
  }
  int64_t last() const { return static_cast<int64_t>(layers.size()) - 1; }
  int64_t rows_of(int64_t panel) const { return std::max<int64_t>(0, std::min<int64_t>(R, batch - panel * R)); }
  const float* weight(int64_t layer, int64_t n) const {
    return weights[layer].data_ptr<float>() + n * layers[layer].weight();
  }

  // Weights of rounded layers in pairs along the sum: of inputs [in / 2, out], or of outputs [in, out / 2].
  void round_weights(bool of_inputs) {
    for (size_t l = 0; l < layers.size(); l++) {
      if (!layers[l].rounded) continue;
      const int64_t in = layers[l].in, out = layers[l].out;
      const Tensor exact = weights[l];
      weights[l] = at::empty({networks, layers[l].weight()}, exact.options());
      const float* const from = exact.data_ptr<float>();
      float* const to = weights[l].data_ptr<float>();
#pragma omp parallel for schedule(static)
      for (int64_t row = 0; row < networks * in / 2; row++)
        for (int64_t o = 0; o < out; o += V) {
          const float *const first = from + 2 * row * out + o, *const second = first + out;
          if (of_inputs) {
            store(to + row * out + o, pairs(load(first), load(second)));
          } else if (o % R == 0) {
            store(to + row * out + o / 2, halves(load(first), load(first + V)));
            store(to + row * out + (out + o) / 2, halves(load(second), load(second + V)));
          }
        }
    }
  }
};

// Memory that begins at a vector's boundary.
struct Space {
  std::vector<float> memory;
  float* at;
  explicit Space(int64_t size) : memory(size + V) {
    const auto boundary = static_cast<uintptr_t>(4 * V);
    at = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(memory.data()) + boundary - 1) / boundary * boundary);
  }
};

// -> y [networks, batch, out], and the inputs of all layers as records of panels where ``keep``
std::tuple<Tensor, Tensor> mlp(
    const Tensor& x_, TensorList weights, TensorList biases_, double slope, bool rounded, bool keep) {
  const Tensor x = x_.contiguous();
  std::vector<Tensor> biases;
  for (const Tensor& bias : biases_) biases.push_back(bias.contiguous());
  Stack s(x, weights, rounded);
  s.round_weights(true);
  const int64_t in = s.layers[0].in, out = s.layers.back().out;
  Tensor y = at::empty({s.networks, s.batch, out}, x.options());
  Tensor kept = at::empty({s.networks, keep ? s.panels * s.record : 0}, x.options());
#pragma omp parallel if (s.networks * s.panels > 1)
  {
    const Space own(3 * s.widest * R);
#pragma omp for schedule(static)
    for (int64_t task = 0; task < s.networks * s.panels; task++) {
      const int64_t n = task / s.panels, p = task % s.panels;
      auto input = [&](int64_t l) -> Operand {
        float* const here = own.at + l % 2 * s.widest * R;
        if (l > s.last()) return {false, here, nullptr};
        float* const record = keep ? kept.data_ptr<float>() + task * s.record + s.layers[l].start : nullptr;
        if (s.layers[l].rounded) return {true, here, record};
        return {false, keep ? record : here, nullptr};
      };
      float* const first = s.layers[0].rounded ? own.at + 2 * s.widest * R : input(0).pairs;
      to_panel(x.data_ptr<float>() + (n / s.shared * s.batch + p * R) * in, s.rows_of(p), in, first);
      if (s.layers[0].rounded) put_panel(input(0), in, first);
      for (int64_t l = 0; l <= s.last(); l++) {
        const Layer& layer = s.layers[l];
        const float* const bias = biases[l].data_ptr<float>() + n * layer.out;
        const Activation activation{l < s.last(), static_cast<float>(slope)};
        (layer.rounded ? forward_layer<ROUNDS> : forward_layer<false>)(
            s.weight(l, n), bias, layer.in, layer.out, input(l).pairs, input(l + 1), activation);
      }
      transpose(input(s.last() + 1).pairs, R, out, s.rows_of(p), y.data_ptr<float>() + (n * s.batch + p * R) * out, out);
    }
  }
  return {y, kept};
}

// -> [dx or nothing, dw..., db... or nothing]
std::vector<Tensor> mlp_backward(
    const Tensor& grad_, const Tensor& x, const Tensor& kept, TensorList weights, double slope, bool rounded, bool to_x,
    bool to_weights) {
  const Tensor grad = grad_.contiguous();
  Stack s(x, weights, rounded);
  s.round_weights(false);
  const int64_t in = s.layers[0].in, out = s.layers.back().out;
  const float* const records = kept.data_ptr<float>();
  Tensor dx = at::empty({to_x ? s.networks : 0, s.batch, in}, x.options());
  std::vector<Tensor> dw, db;
  std::vector<int64_t> place;  // of each layer's dz in a network's work space
  int64_t space = 0, cost = 0;
  struct Block {
    int64_t network, layer, column, cost;  // the cost of all up to this one
  };
  std::vector<Block> blocks;
  auto columns = [&](int64_t l) { return s.layers[l].out <= NARROW ? s.layers[l].out : R; };
  for (int64_t l = 0; to_weights && l <= s.last(); l++) {
    const Layer& layer = s.layers[l];
    dw.push_back(at::empty({s.networks, layer.in, layer.out}, x.options()));
    db.push_back(at::empty({s.networks, 1, layer.out}, x.options()));
    place.push_back(space);
    space += s.panels * R * ((layer.out + columns(l) - 1) / columns(l) * columns(l));
  }
  for (int64_t n = 0; to_weights && n < s.networks; n++)  // network by network, as the panels: so most data is near
    for (int64_t l = s.last(); l >= 0; l--)
      for (int64_t c = 0; c < s.layers[l].out; c += columns(l))
        blocks.push_back({n, l, c, cost += columns(l) * s.layers[l].in});
  Tensor work = at::empty({s.networks * space}, x.options());
#pragma omp parallel if (s.networks * s.panels > 1)
  {
    const Space own(4 * s.widest * R);
#pragma omp for schedule(static)
    for (int64_t task = 0; task < s.networks * s.panels; task++) {
      const int64_t n = task / s.panels, p = task % s.panels;
      auto output = [&](int64_t l) -> Operand {  // the gradient by what layer l puts out
        float* const here = own.at + (l + 1) % 2 * s.widest * R;
        return l >= 0 && s.layers[l].rounded ? Operand{true, here, own.at + 2 * s.widest * R} : Operand{false, here, nullptr};
      };
      float* const last = s.layers[s.last()].rounded ? own.at + 3 * s.widest * R : output(s.last()).pairs;
      to_panel(grad.data_ptr<float>() + (n * s.batch + p * R) * out, s.rows_of(p), out, last);
      if (s.layers[s.last()].rounded) put_panel(output(s.last()), out, last);
      for (int64_t l = s.last(); l >= 0; l--) {
        const Layer& layer = s.layers[l];
        const Operand dz = output(l);
        if (to_weights) {
          float* const to = work.data_ptr<float>() + n * space + place[l];
          const int64_t depth = layer.rounded ? R / 2 : R;
          if (layer.out <= NARROW) {
            std::copy_n(dz.pairs, layer.out * R, to + p * layer.out * R);
          } else {
            for (int64_t c = 0; c < layer.out; c += R) {
              float* const block = to + c * s.panels * R + p * depth * R;
              const int64_t valid = std::min<int64_t>(R, layer.out - c);
              if (valid < R) std::fill_n(block, depth * R, 0.f);
              transpose((layer.rounded ? dz.rows : dz.pairs) + c * depth, depth, valid, depth, block, R);
            }
          }
        }
        if (l == 0 && !to_x) break;
        const float* const h = l == 0 ? nullptr : records + task * s.record + layer.start;
        (layer.rounded ? backward_layer<ROUNDS> : backward_layer<false>)(
            s.weight(l, n), layer.in, layer.out, dz.pairs, h, output(l - 1), static_cast<float>(slope));
      }
      if (to_x) transpose(output(-1).pairs, R, in, s.rows_of(p), dx.data_ptr<float>() + (n * s.batch + p * R) * in, in);
    }
    const int64_t threads = omp_get_num_threads(), self = omp_get_thread_num();
    for (const auto& [n, l, c, cost_so_far] : blocks) {
      if ((cost_so_far - 1) * threads / cost != self) continue;
      const Layer& layer = s.layers[l];
      const float* const input = records + n * s.panels * s.record + layer.start;
      const float* const dz = work.data_ptr<float>() + n * space + place[l] + c * s.panels * R;
      float *const w = dw[l].data_ptr<float>() + n * layer.in * layer.out + c;
      float *const b = db[l].data_ptr<float>() + n * layer.out + c;
      if (layer.out <= NARROW) {
        narrow_weight(input, s.record, s.panels, layer.in, dz, layer.out, w, b);
      } else {
        (layer.rounded ? weight_block<ROUNDS> : weight_block<false>)(
            input, s.record, s.panels, layer.in, dz, layer.out, std::min<int64_t>(R, layer.out - c), w, b);
      }
    }
  }
  std::vector<Tensor> all{dx};
  all.insert(all.end(), dw.begin(), dw.end());
  all.insert(all.end(), db.begin(), db.end());
  return all;
}

bool rounds() { return ROUNDS; }

}  // namespace

TORCH_LIBRARY_FRAGMENT(pbrl, library) {
  library.def(
      "mlp(Tensor x, Tensor[] weights, Tensor[] biases, float slope, bool rounded, bool keep) -> (Tensor, Tensor)");
  library.def(
      "mlp_backward(Tensor grad, Tensor x, Tensor kept, Tensor[] weights, float slope, bool rounded, bool to_x,"
      " bool to_weights) -> Tensor[]");
  library.def("mlp_rounds() -> bool", rounds);
  library.impl("mlp", c10::DispatchKey::CPU, TORCH_FN(mlp));
  library.impl("mlp_backward", c10::DispatchKey::CPU, TORCH_FN(mlp_backward));
}
