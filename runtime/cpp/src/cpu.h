#pragma once

namespace glesam {

// Returns whether engines add products of bytes on this CPU without loss. An x86 CPU without VNNI
// adds two products in 16 bits, where the sum can saturate. Returns false if the CPU cannot be
// queried.
bool adds_bytes_exactly();

}  // namespace glesam
