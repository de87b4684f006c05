// The first eight bytes of a sha256 (FIPS 180-4), which is what an index of ids holds of each.

#ifndef VISAVIS_SHA256_H_
#define VISAVIS_SHA256_H_

#include <cstdint>
#include <cstring>

namespace visavis {

inline constexpr uint32_t kSha256Round[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

inline uint32_t Rotated(uint32_t word, int bits) { return word >> bits | word << (32 - bits); }

inline uint32_t BigEndian(const uint8_t* at) {
  return uint32_t{at[0]} << 24 | uint32_t{at[1]} << 16 | uint32_t{at[2]} << 8 | at[3];
}

inline void Sha256Block(uint32_t* state, const uint8_t* block) {
  uint32_t words[64];
  for (int i = 0; i < 16; ++i) words[i] = BigEndian(block + 4 * i);
  for (int i = 16; i < 64; ++i) {
    const uint32_t early = words[i - 15], late = words[i - 2];
    words[i] = words[i - 16] + words[i - 7] +
               (Rotated(early, 7) ^ Rotated(early, 18) ^ early >> 3) +
               (Rotated(late, 17) ^ Rotated(late, 19) ^ late >> 10);
  }
  uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
  uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
  for (int i = 0; i < 64; ++i) {
    const uint32_t chosen = (e & f) ^ (~e & g);
    const uint32_t most = (a & b) ^ (a & c) ^ (b & c);
    const uint32_t first =
        h + (Rotated(e, 6) ^ Rotated(e, 11) ^ Rotated(e, 25)) + chosen + kSha256Round[i] + words[i];
    const uint32_t second = (Rotated(a, 2) ^ Rotated(a, 13) ^ Rotated(a, 22)) + most;
    h = g, g = f, f = e, e = d + first;
    d = c, c = b, b = a, a = first + second;
  }
  state[0] += a, state[1] += b, state[2] += c, state[3] += d;
  state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

// The first eight bytes of the sha256 of `size` bytes, as a big-endian number.
inline uint64_t Sha256Head(const void* text, int64_t size) {
  uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                       0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  const uint8_t* at = static_cast<const uint8_t*>(text);
  int64_t left = size;
  for (; left >= 64; left -= 64, at += 64) Sha256Block(state, at);
  // Behind the text: one bit, zeros, and the size in bits in the last eight bytes of a block.
  uint8_t rest[128] = {};
  if (left > 0) std::memcpy(rest, at, left);
  rest[left] = 0x80;
  const int64_t end = left < 56 ? 64 : 128;
  const uint64_t bits = static_cast<uint64_t>(size) * 8;
  for (int i = 0; i < 8; ++i) rest[end - 1 - i] = static_cast<uint8_t>(bits >> 8 * i);
  Sha256Block(state, rest);
  if (end == 128) Sha256Block(state, rest + 64);
  return uint64_t{state[0]} << 32 | state[1];
}

}  // namespace visavis

#endif  // VISAVIS_SHA256_H_
